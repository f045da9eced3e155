"""What every method of susceptibility-weighted imaging returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from qsm_nipype.core.morphology import fill_holes
from qsm_nipype.core.swi.projection import minimum_projection


@dataclass(frozen=True)
class Weighted:
    """`image` and its minimum intensity `projection`, and the `weight` (0 to 1) in the image.

    All are `(X, Y, Z)`. The image covers all that was measured, the projection the brain.
    """

    image: Tensor
    projection: Tensor
    weight: Tensor


def weighted(
    image: Tensor,
    weight: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    thickness: float,
) -> Weighted:
    """`image` times `weight`, projected over `thickness` mm inside `mask` (bool) and its holes.

    Holes of a mask are where a bleed left no signal, which a projection is to show.
    """
    product = image * weight
    projection = minimum_projection(
        product, fill_holes(mask), voxel_size, b0_dir, thickness=thickness
    )
    return Weighted(product, projection, weight)
