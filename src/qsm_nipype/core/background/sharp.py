"""Methods on the spherical mean value: what is harmonic equals its mean over any ball.

A background field has its sources outside the head, so it is harmonic inside; subtracting the
mean over a ball removes it exactly wherever the ball fits into the mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from qsm_nipype.core.background import LocalField, finite_inside
from qsm_nipype.core.fourier import irfft, rfft, working_grid
from qsm_nipype.core.morphology import distance_inside
from qsm_nipype.core.solvers import conjugate_gradient


def sharp(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    radius: float = 6.0,
    threshold: float = 0.05,
) -> LocalField:
    """SHARP [Schweser2011]_: one ball, then deconvolution. `field` (X, Y, Z) in ppm → ppm.

    `radius` of the ball in mm, by which the mask is eroded; spatial frequencies where the kernel
    passes less than `threshold` are left at zero. `b0_dir` plays no part.
    """
    return vsharp(
        field,
        mask,
        voxel_size,
        b0_dir,
        max_radius=radius,
        min_radius=radius,
        threshold=threshold,
    )


def vsharp(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    max_radius: float = 12.0,
    min_radius: float | None = None,
    step: float | None = None,
    threshold: float = 0.05,
) -> LocalField:
    """V-SHARP [Li2011]_ [Wu2012]_: at each voxel the largest ball that fits. ppm → ppm.

    Radii in mm from `max_radius` down to `min_radius` by `step`, both by default the largest
    voxel edge: the mask loses one layer of voxels. The largest ball's kernel is deconvolved where
    it passes more than `threshold`. `b0_dir` plays no part.
    """
    grid = working_grid(mask, padding=_padding(max_radius, voxel_size))
    inside = grid.embed(mask)
    depth = distance_inside(inside, voxel_size, max_radius)
    radii = _radii(max_radius, min_radius, step, voxel_size)
    radii = [r for r in radii if _fits(r) < float(depth.max())] or radii[-1:]
    spectrum = rfft(finite_inside(grid.embed(field), inside))
    # the background-free field, seen through 1 − mean over a ball
    filtered = torch.zeros_like(depth)
    bounds = [math.inf, *(_fits(r) for r in radii)]
    for radius, (upper, lower) in zip(radii, pairwise(bounds), strict=True):
        kernel = 1 - mean_value_kernel(inside.shape, voxel_size, radius, depth)
        here = (depth > lower) & (depth <= upper)
        filtered = torch.where(here, irfft(spectrum * kernel, inside.shape), filtered)
        if radius == radii[0]:
            inverse = torch.where(kernel.abs() > threshold, 1 / kernel, 0.0)
    kept = depth > bounds[-1]
    local = irfft(rfft(filtered).mul_(inverse), inside.shape) * kept
    return LocalField(grid.restore(local), grid.restore(kept))


def resharp(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    radius: float = 6.0,
    regularization: float = 1e-4,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> LocalField:
    """RESHARP [Sun2014]_: the smallest local field that explains the filtered field. ppm → ppm.

    Minimises ‖M(1 − S)(x − field)‖² + `regularization`·‖x‖², S being the mean over a ball of
    `radius` mm and M the mask eroded by it, with conjugate gradients to `tolerance`. `b0_dir`
    plays no part.
    """
    grid = working_grid(mask, padding=_padding(radius, voxel_size))
    inside = grid.embed(mask)
    depth = distance_inside(inside, voxel_size, radius)
    kept = depth > _fits(radius)
    kernel = 1 - mean_value_kernel(inside.shape, voxel_size, radius, depth)

    def high(x: Tensor) -> Tensor:
        return irfft(rfft(x).mul_(kernel), x.shape)

    def normal(x: Tensor) -> Tensor:
        return high(high(x).mul_(kept)).add_(x, alpha=regularization)

    target = high(high(finite_inside(grid.embed(field), inside)).mul_(kept))
    local, iterations = conjugate_gradient(
        normal, target, tolerance=tolerance, max_iterations=max_iterations
    )
    return LocalField(grid.restore(local * kept), grid.restore(kept), iterations)


def mean_value_kernel(
    shape: Sequence[int], voxel_size: Sequence[float], radius: float, like: Tensor
) -> Tensor:
    """Half-grid transform of the mean over the voxels within `radius` mm of the centre.

    On a lattice, a ball with equal weights is not blind to harmonic functions. The weights are
    changed as little as possible so that the mean returns harmonic polynomials exactly: those up
    to degree 3, and up to degree 5 where the ball has the voxels for it.
    """
    reach = [math.floor(_fits(radius) / float(v)) for v in voxel_size]
    axes = [
        torch.arange(-n, n + 1, dtype=torch.float64) * float(v)
        for n, v in zip(reach, voxel_size, strict=True)
    ]
    x, y, z = (c / radius for c in torch.meshgrid(*axes, indexing="ij"))
    x2, y2, z2 = x**2, y**2, z**2
    ball = (x2 + y2 + z2).sqrt() <= _fits(1.0)
    weights = _harmonic_weights(x2[ball], y2[ball], z2[ball])
    stencil = like.new_zeros(tuple(shape))
    index = ball.nonzero() - torch.tensor(reach)
    stencil[tuple(index.to(like.device).T)] = weights.to(like)
    return rfft(stencil).real.contiguous()


def _harmonic_weights(x2: Tensor, y2: Tensor, z2: Tensor) -> Tensor:
    """Weights of sum 1 nearest to equal ones under which even harmonics have mean zero."""
    quadratic = [x2 - y2, y2 - z2]
    quartic = [a**2 + b**2 - 6 * a * b for a, b in ((x2, y2), (y2, z2), (z2, x2))]
    one = torch.ones_like(x2)
    for harmonics in (quadratic + quartic, quadratic):
        C = torch.stack([one, *harmonics])
        goal = torch.zeros(len(C), dtype=one.dtype)
        goal[0] = 1.0
        equal = one / one.numel()
        weights = equal + torch.linalg.pinv(C) @ (goal - C @ equal)
        exact = torch.allclose(C @ weights, goal, atol=1e-9)
        if exact and bool((weights >= 0).all()):
            return weights
    return equal


def _fits(radius: float) -> float:
    """`radius`, and the voxels that lie on it but for rounding."""
    return radius * (1 + 5e-6)


def _radii(
    largest: float, smallest: float | None, step: float | None, voxel_size: Sequence[float]
) -> list[float]:
    """Radii (mm) from `largest` down to `smallest`, both included."""
    edge = max(float(v) for v in voxel_size)
    smallest = min(edge if smallest is None else smallest, largest)
    count = max(round((largest - smallest) / (step or edge)), 0)
    return [largest + (smallest - largest) * i / max(count, 1) for i in range(count + 1)]


def _padding(radius: float, voxel_size: Sequence[float]) -> list[int]:
    """Empty voxels per axis that keep a ball off the head's periodic image."""
    return [max(16, math.ceil(radius / float(v)) + 1) for v in voxel_size]
