"""What the QSMGAN is trained on: simulated volumes in a cache, and patches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.models.qsmgan import first_guesses
from qsm_nipype.training.cache import fill_cache
from qsm_nipype.training.sources import (
    B0_DIR,
    VOXEL_SIZE,
    Sample,
    families,
    log_uniform,
    sample,
    smooth_noise,
)

#: Noise of the held-out volumes, ppm.
CHECK_NOISE = 0.002
#: Share of the volumes with a rest of the background in their field.
WITH_REST = 0.4

#: Field, first guesses (two channels, or none), χ and mask.
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def make_cache(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    edge: int = 96,
    held_out: int = 0,
    anatomy: tuple[np.ndarray, np.ndarray] | None = None,
    guesses: bool = True,
    workers: int = 0,
) -> list[Path]:
    """Write `count` simulated volumes into `folder`, skipping those already there.

    The first `held_out` have 2 ppb of noise and nothing else wrong, the others are `disturbed`.
    Without `guesses` the volumes have none: the network is to start from the field alone.
    """
    makers = families(*anatomy) if anatomy else families()

    def make(number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        clean = sample(*makers[number % len(makers)](rng, (edge, edge, edge)))
        noise = CHECK_NOISE if number < held_out else None
        return packed(disturbed(rng, clean, noise=noise, guesses=guesses))

    made_with: dict[str, Any] = {"seed": seed, "edge": edge, "held_out": held_out}
    made_with["colin27"] = anatomy is not None
    made_with["guesses"] = "whtv" if guesses else "none"
    return fill_cache(folder, "volume", count, make, made_with=made_with, workers=workers)


def packed(volume: Sample) -> dict[str, np.ndarray]:
    """A volume as it is cached: half precision."""
    maps = {"chi": volume.chi, "field": volume.field}
    if volume.guesses is not None:
        maps["guesses"] = volume.guesses
    return {**{name: x.astype(np.float16) for name, x in maps.items()}, "mask": volume.mask}


def disturbed(
    rng: np.random.Generator,
    clean: Sample,
    *,
    noise: float | None = None,
    guesses: bool = True,
) -> Sample:
    """A volume as it would be measured, with its first guesses if `guesses` are wanted.

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
    if not guesses:
        return Sample(chi, field, mask)
    found = first_guesses(
        torch.from_numpy(field),
        torch.from_numpy(mask),
        VOXEL_SIZE,
        B0_DIR,
        noise=float(assumed or noise),
    )
    return Sample(chi, field, mask, torch.stack(found).numpy())


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
                parts = {name: data[name] for name in data.files}
            volumes.append(Sample(**parts))
        return cls(volumes)

    @property
    def guesses(self) -> int:
        """How many first guesses of χ the volumes come with."""
        first = self.volumes[0].guesses
        return 0 if first is None else len(first)

    def batch(self, rng: np.random.Generator, edge: int, count: int) -> Batch:
        """Field, first guesses, χ (ppm) and mask, `(count, 0 to 2, edge, edge, edge)` each.

        The centre lies in the mask; flips and the exchange of x and y are drawn at random.
        """
        parts = [self._patch(rng, edge) for _ in range(count)]
        stacked = [np.stack(part).astype(np.float32) for part in zip(*parts, strict=True)]
        field, guesses, chi, mask = (torch.from_numpy(part) for part in stacked)
        return field, guesses, chi, mask

    def _patch(self, rng: np.random.Generator, edge: int) -> list[np.ndarray]:
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        box = _random_box(rng, volume.mask, edge)
        axes = tuple(int(a) for a in np.flatnonzero(rng.random(3) < 0.5))
        order = (1, 0, 2) if rng.random() < 0.5 else (0, 1, 2)

        def turned(*channels: np.ndarray) -> np.ndarray:
            cuts = [np.flip(_cut(c, box, edge), axes).transpose(order) for c in channels]
            return np.stack(cuts) if cuts else np.empty((0, edge, edge, edge))

        return [
            turned(volume.field),
            turned(*(() if volume.guesses is None else volume.guesses)),
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
