"""Projection onto dipole fields, and the fit of sources that it shares with `tfi`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.background import LocalField, finite_inside
from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import irfft, rfft, working_grid
from qsm_nipype.core.solvers import conjugate_gradient


def pdf(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float = 1e-4,
    padding: float = 40.0,
    tolerance: float = 1e-3,
    max_iterations: int = 40,
) -> LocalField:
    """PDF [Liu2011]_: the background is what sources outside the mask can explain. ppm → ppm.

    Minimises ‖W(M D χ − field)‖² + `regularization`·‖χ‖² over χ outside `mask`, on a grid that
    extends `padding` mm (both sides together) beyond the mask, after a fit of the solid harmonics
    up to degree 2, which far sources make. W = 1/`noise` (standard deviation in ppm; median 1);
    None weighs all voxels alike. The mask is kept whole.
    """
    grid = working_grid(mask, padding=[round(padding / float(v)) for v in voxel_size])
    inside = grid.embed(mask)
    total = remove_far_sources(finite_inside(grid.embed(field), inside), inside, voxel_size)
    weights = data_weights(inside, None if noise is None else grid.embed(noise))
    kernel = dipole_kernel(inside.shape, voxel_size, b0_dir, total)
    sources, iterations = fit_sources(
        total, weights, ~inside, kernel, regularization, (tolerance, max_iterations)
    )
    local = (total - irfft(rfft(sources).mul_(kernel), inside.shape)) * inside
    return LocalField(grid.restore(local), grid.restore(inside), iterations)


def fit_sources(
    total: Tensor,
    weights: Tensor,
    allowed: Tensor,
    kernel: Tensor,
    regularization: float,
    stop: tuple[float, int],
) -> tuple[Tensor, int]:
    """Smallest χ where `allowed` whose dipole field explains `total` where it has weight.

    All on the working grid of `kernel`; `stop` is CG's tolerance and most iterations. Returns χ
    and the number of iterations.
    """
    squared = weights.square()

    def dipoles(x: Tensor) -> Tensor:
        return irfft(rfft(x).mul_(kernel), x.shape)

    def normal(x: Tensor) -> Tensor:
        return dipoles(dipoles(x).mul_(squared)).mul_(allowed).add_(x, alpha=regularization)

    target = dipoles(total * squared).mul_(allowed)
    return conjugate_gradient(normal, target, tolerance=stop[0], max_iterations=stop[1])


def data_weights(inside: Tensor, noise: Tensor | None) -> Tensor:
    """1/noise with median 1, at most 3, zero outside; voxels without a finite noise count not."""
    flat = inside.to(torch.float32)
    if noise is None:
        return flat
    usable = inside & torch.isfinite(noise) & (noise > 0)
    if not usable.any():
        return flat
    typical = noise[usable].median()
    return torch.where(usable, typical / noise.clamp_min(typical / 3), 0.0)


def remove_far_sources(total: Tensor, inside: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """`total` minus its least-squares solid harmonics up to degree 2 inside; zero outside.

    They are what distant sources and the shim make, and the slowest part of a fit of dipoles.
    """
    index = inside.nonzero().to(torch.float64)
    x, y, z = ((index - index.mean(0)) * index.new_tensor([float(v) / 100 for v in voxel_size])).T
    terms = [torch.ones_like(x), x, y, z, x * y, y * z, z * x, x**2 - y**2, 2 * z**2 - x**2 - y**2]
    basis = torch.stack(terms, dim=1)
    values = total[inside].to(torch.float64)
    normal = basis.T @ basis
    normal += 1e-12 * normal.diagonal().max() * torch.eye(9).to(normal)
    smooth = basis @ torch.linalg.solve(normal, basis.T @ values)
    out = torch.zeros_like(total)
    out[inside] = (values - smooth).to(total)
    return out
