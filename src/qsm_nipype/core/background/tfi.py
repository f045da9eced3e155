"""A harmonic method, refined by linear total field inversion of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.background import LocalField
from qsm_nipype.core.background.ismv import ismv
from qsm_nipype.core.background.lbv import lbv
from qsm_nipype.core.background.pdf import data_weights, fit_sources, remove_far_sources
from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import irfft, rfft, working_grid


def lbv_tfi(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float = 1e-3,
    padding: float = 40.0,
    tolerance: float = 1e-2,
    max_iterations: int = 20,
) -> LocalField:
    """LBV [Zhou2014]_, then linear total field inversion [Liu2017]_. ppm → ppm.

    LBV calls the local field zero on the surface, so what it returns is off by a harmonic field.
    That remainder is of the local field's own size, no longer of the background's: the smallest
    susceptibility over all of space that explains LBV's result, minimising
    ‖W(M D χ − field)‖² + `regularization`·‖χ‖², parts the two, and the field of the χ outside the
    mask is subtracted. `noise` (ppm), `padding` (mm), `tolerance` and `max_iterations` of this
    second step as in `pdf`. The mask loses one layer.
    """
    first = lbv(field, mask, voxel_size, b0_dir)
    return _refine(
        first, voxel_size, b0_dir, noise, regularization, padding, (tolerance, max_iterations)
    )


def ismv_tfi(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    radius: float | None = None,
    regularization: float = 1e-3,
    padding: float = 40.0,
    tolerance: float = 1e-2,
    max_iterations: int = 20,
) -> LocalField:
    """iSMV [Wen2014]_, then linear total field inversion [Liu2017]_ as in `lbv_tfi`. ppm → ppm.

    `radius` (mm) is iSMV's, by which the mask shrinks: None gives twice the largest voxel edge.
    It bears an unreliable field at the surface better than `lbv_tfi`.
    """
    first = ismv(field, mask, voxel_size, b0_dir, radius=radius)
    return _refine(
        first, voxel_size, b0_dir, noise, regularization, padding, (tolerance, max_iterations)
    )


def _refine(
    first: LocalField,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    noise: Tensor | None,
    regularization: float,
    padding: float,
    stop: tuple[float, int],
) -> LocalField:
    if not first.mask.any():
        return first
    grid = working_grid(first.mask, padding=[round(padding / float(v)) for v in voxel_size])
    inside = grid.embed(first.mask)
    remainder = remove_far_sources(grid.embed(first.field), inside, voxel_size)
    weights = data_weights(inside, None if noise is None else grid.embed(noise))
    kernel = dipole_kernel(inside.shape, voxel_size, b0_dir, remainder)
    everywhere = torch.ones_like(inside)
    chi, iterations = fit_sources(remainder, weights, everywhere, kernel, regularization, stop)
    background = irfft(rfft(chi * ~inside).mul_(kernel), inside.shape)
    local = (remainder - background) * inside
    return LocalField(grid.restore(local), first.mask, iterations)
