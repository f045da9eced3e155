"""Training of the QSMGAN: the U-Net alone, then the adversarial refinement [Chen2020]_."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qsm_nipype.errors import UsageError
from qsm_nipype.models.qsmgan import (
    OUTPUT_SCALE,
    Critic,
    Generator,
    first_guess,
    middle,
    scale_chi,
    scale_field,
    unscale_chi,
)
from qsm_nipype.models.training import losses
from qsm_nipype.models.training.loop import Average, Plan, to_device
from qsm_nipype.models.training.sources import Sample, families, log_uniform, sample

#: (share of the schedule, edge of the input patch, batch, context cut off): cheap patches first.
STAGES = ((0.55, 32, 8, 4), (0.9, 48, 4, 8), (1.0, 64, 2, 8))
#: Edge of the held-out patches on which the error is measured.
CHECK_EDGE = 64
#: Their noise, ppm.
CHECK_NOISE = 0.002
#: Weight of voxels outside the mask in the loss: they are cut away afterwards.
OUTSIDE = 0.05
ADVERSARIAL_WEIGHT = 0.01
GRADIENT_PENALTY = 10.0
CRITIC_STEPS = 5
#: Edge of the input patch, batch and context cut off in the adversarial stage.
ADVERSARIAL_PATCH = (48, 4, 8)

#: Field, first guess, χ and mask.
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def make_cache(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    edge: int = 96,
    held_out: int = 0,
    anatomy: tuple[np.ndarray, np.ndarray] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Write `count` simulated volumes into `folder`, skipping those already there.

    The first `held_out` have 2 ppb of noise and nothing else wrong, the others are `disturbed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    makers = families(*anatomy) if anatomy else families()
    for i in range(count):
        path = folder / f"volume-{i:04d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([seed, i])
        clean = sample(*makers[i % len(makers)](rng, (edge, edge, edge)))
        volume = disturbed(rng, clean, noise=CHECK_NOISE if i < held_out else None)
        assert volume.guess is not None
        partial = folder / f".partial-{path.name}"
        with partial.open("wb") as stream:
            np.savez(
                stream,
                chi=volume.chi.astype(np.float16),
                field=volume.field.astype(np.float16),
                guess=volume.guess.astype(np.float16),
                mask=volume.mask,
            )
        partial.replace(path)
    report(f"{folder}: {count} volumes")


def disturbed(rng: np.random.Generator, clean: Sample, *, noise: float | None = None) -> Sample:
    """A volume as it would be measured, with its first guess.

    The field gets noise of SD `noise` (ppm). None: 0.3-8 ppb, a gain and a sign, sometimes a
    hole in the mask, and a first guess that takes the noise for up to 1.5 times what it is.
    """
    chi, field, mask, assumed = clean.chi, clean.field, clean.mask, noise
    if noise is None:
        gain = log_uniform(rng, 0.5, 2.0) * (-1 if rng.random() < 0.15 else 1)
        chi, field = gain * chi, gain * field
        noise = log_uniform(rng, 3e-4, 8e-3)
        assumed = noise * log_uniform(rng, 0.67, 1.5)
        for _ in range(rng.poisson(0.7)):
            centre, radius = rng.uniform(0, mask.shape), rng.uniform(2, 12)
            mask = mask & (_distance2(mask.shape, centre) > radius**2)
    field = field + noise * rng.standard_normal(field.shape, dtype=np.float32)
    field, chi = (np.where(mask, a, 0).astype(np.float32) for a in (field, chi))
    guess = first_guess(
        torch.from_numpy(field),
        torch.from_numpy(mask),
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 1.0),
        noise=float(assumed or noise),
    )
    return Sample(chi, field, mask, guess.numpy())


@dataclass(frozen=True)
class Patches:
    """Cached volumes as a source of augmented batches."""

    volumes: Sequence[Sample]

    @classmethod
    def load(cls, folder: Path, *, skip: int = 0, stop: int | None = None) -> Patches:
        """The volumes number `skip` to `stop` of the cache. Raises UsageError if there is none."""
        paths = sorted(folder.glob("volume-*.npz"))[skip:stop]
        if not paths:
            raise UsageError(f"{folder}: no training volumes; make them with --volumes N first")
        volumes = []
        for path in paths:
            with np.load(path) as data:
                parts = [data[name] for name in ("chi", "field", "mask", "guess")]
            volumes.append(Sample(*parts))
        return cls(volumes)

    def batch(self, rng: np.random.Generator, edge: int, count: int) -> Batch:
        """Field, first guess, χ (ppm) and mask, each `(count, 1, edge, edge, edge)`.

        The centre lies in the mask; flips and the exchange of x and y are drawn at random.
        """
        parts = [self._patch(rng, edge) for _ in range(count)]
        stacked = [np.stack(part)[:, None].astype(np.float32) for part in zip(*parts, strict=True)]
        field, guess, chi, mask = (torch.from_numpy(part) for part in stacked)
        return field, guess, chi, mask

    def _patch(self, rng: np.random.Generator, edge: int) -> list[np.ndarray]:
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        assert volume.guess is not None
        box = _random_box(rng, volume.mask, edge)
        axes = tuple(int(a) for a in np.flatnonzero(rng.random(3) < 0.5))
        order = (1, 0, 2) if rng.random() < 0.5 else (0, 1, 2)
        parts = (volume.field, volume.guess, volume.chi, volume.mask)
        return [np.flip(_cut(part, box, edge), axes).transpose(order) for part in parts]


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
    """U-Net stage: L1 on tanh(10 χ), patches growing along the schedule."""

    def __init__(
        self, train: Patches, held_out: Patches, plan: Plan, device: torch.device
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.train = plan, device, train
        self.network = Generator(inputs=2).to(device, memory_format=torch.channels_last_3d)
        self.average = Average(self.network, plan.average)
        self.optimizer = torch.optim.Adam(self.network.parameters(), plan.learning_rate)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
        }
        rng = np.random.default_rng([plan.seed, 1 << 30])
        self.checks = [held_out.batch(rng, CHECK_EDGE, 2) for _ in range(4)]

    def step(self, step: int, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """One update on a batch of the patch size due at this point of the schedule."""
        progress = (step + 1) / self.plan.steps
        _, edge, count, crop = next(s for s in STAGES if progress <= s[0])
        return self.update(self.train.batch(rng, edge, count), crop, rate)

    def update(self, batch: Batch, crop: int, rate: float) -> dict[str, float]:
        """One step of the generator on L1 alone."""
        field, target, weight = prepare(batch, crop, self.device)
        set_rate(self.optimizer, rate)
        self.network.train()
        loss = losses.weighted_l1(self.network(field, crop), target, weight)
        descend(self.optimizer, self.network, loss)
        return {"loss": loss.item(), "rate": rate}

    @torch.no_grad()
    def validate(self) -> float:
        """NRMSE of χ inside the mask on fixed held-out patches with 2 ppb of noise."""
        error, power = 0.0, 0.0
        for field, guess, chi, mask in self.checks:
            (x,) = to_device(self.device, network_input(field, guess))
            found = unscale_chi(self.average.network(x)).cpu()
            truth, inside = middle(chi, 8), middle(mask, 8)
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

    def step(self, step: int, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """Several updates of the critic on one batch, then one of the generator on the same."""
        edge, count, crop = ADVERSARIAL_PATCH
        field, target, weight = prepare(self.train.batch(rng, edge, count), crop, self.device)
        set_rate(self.optimizer, rate)
        set_rate(self.critic_optimizer, rate)
        self.network.train()
        output = self.network(field, crop)
        inside = (weight > 0.5).to(output.dtype)
        real, fake = target * inside, output.detach() * inside
        for _ in range(CRITIC_STEPS):
            score = self._update_critic(real, fake)
        l1 = losses.weighted_l1(output, target, weight)
        adversarial = -self.critic(output * inside).mean()
        descend(self.optimizer, self.network, l1 + ADVERSARIAL_WEIGHT * adversarial)
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
        descend(self.critic_optimizer, self.critic, distance + GRADIENT_PENALTY * penalty)
        return distance.item()


def descend(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
    """One step of `optimizer` down the gradient of `loss`, its norm limited to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def network_input(field: Tensor, guess: Tensor) -> Tensor:
    """Field and first guess of χ (ppm) as the two channels that the network takes."""
    return torch.cat([scale_field(field), OUTPUT_SCALE * guess], dim=1)


def prepare(batch: Batch, crop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Field, first guess, χ, mask in ppm → network input, target, weight of each voxel."""
    field, guess, chi, mask = to_device(device, *batch)
    weight = OUTSIDE + (1 - OUTSIDE) * middle(mask, crop)
    x = network_input(field, guess).contiguous(memory_format=torch.channels_last_3d)
    return x, scale_chi(middle(chi, crop)), weight


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
