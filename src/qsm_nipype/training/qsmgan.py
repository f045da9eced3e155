"""Training of the QSMGAN: the U-Net alone, then the adversarial refinement [Chen2020]_."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.models.qsmgan import (
    OUTPUT_SCALE,
    Critic,
    Generator,
    crop_middle,
    first_guesses,
    scale_field,
)
from qsm_nipype.training import losses
from qsm_nipype.training.cache import fill_cache
from qsm_nipype.training.loop import Average, Plan, to_device
from qsm_nipype.training.sources import (
    B0_DIR,
    VOXEL_SIZE,
    Sample,
    families,
    log_uniform,
    sample,
    smooth_noise,
)

#: (share of the schedule, edge of the input patch, batch, context cut off): cheap patches first.
STAGES = ((0.6, 32, 8, 4), (0.93, 48, 3, 4), (1.0, 64, 2, 8))
#: Edge of the held-out patches on which the error is measured.
CHECK_EDGE = 64
#: Their noise, ppm.
CHECK_NOISE = 0.002
#: Share of the volumes with a rest of the background in their field.
WITH_REST = 0.4
#: Weight of voxels outside the mask in the loss: they are cut away afterwards.
OUTSIDE = 0.05
ADVERSARIAL_WEIGHT = 0.01
GRADIENT_PENALTY = 10.0
CRITIC_STEPS = 5
#: Edge of the input patch, batch and context cut off in the adversarial stage.
ADVERSARIAL_PATCH = (48, 4, 8)

#: Field, first guesses (two channels), χ and mask.
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def make_cache(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    edge: int = 96,
    held_out: int = 0,
    anatomy: tuple[np.ndarray, np.ndarray] | None = None,
    workers: int = 0,
) -> list[Path]:
    """Write `count` simulated volumes into `folder`, skipping those already there.

    The first `held_out` have 2 ppb of noise and nothing else wrong, the others are `disturbed`.
    """
    makers = families(*anatomy) if anatomy else families()

    def make(number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        clean = sample(*makers[number % len(makers)](rng, (edge, edge, edge)))
        volume = disturbed(rng, clean, noise=CHECK_NOISE if number < held_out else None)
        assert volume.guesses is not None
        return {
            "chi": volume.chi.astype(np.float16),
            "field": volume.field.astype(np.float16),
            "guesses": volume.guesses.astype(np.float16),
            "mask": volume.mask,
        }

    made_with = {"seed": seed, "edge": edge, "held_out": held_out, "colin27": anatomy is not None}
    return fill_cache(folder, "volume", count, make, made_with=made_with, workers=workers)


def disturbed(rng: np.random.Generator, clean: Sample, *, noise: float | None = None) -> Sample:
    """A volume as it would be measured, with its first guesses.

    The field gets noise of SD `noise` (ppm). None: 0.3-8 ppb, a gain and a sign, sometimes a
    hole in the mask or a rest of the background, and first guesses that take the noise for up to
    1.5 times what it is.
    """
    chi, field, mask, assumed = clean.chi, clean.field, clean.mask, noise
    if noise is None:
        gain = log_uniform(rng, 0.5, 2.0) * (-1 if rng.random() < 0.15 else 1)
        chi, field = gain * chi, gain * field
        noise = log_uniform(rng, 3e-4, 8e-3)
        assumed = noise * log_uniform(rng, 0.67, 1.5)
        if rng.random() < WITH_REST:
            field = field + background_rest(rng, field, mask)
        for _ in range(rng.poisson(0.7)):
            centre, radius = rng.uniform(0, mask.shape), rng.uniform(2, 12)
            mask = mask & (_distance2(mask.shape, centre) > radius**2)
    field = field + noise * rng.standard_normal(field.shape, dtype=np.float32)
    field, chi = (np.where(mask, a, 0).astype(np.float32) for a in (field, chi))
    guesses = first_guesses(
        torch.from_numpy(field),
        torch.from_numpy(mask),
        VOXEL_SIZE,
        B0_DIR,
        noise=float(assumed or noise),
    )
    return Sample(chi, field, mask, torch.stack(guesses).numpy())


def background_rest(rng: np.random.Generator, field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What background removal leaves: a field (ppm) of sources outside the `mask`.

    Harmonic inside; its RMS there is 5 to 40 % of that of the local `field`. Zero where the mask
    leaves no room for sources.
    """
    outside = mask.size - np.count_nonzero(mask)
    if outside < 0.01 * mask.size:
        return np.zeros_like(field)
    sources = np.where(mask, 0, smooth_noise(rng, mask.shape, rng.uniform(1.5, 6)))
    rest = dipole_field(torch.from_numpy(sources.astype(np.float32)), VOXEL_SIZE, B0_DIR).numpy()
    size = log_uniform(rng, 0.05, 0.4) * float(np.square(field[mask]).mean()) ** 0.5
    return rest * (size / max(float(np.square(rest[mask]).mean()) ** 0.5, 1e-12))


