"""Training of the QSMGAN: the U-Net alone, then the adversarial refinement [Chen2020]_."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from qsm_nipype.models.qsmgan import OUTPUT_SCALE, Critic, Generator, crop_middle, scale_field
from qsm_nipype.training import losses
from qsm_nipype.training.loop import Average, Plan, to_device
from qsm_nipype.training.qsmgan_data import Batch, Patches

#: (share of the schedule, edge of the input patch, batch, context cut off): cheap patches first.
STAGES = ((0.6, 32, 8, 4), (0.93, 48, 3, 4), (1.0, 64, 2, 8))
#: Edge of the held-out patches on which the error is measured.
CHECK_EDGE = 64
#: Weight of voxels outside the mask in the loss: they are cut away afterwards.
OUTSIDE = 0.05
ADVERSARIAL_WEIGHT = 0.01
GRADIENT_PENALTY = 10.0
CRITIC_STEPS = 5
#: Edge of the input patch, batch and context cut off in the adversarial stage.
ADVERSARIAL_PATCH = (48, 4, 8)


class UNetTask:
    """U-Net stage: L1 on tanh(10 χ) and on 10 χ, patches growing along the schedule.

    The network has the field for an input, and the first guesses that the volumes come with; it
    begins with the weights `start`, or at random.
    """

    def __init__(
        self,
        train: Patches,
        held_out: Patches,
        plan: Plan,
        device: torch.device,
        *,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.train = plan, device, train
        self.network = Generator(inputs=1 + train.guesses).to(device)
        if start is not None:
            self.network.load_state_dict(dict(start))
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = Average(self.network, plan.average)
        self.optimizer = torch.optim.Adam(self.network.parameters(), plan.learning_rate)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
        }
        rng = np.random.default_rng([plan.seed, 1 << 30])
        self.checks = [held_out.batch(rng, CHECK_EDGE, 2) for _ in range(4)]

    def draw(self, step: int, rng: np.random.Generator) -> tuple[Batch, int]:
        """A batch of the patch size due at this point of the schedule, and what to cut off."""
        progress = (step + 1) / self.plan.steps
        _, edge, count, crop = next(s for s in STAGES if progress <= s[0])
        return self.train.batch(rng, edge, count), crop

    def step(self, batch: tuple[Batch, int], rate: float) -> dict[str, float]:
        """One update of the generator on L1 alone."""
        patches, crop = batch
        x, target, weight = prepare(patches, crop, self.device)
        set_rate(self.optimizer, rate)
        self.network.train()
        loss = regression_loss(self.network.argument(x, crop), target, weight)
        take_step(self.optimizer, self.network, loss)
        return {"loss": loss.item(), "rate": rate}

    @torch.no_grad()
    def validate(self) -> float:
        """NRMSE of χ inside the mask on fixed held-out patches with 2 ppb of noise."""
        error, power = 0.0, 0.0
        for field, guesses, chi, mask in self.checks:
            (x,) = to_device(self.device, network_input(field, guesses))
            found = self.average.network.argument(x).cpu() / OUTPUT_SCALE
            truth, inside = crop_middle(chi, 8), crop_middle(mask, 8)
            error += float(((found - truth) * inside).square().sum())
            power += float((truth * inside).square().sum())
        return (error / power) ** 0.5


class AdversarialTask(UNetTask):
    """WGAN-GP stage: the critic learns to tell real χ patches, the generator to please it too.

    Start it from a trained U-Net; the target is L1 + 0.01 · (− critic's score), with several
    critic steps for each step of the generator and Adam (0.5, 0.999) for both.
    """

    def __init__(
        self,
        train: Patches,
        held_out: Patches,
        plan: Plan,
        device: torch.device,
        *,
        start: Mapping[str, Tensor],
    ) -> None:
        super().__init__(train, held_out, plan, device, start=start)
        self.critic = Critic().to(device)
        betas = (0.5, 0.999)
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=betas)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), betas=betas)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "critic": self.critic,
            "critic_optimizer": self.critic_optimizer,
        }

    def draw(self, step: int, rng: np.random.Generator) -> tuple[Batch, int]:
        """A batch of one size throughout, and what to cut off."""
        edge, count, crop = ADVERSARIAL_PATCH
        return self.train.batch(rng, edge, count), crop

    def step(self, batch: tuple[Batch, int], rate: float) -> dict[str, float]:
        """Several updates of the critic on one batch, then one of the generator on the same."""
        patches, crop = batch
        x, target, weight = prepare(patches, crop, self.device)
        set_rate(self.optimizer, rate)
        set_rate(self.critic_optimizer, rate)
        self.network.train()
        argument = self.network.argument(x, crop)
        output = torch.tanh(argument)
        inside = (weight > 0.5).to(output.dtype)
        real, fake = torch.tanh(target) * inside, output.detach() * inside
        for _ in range(CRITIC_STEPS):
            score = self._update_critic(real, fake)
        l1 = regression_loss(argument, target, weight)
        adversarial = -self.critic(output * inside).mean()
        take_step(self.optimizer, self.network, l1 + ADVERSARIAL_WEIGHT * adversarial)
        return {
            "loss": l1.item(),
            "adversarial": adversarial.item(),
            "critic": score,
            "rate": rate,
        }

    def _update_critic(self, real: Tensor, fake: Tensor) -> float:
        mix = torch.rand(real.shape[0], device=real.device)
        distance = losses.critic_loss(self.critic(real), self.critic(fake))
        penalty = losses.gradient_penalty(self.critic, real, fake, mix)
        take_step(self.critic_optimizer, self.critic, distance + GRADIENT_PENALTY * penalty)
        return distance.item()


def take_step(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
    """One step of `optimizer` down the gradient of `loss`, its norm limited to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def regression_loss(argument: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 of tanh(10 χ), as published, and of 10 χ itself, in which strong sources count.

    `argument` is the generator's before the tanh, `target` 10 χ; the mean of both.
    """
    squashed = losses.weighted_l1(torch.tanh(argument), torch.tanh(target), weight)
    return 0.5 * (squashed + losses.weighted_l1(argument, target, weight))


def network_input(field: Tensor, guesses: Tensor) -> Tensor:
    """Field and first guesses of χ (ppm), if any, as the channels that the network takes."""
    return torch.cat([scale_field(field), OUTPUT_SCALE * guesses], dim=1)


def prepare(batch: Batch, crop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Field, first guesses, χ, mask in ppm → network input, 10 χ, weight of each voxel."""
    field, guesses, chi, mask = to_device(device, *batch)
    weight = OUTSIDE + (1 - OUTSIDE) * crop_middle(mask, crop)
    x = network_input(field, guesses).contiguous(memory_format=torch.channels_last_3d)
    return x, OUTPUT_SCALE * crop_middle(chi, crop), weight


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
