"""Minimum intensity projection over a thickness in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Voxel edges that differ by less than this factor are alike.
_ALIKE = 1.05


def slice_axis(voxel_size: Sequence[float], b0_dir: Sequence[float]) -> int:
    """The axis across the slices: the longest edge of the voxel (mm).

    Of edges that differ by less than 5 % it is the one most along B0, so that isotropic voxels
    give axial projections, however they are stored.
    """
    longest = max(voxel_size)
    axes = [a for a in range(3) if voxel_size[a] * _ALIKE > longest]
    return max(axes, key=lambda a: abs(b0_dir[a]))


def window_slices(thickness: float, spacing: float) -> int:
    """The odd number of slices `spacing` mm apart nearest to `thickness` mm, at least one."""
    return 2 * max(0, math.floor((thickness / spacing - 1) / 2 + 0.5)) + 1


def minimum_projection(
    image: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    thickness: float,
) -> Tensor:
    """The least of `image` `(X, Y, Z)` within ± half of `thickness` mm across the slices.

    A sliding window of an odd number of slices, centred in every slice and cut at the ends of the
    volume. Only voxels of `mask` (bool) count, so that air and skull leave no shadow; zero outside
    it.
    """
    axis = slice_axis(voxel_size, b0_dir)
    count = window_slices(thickness, float(voxel_size[axis]))
    kernel, padding = [1, 1, 1], [0, 0, 0]
    kernel[axis], padding[axis] = count, count // 2
    inverted = torch.where(mask, -image, torch.full_like(image, -math.inf))[None, None]
    least = -torch.nn.functional.max_pool3d(inverted, kernel, stride=1, padding=padding)[0, 0]
    return torch.where(mask, least, torch.zeros_like(image))