@dataclass(frozen=True)
class Patches:
    """Cached volumes as a source of augmented batches."""

    volumes: Sequence[Sample]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Patches:
        """The volumes of the cache's files `paths`."""
        volumes = []
        for path in paths:
            with np.load(path) as data:
                parts = [data[name] for name in ("chi", "field", "mask", "guesses")]
            volumes.append(Sample(*parts))
        return cls(volumes)

    def batch(self, rng: np.random.Generator, edge: int, count: int) -> Batch:
        """Field, first guesses, χ (ppm) and mask, `(count, 1 or 2, edge, edge, edge)` each.

        The centre lies in the mask; flips and the exchange of x and y are drawn at random.
        """
        parts = [self._patch(rng, edge) for _ in range(count)]
        stacked = [np.stack(part).astype(np.float32) for part in zip(*parts, strict=True)]
        field, guesses, chi, mask = (torch.from_numpy(part) for part in stacked)
        return field, guesses, chi, mask

    def _patch(self, rng: np.random.Generator, edge: int) -> list[np.ndarray]:
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        assert volume.guesses is not None
        box = _random_box(rng, volume.mask, edge)
        axes = tuple(int(a) for a in np.flatnonzero(rng.random(3) < 0.5))
        order = (1, 0, 2) if rng.random() < 0.5 else (0, 1, 2)

        def turned(*channels: np.ndarray) -> np.ndarray:
            return np.stack([np.flip(_cut(c, box, edge), axes).transpose(order) for c in channels])

        return [
            turned(volume.field),
            turned(*volume.guesses),
            turned(volume.chi),
            turned(volume.mask),
        ]


def _random_box(rng: np.random.Generator, mask: np.ndarray, edge: int) -> list[int]:
    """Start of a box whose centre lies in the mask (a random voxel if that takes too long)."""
    for _ in range(50):
        centre = rng.integers(mask.shape)
        if mask[tuple(centre)]:
            break
    return [int(c) - edge // 2 for c in centre]


def _cut(volume: np.ndarray, start: Sequence[int], edge: int) -> np.ndarray:
    """A cube of the volume, zero-filled where it sticks out."""
    out = np.zeros((edge,) * 3, volume.dtype)
    inner = tuple(
        slice(max(0, s), max(0, min(n, s + edge)))
        for s, n in zip(start, volume.shape, strict=True)
    )
    outer = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inner, start, strict=True))
    out[outer] = volume[inner]
    return out


def _distance2(shape: tuple[int, ...], centre: np.ndarray) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))


class UNetTask:
    """U-Net stage: L1 on tanh(10 χ) and on 10 χ, patches growing along the schedule."""

    def __init__(
        self, train: Patches, held_out: Patches, plan: Plan, device: torch.device
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.train = plan, device, train
        self.network = Generator(inputs=3).to(device)
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
        super().__init__(train, held_out, plan, device)
        self.network.load_state_dict(dict(start))
        self.average = Average(self.network, plan.average)
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
    """Field and first guesses of χ (ppm) as the three channels that the network takes."""
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
