"""Training of QSMmask-net: whole-head magnitudes with random contrast, Dice loss [Lee2025]_."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import fft, ndimage
from torch import Tensor

from qsm_nipype.errors import UsageError
from qsm_nipype.models.mask import MaskNet, scale_magnitude
from qsm_nipype.models.training import losses
from qsm_nipype.models.training.loop import Average, Plan, to_device
from qsm_nipype.models.training.qsmgan import descend, set_rate
from qsm_nipype.models.training.sources import smooth_noise

#: Crops as published; smaller ones where memory or time is short.
PATCH = (128, 128, 64)
BATCH = 2
#: Rotation and shear of the affine augmentation, radians.
AFFINE = 0.05 * np.pi
PROBABILITY = 0.2
#: Extent of a simulated head, mm.
FIELD_OF_VIEW = (180.0, 220.0, 180.0)


@dataclass(frozen=True)
class Heads:
    """Magnitudes `(X, Y, Z)` in RAS+ orientation with their brain masks."""

    pairs: Sequence[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def load(cls, folder: Path, *, skip: int = 0, stop: int | None = None) -> Heads:
        """Heads number `skip` to `stop` of a cache of `head-*.npz` (`magnitude`, `mask`)."""
        paths = sorted(folder.glob("head-*.npz"))[skip:stop]
        if not paths:
            raise UsageError(f"{folder}: no training heads; make them with --volumes N first")
        pairs = []
        for path in paths:
            with np.load(path) as data:
                pairs.append((data["magnitude"].astype(np.float32), data["mask"].astype(bool)))
        return cls(pairs)

    def batch(
        self, rng: np.random.Generator, patch: Sequence[int], count: int, *, augment: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Magnitude in [0, 1] and mask, `(count, 1, …)`, centred in brain and outside by turns."""
        images, masks = [], []
        for i in range(count):
            image, mask = self.pairs[int(rng.integers(len(self.pairs)))]
            box = crop_box(rng, mask == (i % 2 == 0), patch)
            image, mask = _cut(image, box), _cut(mask, box)
            if augment:
                image, mask = _augment(rng, image, mask)
            pixels = np.ascontiguousarray(image, dtype=np.float32)
            images.append(scale_magnitude(torch.from_numpy(pixels)))
            masks.append(torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32)))
        return torch.stack(images)[:, None], torch.stack(masks)[:, None]


