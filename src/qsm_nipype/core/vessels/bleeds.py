"""Candidates for bleeds and calcifications: compact spots of strong susceptibility."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from qsm_nipype.core.morphology import distance_inside, fill_holes
from qsm_nipype.core.vessels.hessian import curvatures, on_volume

#: σ (mm) of the smoothing; a ball answers most at 0.58 times its radius.
SCALES = (0.8, 1.2, 1.8, 2.7, 4.0, 6.0)
#: Share of the peak down to which a spot reaches, and how far from it (mm) at most.
_EDGE, _REACH = 0.4, 20.0


@dataclass(frozen=True)
class Spot:
    """A candidate: `sign` +1 iron, −1 calcium; `volume` (mm³) above 0.4 times the `peak` χ.

    `mean`, `peak` in ppm against the tissue around; `center` a voxel index; `blobness` (ppm) how
    strongly it curves in its least curved direction; `depth` (mm) below the mask's surface.
    """

    number: int
    sign: int
    center: tuple[int, int, int]
    volume: float
    mean: float
    peak: float
    blobness: float
    depth: float

    @property
    def diameter(self) -> float:
        """Of the ball of the same volume (mm)."""
        return (6 * self.volume / math.pi) ** (1 / 3)


@dataclass(frozen=True)
class Spots:
    """`labels` `(X, Y, Z)` int32, 1, 2 … by falling blobness, and the `found` spots."""

    labels: Tensor
    found: tuple[Spot, ...]


def blobness(
    chi: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    scales: Sequence[float] = SCALES,
) -> tuple[Tensor, Tensor]:
    """How compact, in ppm, the paramagnetic and the diamagnetic are: the least curvature.

    A tube does not curve along itself, nor a sheet along two directions: both answer with nothing.
    """
    least = 0.6 * min(float(v) for v in voxel_size)
    used = sorted({max(float(s), least) for s in scales})
    plus, minus = (chi.new_zeros(int(mask.sum())) for _ in range(2))
    for eigenvalues in curvatures(chi, mask, voxel_size, used):
        torch.maximum(plus, -eigenvalues[:, 2], out=plus)
        torch.maximum(minus, eigenvalues[:, 0], out=minus)
    return on_volume(plus.clamp_min_(0), mask), on_volume(minus.clamp_min_(0), mask)


def bleeds(
    chi: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    threshold: float = 0.035,
    least_chi: float = 0.15,
    least_volume: float = 3.0,
    margin: float = 2.0,
) -> Spots:
    """Candidates for bleeds and calcifications in `chi` `(X, Y, Z)`, ppm, inside `mask`.

    Peaks of a blobness above `threshold` (ppm) where |χ| exceeds `least_chi`, of `least_volume`
    mm³ and more, deeper than `margin` mm. `b0_dir` is of the common signature. Holes of the mask
    are where a bleed left no signal and count as inside. Raises ValueError for an empty mask.
    """
    whole = fill_holes(mask)
    depth = distance_inside(whole, voxel_size, 60.0)
    labels = np.zeros(chi.shape, dtype=np.int32)
    spots: list[Spot] = []
    for sign, strength in zip((1, -1), blobness(chi, mask, voxel_size), strict=True):
        strength = torch.where((sign * chi > 0) & (depth > margin), strength, 0.0)
        values = (sign * chi).cpu().numpy()
        for at, strong in _peaks(strength, threshold, voxel_size):
            if labels[at]:
                continue
            own, box = _region(values, at, voxel_size)
            volume = float(own.sum()) * math.prod(float(v) for v in voxel_size)
            around = values[box]
            peak = float(around[own].max())
            if peak < least_chi or volume < least_volume:
                continue
            free = own & (labels[box] == 0)
            labels[box][free] = len(spots) + 1
            spots.append(Spot(len(spots) + 1, sign, at, volume, sign * float(around[own].mean()),
                              sign * peak, strong, float(depth[at])))  # fmt: skip
    order = sorted(spots, key=lambda s: -s.blobness)
    renumber = np.zeros(len(spots) + 1, dtype=np.int32)
    for number, spot in enumerate(order, start=1):
        renumber[spot.number] = number
    found = tuple(
        Spot(**{**vars(spot), "number": number}) for number, spot in enumerate(order, start=1)
    )
    return Spots(torch.as_tensor(renumber[labels], device=chi.device), found)


def _peaks(
    strength: Tensor, threshold: float, voxel_size: Sequence[float]
) -> list[tuple[tuple[int, int, int], float]]:
    """Local maxima within 2 mm above `threshold`, the strongest first, and their strength."""
    values = strength.cpu().numpy()
    size = [2 * max(1, round(2.0 / float(v))) + 1 for v in voxel_size]
    highest = (ndimage.maximum_filter(values, size=size) == values) & (values > threshold)
    places = [tuple(int(i) for i in at) for at in np.argwhere(highest)]
    return sorted(((at, float(values[at])) for at in places), key=lambda pair: -pair[1])  # type: ignore[misc,arg-type]


def _region(
    values: np.ndarray, at: tuple[int, int, int], voxel_size: Sequence[float]
) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The voxels around `at` that join it above `_EDGE` of the peak there, in a box."""
    reach = [math.ceil(_REACH / float(v)) for v in voxel_size]
    box = tuple(
        slice(max(0, c - r), min(n, c + r + 1))
        for c, r, n in zip(at, reach, values.shape, strict=True)
    )
    inner = tuple(c - s.start for c, s in zip(at, box, strict=True))
    near = tuple(slice(max(0, c - 1), c + 2) for c in inner)
    part = values[box]
    brightest = np.unravel_index(int(part[near].argmax()), part[near].shape)
    top = tuple(int(i) + s.start for i, s in zip(brightest, near, strict=True))
    numbered, _ = ndimage.label(part > _EDGE * part[top])
    return numbered == numbered[top], box
