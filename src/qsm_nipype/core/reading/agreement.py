"""Whether phase and magnitude are of one scan: in space, and in their course over the echoes.

Where there is no signal, phase is noise. So the noise of the phase lies where the magnitude is
dark; after a mirror, a move, or for another head it lies elsewhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

#: Edge (mm) of the blocks that are compared, and how far (mm) the parts may be moved.
BLOCK, REACH = 3.0, 18.0
#: Moves (mm) that a head's own steep fields may feign.
FEIGNED = 4.0
#: Share of the bright blocks' noise that is left where another place fits clearly better, and the
#: least difference of that noise.
LEFT, LEAST = 0.93, 0.004
#: Share of the dark blocks that are noise, at least, where magnitude and phase tell of each other:
#: beside a surface coil, or with magnitude zero, dark tissue has phase.
DARK_NOISE = 0.5
#: Brightness, relative to the brightest tissue, of the blocks that are compared.
BRIGHT = 0.25
#: Growth of the tissue's signal from one echo to the next that no decay has.
GROWTH = 1.05


@dataclass(frozen=True)
class Place:
    """Where phase fits magnitude best: mirrored along an axis or none, moved by `shift` (mm).

    `noise` is the share of bright blocks there whose phase is noise, `noise_as_stored` that of
    the images as they are, `dark_noise` that of the dark ones.
    """

    mirrored: int | None
    shift: tuple[float, float, float]
    noise: float
    noise_as_stored: float
    dark_noise: float

    @property
    def elsewhere(self) -> bool:
        """Whether that is clearly not the place in which the images were stored."""
        away = self.mirrored is not None or math.hypot(*self.shift) > FEIGNED
        better = self.noise < LEFT * self.noise_as_stored
        told = self.dark_noise > DARK_NOISE and max(map(abs, self.shift)) < REACH - BLOCK
        return told and away and better and self.noise_as_stored - self.noise > LEAST


def check_agreement(
    phase: Tensor,
    magnitude: Tensor,
    times: Sequence[float],
    voxel_size: Sequence[float],
    record: Mapping[str, Any],
) -> None:
    """Add to `record` an error where phase and magnitude lie apart, a warning where signal grows.

    `phase` (rad) and `magnitude` `(X, Y, Z, E)`, echo `times` in s.
    """
    place = best_place(phase[..., 0], magnitude[..., 0], voxel_size)
    if place is not None and place.elsewhere:
        record["errors"].append(
            f"phase and magnitude are not of one image: the noise of the phase lies around the "
            f"head when {_moved(place)}; give both parts of the same scan, as one converter "
            "writes them"
        )
    for e, growth in enumerate(_growths(magnitude)):
        if growth > GROWTH and e + 1 < len(times):
            record["warnings"].append(
                f"the signal grows by {100 * (growth - 1):.0f} % from {1000 * times[e]:.3g} to "
                f"{1000 * times[e + 1]:.3g} ms, but signal decays: the images of the echoes may "
                "be exchanged; look at their names and EchoTime"
            )


def _moved(place: Place) -> str:
    if place.mirrored is not None:
        return f"the magnitude is mirrored along axis {place.mirrored + 1} of the image"
    axis = max(range(3), key=lambda a: abs(place.shift[a]))
    return (
        f"the magnitude is moved by {place.shift[axis]:+.3g} mm along axis {axis + 1} of the image"
    )


def _growths(magnitude: Tensor) -> list[float]:
    """The median ratio of the signal of bright voxels of each echo to that of the echo before."""
    sample = magnitude[::2, ::2, ::2].reshape(-1, magnitude.shape[3]).numpy()
    strongest = sample.max(axis=1)
    bright = sample[strongest > 0.4 * np.quantile(strongest, 0.98)]
    if len(bright) < 500 or not (strongest > 0).any():
        return []
    ratios = bright[:, 1:] / np.maximum(bright[:, :-1], 1e-6 * bright.max())
    return [float(r) for r in np.median(ratios, axis=0)]


def best_place(phase: Tensor, magnitude: Tensor, voxel_size: Sequence[float]) -> Place | None:
    """Where the noise of `phase` (rad) spares the bright parts of `magnitude` most.

    Both `(X, Y, Z)`. None where the image is too small, or too bright, to tell.
    """
    blocks = [max(1, round(BLOCK / float(step))) for step in voxel_size]
    noise = _noise(phase.numpy(), blocks)
    signal = _blocks(magnitude.numpy(), blocks)
    positive = signal[signal > 0]
    if min(signal.shape) < 16 or positive.size < 1000:
        return None
    bright = signal > BRIGHT * np.quantile(positive, 0.98)
    if not 0.02 < float(bright.mean()) < 0.85:
        return None
    steps = [float(v) * b for v, b in zip(voxel_size, blocks, strict=True)]
    found = [_nearest(noise, np.flip(bright, axis) if axis is not None else bright, steps, axis)
             for axis in (None, 0, 1, 2)]  # fmt: skip
    stored = float(noise[bright].mean())
    mirrored, shift, share = min(found, key=lambda f: f[2])
    dark = (float(noise.sum()) - share * float(bright.sum())) / float((~bright).sum())
    return Place(mirrored, shift, share, stored, dark)


def _nearest(
    noise: np.ndarray, bright: np.ndarray, steps: Sequence[float], axis: int | None
) -> tuple[int | None, tuple[float, float, float], float]:
    """The shift (mm) of `bright` with the least `noise` under it; outside there is nothing else.

    A mirrored image is not moved: where it lies in its field of view is part of the mirror.
    """
    reach = [0 if axis is not None else int(REACH // s) for s in steps]
    padded = np.pad(noise, [(r, r) for r in reach], constant_values=1.0)
    count = float(bright.sum())
    best = (axis, (0.0, 0.0, 0.0), float(noise[bright].mean()))
    where = [i for i in itertools.product(*(range(-r, r + 1) for r in reach))
             if sum(n != 0 for n in i) <= 1]  # fmt: skip
    for move in where:
        sides = zip(reach, move, noise.shape, strict=True)
        cut = tuple(slice(r + m, r + m + n) for r, m, n in sides)
        share = float((padded[cut] * bright).sum()) / count
        if share < best[2]:
            x, y, z = (m * s for m, s in zip(move, steps, strict=True))
            best = (axis, (x, y, z), share)
    return best


def _noise(phase: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Share of each block's neighbours that are noise: twice those over a quarter turn apart.

    Neighbours of which both are exactly zero were not measured: noise, too.
    """
    total = np.zeros([n // b for n, b in zip(phase.shape, blocks, strict=True)], np.float32)
    for axis in range(3):
        other = np.roll(phase, -1, axis)
        apart = np.abs(phase - other)
        jump = (apart > math.pi / 2) & (apart < 1.5 * math.pi)
        total += _blocks((jump | ((phase == 0) & (other == 0))).astype(np.float32), blocks)
    return np.minimum(2 * total / 3, 1)


def _blocks(values: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Means of `values` `(X, Y, Z)` over whole `blocks` of voxels."""
    count = [n // b for n, b in zip(values.shape, blocks, strict=True)]
    cut = values[tuple(slice(0, n * b) for n, b in zip(count, blocks, strict=True))]
    shape = [k for pair in zip(count, blocks, strict=True) for k in pair]
    return np.asarray(cut.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32))
