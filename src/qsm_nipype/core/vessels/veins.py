"""Veins: paramagnetic tubes, at several scales [Sato1998]_ [Frangi1998]_."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from qsm_nipype.core.morphology import dilate, opening
from qsm_nipype.core.vessels.hessian import curvatures, on_volume

#: σ (mm) of the smoothing; a vein answers most at 0.7 times its radius.
SCALES = (0.6, 0.9)
#: χ (ppm) that no vein has, and how far around it (mm) there is none: bleeds have rough rims.
NO_VEIN, AROUND = 0.5, 3.0


@dataclass(frozen=True)
class Veins:
    """`mask` (bool) and `tubeness` (ppm), both `(X, Y, Z)`."""

    mask: Tensor
    tubeness: Tensor


def tubeness(
    chi: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    scales: Sequence[float] = SCALES,
) -> Tensor:
    """How tubular and paramagnetic, in ppm: −λ₂ − |λ₃| at the best scale, λ₁ ≤ λ₂ ≤ λ₃.

    Across a tube both curvatures are strong and alike, along it there is none; a sheet has one
    strong curvature, and a blob's third takes it off. `chi` `(X, Y, Z)` in ppm. Scales below the
    voxel are those of the voxel.
    """
    least = 0.6 * min(float(v) for v in voxel_size)
    used = sorted({max(float(s), least) for s in scales})
    best = chi.new_zeros(int(mask.sum()))
    for low, middle, high in (e.unbind(-1) for e in curvatures(chi, mask, voxel_size, used)):
        tube = torch.where((low < 0) & (middle < 0), -middle - high.abs(), 0.0)
        torch.maximum(best, tube.clamp_min_(0), out=best)
    return on_volume(best, mask)


def veins(
    chi: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    strong: float = 0.03,
    weak: float = 0.015,
    least_chi: float = 0.05,
    length: float = 4.0,
) -> Veins:
    """The veins of `chi` `(X, Y, Z)` in ppm inside `mask`.

    Voxels above `least_chi` with a tubeness above `weak` (ppm) that join one above `strong`, in
    pieces of `length` mm at least from end to end, and not beside bleeds. `b0_dir` is of the
    common signature and does not count. Raises ValueError for an empty mask.
    """
    found = tubeness(chi, mask, voxel_size)
    bleeding = opening(mask & (chi > NO_VEIN), voxel_size, 0.9)
    candidates = (found > weak) & (chi > least_chi) & ~dilate(bleeding, voxel_size, AROUND)
    labels, count = ndimage.label(candidates.cpu().numpy(), structure=np.ones((3, 3, 3)))
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.unique(labels[(candidates & (found > strong)).cpu().numpy()])] = True
    keep[0] = False
    steps = np.asarray([float(v) for v in voxel_size])
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        extent = np.array([s.stop - s.start for s in box]) * steps
        keep[number] &= bool(np.linalg.norm(extent) >= length)
    return Veins(torch.as_tensor(keep[labels], device=chi.device), found)
