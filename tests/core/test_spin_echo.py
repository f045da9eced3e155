"""Echo trains against what is known of them in closed form; R2 whatever the transmit field."""

import math

import pytest
import torch

from qsm_nipype.core.spin_echo import echo_train, spin_echo_r2

SPACING, COUNT = 0.01, 12
TIMES = [SPACING * (n + 1) for n in range(COUNT)]


def test_perfect_pulses_leave_a_single_exponential():
    t2 = torch.tensor([0.03, 0.08, 0.5])
    train = echo_train(t2, torch.full((3,), math.pi), SPACING, COUNT)
    assert torch.allclose(train, torch.exp(-torch.tensor(TIMES) / t2[:, None]), atol=1e-6)


def test_the_first_echo_is_the_squared_sine_and_the_second_has_a_stimulated_part():
    # no decay: E1 = sin²(α/2); E2 = sin⁴(α/2) + ½ sin²α, of which the second was stored along B0
    angle = torch.linspace(0.5, math.pi, 7)
    train = echo_train(torch.full((7,), 1e6), angle, SPACING, 2, t1=1e6)
    half = torch.sin(angle / 2) ** 2
    assert torch.allclose(train[:, 0], half, atol=1e-5)
    assert torch.allclose(train[:, 1], half**2 + 0.5 * torch.sin(angle) ** 2, atol=1e-5)


def test_as_much_too_far_is_as_much_too_little():
    t2 = torch.full((5,), 0.08)
    less, more = (math.pi * (1 + s * torch.linspace(0, 0.3, 5)) for s in (-1, 1))
    low, high = (echo_train(t2, a, SPACING, COUNT) for a in (less, more))
    assert torch.allclose(low, high, atol=1e-5)


@pytest.mark.parametrize("t1", [0.6, 3.0])
def test_r2_is_within_three_percent_at_a_b1_twenty_percent_off(t1):
    shape = (80, 12, 10)
    draw = torch.Generator().manual_seed(3)
    t2 = 0.04 + 0.12 * torch.rand(shape, generator=draw)
    b1 = torch.linspace(0.8, 1.2, 80)[:, None, None].expand(shape)
    train = echo_train(t2.reshape(-1), math.pi * b1.reshape(-1), SPACING, COUNT, t1=t1)
    real, imaginary = (torch.randn(train.shape, generator=draw) / 80 for _ in range(2))
    image = torch.hypot(train + real, imaginary).reshape(*shape, COUNT)
    everywhere = torch.ones(shape, dtype=torch.bool)
    found = spin_echo_r2(image, everywhere, (2.0, 2.0, 2.0), echo_times=TIMES)
    off = found.r2 * t2 - 1
    for part in off.chunk(8, 0):
        assert abs(float(part.mean())) < 0.03
    assert torch.allclose(found.t2 * found.r2, torch.ones(shape), atol=1e-4)
    away = (b1 - 1).abs()
    assert float((1 - found.b1 - away)[4:-4].abs().mean()) < 0.03


def test_echoes_that_make_no_train_are_refused():
    image, mask = torch.rand(4, 4, 4, 3), torch.ones(4, 4, 4, dtype=torch.bool)
    for times in ([0.01, 0.02, 0.04], [0.02, 0.03, 0.04]):
        with pytest.raises(ValueError, match="equal steps"):
            spin_echo_r2(image, mask, (1.0, 1.0, 1.0), echo_times=times)
