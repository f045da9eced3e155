"""Gaussian low pass in mm around a mask, the same whichever way the axes are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from qsm_nipype.core.fourier import WorkingGrid, frequencies, irfft, rfft, working_grid

#: Standard deviations of padding, beyond which a Gaussian is nothing.
_REACH = 4.0


@dataclass(frozen=True)
class LowPass:
    """Convolution with a Gaussian of sum 1; what lies outside the mask's box counts as zero."""

    grid: WorkingGrid
    transfer: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """`x` `(X, Y, Z)` smoothed inside the box, zero outside it."""
        smooth = irfft(rfft(self.grid.embed(x)) * self.transfer, self.grid.shape)
        return self.grid.restore(smooth)


def low_pass(mask: Tensor, voxel_size: Sequence[float], sigma: float, like: Tensor) -> LowPass:
    """A Gaussian of standard deviation `sigma` mm for the bounding box of `mask` `(X, Y, Z)`.

    `like` gives dtype and device. Raises ValueError for an empty mask or a `sigma` that is not
    above zero.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"the low pass needs a width above 0 mm, not {sigma:g}")
    padding = [math.ceil(_REACH * sigma / float(step)) for step in voxel_size]
    grid = working_grid(mask, padding=padding)
    squared = sum(k.square() for k in frequencies(grid.shape, voxel_size, like))
    return LowPass(grid, (-2 * (math.pi * sigma) ** 2 * squared).exp())  # type: ignore[union-attr]


def high_passed(x: Tensor, mask: Tensor, voxel_size: Sequence[float], sigma: float) -> Tensor:
    """`x` `(X, Y, Z)` less its Gaussian mean (`sigma` mm) over the voxels of `mask` (bool).

    Zero outside the mask. Only voxels inside count for the mean, so that the edge is no step; a
    mean from one side is wrong where a background field is steep, so the result fades from where
    the Gaussian lies inside to nothing where half of it does.
    """
    inside = mask.to(x.dtype)
    low = low_pass(mask, voxel_size, sigma, x)
    share = low(inside).clamp_min(1e-6)
    return (x - low(x * inside) / share) * (2 * share - 1).clamp(0, 1) * inside
