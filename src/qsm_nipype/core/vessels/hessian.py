"""Curvatures of a volume at a scale: what is a tube, what is a blob."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.fourier import frequencies, irfft, rfft, working_grid

_REACH = 4.0  # standard deviations of padding


def curvatures(
    x: Tensor, mask: Tensor, voxel_size: Sequence[float], scales: Sequence[float]
) -> list[Tensor]:
    """σ² times the eigenvalues of the Hessian of `x` `(X, Y, Z)` smoothed by σ, for each scale.

    `scales` σ in mm. Each is `(N, 3)` over the N voxels of `mask`, in rising order and the unit
    of x: scaled so, a structure answers most at the σ of its own size. x is zero outside the
    mask. Raises ValueError for an empty mask.
    """
    largest = max(scales)
    grid = working_grid(mask, padding=[math.ceil(_REACH * largest / v) for v in voxel_size])
    inside = grid.embed(mask)
    spectrum = rfft(grid.embed(torch.where(mask, x, 0.0)))
    k = frequencies(grid.shape, voxel_size, x)
    squared = k[0].square() + k[1].square() + k[2].square()
    # at the Nyquist frequency the sign of k is not known: products of two have none there
    odd = [torch.where(f.abs() * 2 * float(v) > 1 - 1e-6, 0.0, f)
           for f, v in zip(k, voxel_size, strict=True)]  # fmt: skip
    found = []
    for sigma in scales:
        smooth = spectrum * torch.exp(-2 * (math.pi * sigma) ** 2 * squared)
        factor = -((2 * math.pi * sigma) ** 2)
        entries = [
            irfft(smooth * (factor * f), grid.shape)[inside]
            for f in (*(f.square() for f in k), odd[0] * odd[1], odd[0] * odd[2], odd[1] * odd[2])
        ]
        found.append(_eigenvalues(*entries))
    return found


def _eigenvalues(xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor) -> Tensor:
    """Eigenvalues `(N, 3)` of symmetric matrices, rising, by a third of an angle."""
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    spread = ((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6).sqrt()
    determinant = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)
    ratio = determinant / (2 * spread**3).clamp_min(1e-30)
    angle = torch.acos(ratio.clamp(-1, 1)) / 3
    high = mean + 2 * spread * torch.cos(angle)
    low = mean + 2 * spread * torch.cos(angle + 2 * math.pi / 3)
    return torch.stack([low, 3 * mean - high - low, high], -1)


def on_volume(values: Tensor, mask: Tensor) -> Tensor:
    """A list over the voxels of `mask` as a volume, zero elsewhere."""
    out = values.new_zeros(mask.shape)
    out[mask] = values
    return out
