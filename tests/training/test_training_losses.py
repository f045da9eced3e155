"""Losses at points where their values are known."""

import pytest
import torch

from qsm_nipype.training import losses


def test_dice_is_zero_for_a_sure_hit_and_one_for_a_sure_miss():
    target = torch.zeros(2, 1, 8, 8, 8)
    target[:, :, 2:6] = 1
    sure = 40 * (2 * target - 1)
    assert losses.dice_loss(sure, target) == pytest.approx(0, abs=1e-5)
    assert losses.dice_loss(-sure, target) == pytest.approx(1, abs=1e-5)


def test_weighted_l1_ignores_voxels_of_no_weight():
    a, b = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 99.0])
    assert losses.weighted_l1(a, b, torch.tensor([1.0, 0.0])) == 2
    assert losses.weighted_l1(a, b, torch.zeros(2)) == 0


@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_penalty_of_a_linear_critic_is_the_excess_of_its_slope_squared(slope):
    direction = torch.zeros(1, 1, 4, 4, 4)
    direction[0, 0, 1, 2, 3] = slope

    def critic(x):
        return (x * direction).flatten(1).sum(1)

    real, fake = torch.randn(5, 1, 4, 4, 4), torch.randn(5, 1, 4, 4, 4)
    penalty = losses.gradient_penalty(critic, real, fake, torch.rand(5))
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_the_penalty_trains_the_critic():
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(8, 4), torch.nn.LeakyReLU(0.2), torch.nn.Linear(4, 1)
    )
    x = torch.randn(3, 1, 2, 2, 2)
    losses.gradient_penalty(critic, x, -x, torch.rand(3)).backward()
    assert critic[1].weight.grad.abs().sum() > 0


def test_the_critic_wants_real_above_fake():
    assert losses.critic_loss(torch.tensor([2.0]), torch.tensor([-1.0])) == -3
