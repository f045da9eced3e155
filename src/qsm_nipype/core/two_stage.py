"""Two-stage reconstruction: without strong sources first, then filled [Stewart2022]_.

A haemorrhage's streaks come from the little that its strong field is wrong by. So the map is made
twice: of the whole mask, which shows where the strong sources are, and of the mask without them,
where background removal takes their field away. The second map is free of their streaks, and the
first one fills the holes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core import morphology


def without_strong_sources(
    chi: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    threshold: float,
    radius: float = 2.0,
    margin: float = 2.5,
) -> Tensor:
    """`mask` (bool) without the sources of |`chi`| above `threshold` (ppm), both `(X, Y, Z)`.

    What a ball of `radius` mm does not fit into (veins) stays; around the rest, `margin` mm are
    left out as well. Only the largest part is kept, so that nothing is cut off the brain and
    left alone.
    """
    strong = (chi.abs() > threshold) & mask
    thick = morphology.opening(strong, voxel_size, radius)
    if not thick.any():
        return mask.clone()
    strong &= morphology.dilate(thick, voxel_size, radius)
    return morphology.largest_component(mask & ~morphology.dilate(strong, voxel_size, margin))


def join_stages(robust: Tensor, inside: Tensor, filled: Tensor, mask: Tensor) -> Tensor:
    """χ of both stages in one map: `robust` where `inside`, else `filled`; zero outside `mask`.

    `filled` is shifted so that both have the same mean where both are known.
    """
    both = inside & mask
    shift = (robust[both] - filled[both]).mean() if both.any() else 0.0
    return torch.where(mask, torch.where(both, robust, filled + shift), 0.0)
