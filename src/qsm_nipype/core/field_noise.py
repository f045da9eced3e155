"""How noisy a local field is, estimated from the field itself, and weights from a noise map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import WorkingGrid, distances, frequencies, irfft, rfft, working_grid

#: Half width |D| of the magic cone in which a local field holds hardly anything but noise.
CONE_HALF_WIDTH = 0.03


def field_noise(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
) -> float:
    """Standard deviation (ppm) of the white noise in a local `field` `(X, Y, Z)` in ppm.

    With a `noise` map (SD in ppm) it is that map's median in the mask. Without one it is read
    where the signal cannot be: a local field is D(k)·χ(k), so on the magic cone D ≈ 0 only noise
    is left. The mask's edge would leak signal into the cone; a smooth window inside the mask
    keeps the leak near its origin, and only high spatial frequencies, where a head has least
    power, are counted. Their median power is robust against the rest. 0 for an empty mask.
    """
    mask = mask.bool() & torch.isfinite(field)
    if not bool(mask.any()):
        return 0.0
    if noise is not None:
        known = noise[mask & torch.isfinite(noise) & (noise > 0)]
        if known.numel():
            return float(known.median())
    grid = working_grid(mask, padding=8)
    window = window_inside(grid.embed(mask.to(field.dtype)), voxel_size)
    energy = float(window.square().sum())
    if energy == 0:
        return 0.0
    inside = torch.where(mask, field, field.new_zeros(()))
    power = rfft(grid.embed(inside) * window).abs().square()
    cone = _cone(grid, voxel_size, b0_dir, field)
    # the half grid stands for the whole: its inner planes count twice
    values = torch.cat([power[cone], power[..., 1:-1][cone[..., 1:-1]]])
    return math.sqrt(float(values.median()) / (math.log(2.0) * energy))


def window_inside(mask: Tensor, voxel_size: Sequence[float], radius: float = 4.0) -> Tensor:
    """A mask that fades from one, `radius` voxels inside, to zero at its edge, smoothly."""
    width = radius * sum(float(v) for v in voxel_size) / 3
    r = distances(mask.shape, voxel_size, mask)
    bump = torch.where(r < width, (1 - (r / width).square()).clamp_min(0).square(), 0.0)
    soft = irfft(rfft(mask) * rfft(bump / bump.sum()), mask.shape).clamp(0, 1)
    return ((2 * soft - 1).clamp_min(0) * mask).square()


def _cone(
    grid: WorkingGrid, voxel_size: Sequence[float], b0_dir: Sequence[float], like: Tensor
) -> Tensor:
    """Frequencies near the magic cone and beyond half of the Nyquist frequency."""
    kernel = dipole_kernel(grid.shape, voxel_size, b0_dir, like)
    relative = [
        2 * k * float(v)
        for k, v in zip(frequencies(grid.shape, voxel_size, like), voxel_size, strict=True)
    ]
    radius = sum((k.square() for k in relative), like.new_zeros(()))
    for width in (CONE_HALF_WIDTH, 2 * CONE_HALF_WIDTH, 4 * CONE_HALF_WIDTH, 1.0):
        cone = (kernel.abs() < width) & (radius > 0.5) & (radius < 2.5)
        if int(cone.sum()) >= 100 or width == 1.0:
            break
    return cone


def noise_weights(noise: Tensor | None, mask: Tensor) -> Tensor:
    """Data weights W = σ₀/σ in the mask, at most 1, from a `noise` map (SD in ppm); 0 outside.

    σ₀ is the median noise, so that most voxels keep the weight one and only the noisier ones
    lose. Without a map the weights are the mask. Voxels without a finite positive noise get 0.
    """
    weights = mask.to(noise.dtype if noise is not None else torch.float32)
    if noise is None:
        return weights
    known = mask & torch.isfinite(noise) & (noise > 0)
    if not bool(known.any()):
        return weights
    typical = noise[known].median()
    return torch.where(known, (typical / noise.clamp_min(1e-30)).clamp(max=1.0), 0.0)