def crop_box(
    rng: np.random.Generator, wanted: np.ndarray, patch: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Start and length per axis of a crop around a random voxel of `wanted`.

    The crop is moved inwards where it would stick out; a volume smaller than the patch is
    filled up with zeros by `_cut`.
    """
    places = np.flatnonzero(wanted)
    flat = places[rng.integers(places.size)] if places.size else wanted.size // 2
    centre = np.unravel_index(flat, wanted.shape)
    starts = (
        int(min(max(0, c - p // 2), max(0, n - p)))
        for c, p, n in zip(centre, patch, wanted.shape, strict=True)
    )
    return tuple(zip(starts, patch, strict=True))


def _cut(volume: np.ndarray, box: Sequence[tuple[int, int]]) -> np.ndarray:
    part = volume[tuple(slice(s, s + n) for s, n in box)]
    return np.pad(part, [(0, n - m) for (_, n), m in zip(box, part.shape, strict=True)])


def _augment(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Left-right flip (p .5); affine, Gibbs ringing, smoothing, bias field, gamma (p .2 each)."""
    if rng.random() < 0.5:
        image, mask = image[::-1], mask[::-1]
    if rng.random() < PROBABILITY:
        matrix = np.eye(3) + rng.uniform(-AFFINE, AFFINE, (3, 3))
        middle = (np.array(image.shape) - 1) / 2
        shift = middle - matrix @ middle
        image = ndimage.affine_transform(image, matrix, shift, order=1)
        mask = ndimage.affine_transform(mask.astype(np.float32), matrix, shift, order=1) > 0.5
    if rng.random() < PROBABILITY:
        image = gibbs(image, rng.uniform(0.3, 0.9))
    if rng.random() < PROBABILITY:
        image = ndimage.gaussian_filter(image, rng.uniform(0.25, 1.5))
    if rng.random() < PROBABILITY:
        image = image * np.exp(0.3 * smooth_noise(rng, image.shape, 25))  # type: ignore[arg-type]
    if rng.random() < PROBABILITY:
        top = max(float(image.max()), 1e-12)
        image = top * np.clip(image / top, 0, 1) ** rng.uniform(0.6, 1.6)
    return image.astype(np.float32), mask


def gibbs(image: np.ndarray, keep: float) -> np.ndarray:
    """Ringing from cutting k-space outside a sphere of `keep` times the highest frequency."""
    axes = [fft.fftfreq(n) * 2 for n in image.shape[:2]] + [fft.rfftfreq(image.shape[2]) * 2]
    radius = np.sqrt(sum(k**2 for k in np.ix_(*axes)))
    ringing = fft.irfftn(fft.rfftn(image) * (radius <= keep), s=image.shape)
    return np.abs(ringing).astype(np.float32)


class MaskTask:
    """Dice loss with Adam, foreground and background crops by turns."""

    def __init__(
        self,
        train: Heads,
        held_out: Heads,
        plan: Plan,
        device: torch.device,
        *,
        patch: Sequence[int] = PATCH,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.device, self.train, self.patch = device, train, tuple(patch)
        self.network = MaskNet().to(device)
        self.average = Average(self.network, plan.average)
        self.optimizer = torch.optim.Adam(self.network.parameters(), plan.learning_rate)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
        }
        rng = np.random.default_rng([plan.seed, 1 << 30])
        self.checks = [held_out.batch(rng, self.patch, 2, augment=False) for _ in range(3)]

    def step(self, step: int, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """One update on a fresh batch."""
        image, mask = to_device(self.device, *self.train.batch(rng, self.patch, BATCH))
        set_rate(self.optimizer, rate)
        self.network.train()
        loss = losses.dice_loss(self.network(image), mask)
        descend(self.optimizer, self.network, loss)
        return {"loss": loss.item(), "rate": rate}

    @torch.no_grad()
    def validate(self) -> float:
        """1 − Dice of the thresholded masks of held-out crops, all crops together."""
        common, total = 0.0, 0.0
        for image, mask in self.checks:
            found = self.average.network(image.to(self.device)).cpu() > 0
            common += float((found * mask).sum())
            total += float(found.sum() + mask.sum())
        return 1 - 2 * common / max(total, 1.0)


def make_cache(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    voxel_size: float = 1.5,
    report: Callable[[str], None] = print,
) -> None:
    """Simulate `count` heads into `folder` (those already there are kept): magnitude and mask.

    The magnitude is the root mean square over the echoes; contrasts, heads and noise differ.
    """
    from qsm_nipype.simulation.signal import Protocol
    from qsm_nipype.simulation.subject import simulate_subject

    folder.mkdir(parents=True, exist_ok=True)
    edges = tuple(2 * round(mm / voxel_size / 2) for mm in FIELD_OF_VIEW)
    for i in range(count):
        path = folder / f"head-{i:04d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([seed, i])
        first, spacing = rng.uniform(0.003, 0.006), rng.uniform(0.004, 0.010)
        protocol = Protocol(
            b0=float(rng.choice([1.5, 3.0, 7.0])),
            echo_times=tuple(float(first + n * spacing) for n in range(3)),
            flip_angle=float(rng.uniform(8, 25)),
            repetition_time=float(rng.uniform(0.03, 0.06)),
            snr=float(rng.uniform(20, 100)),
            receive_bias=float(rng.uniform(0.1, 0.6)),
        )
        scan = simulate_subject(
            int(rng.integers(1 << 31)), shape=edges, voxel_size=voxel_size, protocol=protocol
        )
        magnitude = np.sqrt(np.square(scan.magnitude).mean(-1)).astype(np.float16)
        partial = folder / f".partial-{path.name}"
        with partial.open("wb") as stream:
            np.savez(stream, magnitude=magnitude, mask=scan.brain)
        partial.replace(path)
    report(f"{folder}: {count} heads")
