"""Iterative spherical mean value: a background that reproduces itself under averaging."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.background import LocalField, finite_inside
from qsm_nipype.core.background.sharp import mean_value_kernel
from qsm_nipype.core.fourier import irfft, rfft, working_grid
from qsm_nipype.core.morphology import erode
from qsm_nipype.core.solvers import conjugate_gradient


def ismv(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    radius: float | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> LocalField:
    """iSMV [Wen2014]_: `field` (X, Y, Z) in ppm → local field in ppm.

    The background equals its own mean S over a ball of `radius` mm (None: twice the largest voxel
    edge) wherever the ball fits, and the total field in the layer in between. Wen repeats the
    averaging until nothing changes; here conjugate gradients solve the same fixed point,
    M(1 − S)M x = M(1 − S)·field for the local field x, to `tolerance`. The mask loses `radius`.
    `b0_dir` plays no part.
    """
    ball = 2 * max(float(v) for v in voxel_size) if radius is None else radius
    grid = working_grid(mask, padding=[max(8, math.ceil(ball / float(v)) + 1) for v in voxel_size])
    inside = grid.embed(mask)
    kept = erode(inside, voxel_size, ball)
    total = finite_inside(grid.embed(field), inside)
    kernel = 1 - mean_value_kernel(inside.shape, voxel_size, ball, total)

    def high(x: Tensor) -> Tensor:
        return irfft(rfft(x).mul_(kernel), x.shape).mul_(kept)

    local, iterations = conjugate_gradient(
        high, high(total), tolerance=tolerance, max_iterations=max_iterations
    )
    return LocalField(grid.restore(local), grid.restore(kept), iterations)
