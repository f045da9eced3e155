"""Volumes on a coarser or finer grid of the same extent, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def resize(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """`volume` `(X, Y, Z)` on `shape` voxels that fill the same box.

    Linear interpolation between voxel centres where the grid gets finer; where it gets coarser, a
    triangle as wide as the new voxels, so that nothing aliases. Constants stay constant.
    """
    for axis, length in enumerate(shape):
        if volume.shape[axis] != length:
            matrix = _weights(volume.shape[axis], length, volume)
            volume = torch.tensordot(matrix, volume, ([1], [axis])).movedim(0, axis)
    return volume.contiguous()


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """`(new, old)` rows of non-negative weights with sum 1."""
    places = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    distance = (places[:, None] - torch.arange(old)).abs()
    weights = (1 - distance / max(1.0, old / new)).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).to(like)
