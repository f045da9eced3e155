"""A prior's map made consistent with the field, where the field tells more than the prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.dipole import apply_kernel, dipole_kernel
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.core.inversion.problem import FieldProblem
from qsm_nipype.core.solvers import conjugate_gradient

#: Residual (of the first) at which both stop.
TOLERANCE = 0.02


def consistent(
    prior: Tensor,
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    weight: float,
    confidence: Tensor | None = None,
    max_iterations: int = 30,
) -> tuple[Tensor, int]:
    """χ minimising ‖W(D χ − f)‖² + `weight`·‖χ − prior‖² over maps that vanish outside `mask`.

    W is `confidence` `(X, Y, Z)` inside the mask (None: 1) and 0 outside, where the field is not
    known. Solved for the correction by conjugate gradients, to 2 % of the first residual;
    returns χ `(X, Y, Z)` in ppm and the number of iterations.
    """
    grid = working_grid(mask)
    inside = grid.embed(mask.to(field.dtype))
    data = inside if confidence is None else inside * grid.embed(confidence).square()
    D = dipole_kernel(grid.shape, voxel_size, b0_dir, field)
    x0 = grid.embed(prior) * inside
    residual = grid.embed(field) - apply_kernel(x0, D)
    b = inside * apply_kernel(data * residual, D)

    def normal(d: Tensor) -> Tensor:
        return inside * apply_kernel(data * apply_kernel(d, D), D) + weight * d

    delta, steps = conjugate_gradient(
        normal, b, tolerance=TOLERANCE, max_iterations=max_iterations
    )
    return grid.restore(x0 + delta), steps


def settled(
    prior: Tensor, problem: FieldProblem, *, weight: float, max_iterations: int = 30
) -> tuple[Tensor, int]:
    """χ and c minimising ‖W(D χ + c − f)‖² + `weight`·‖χ − prior‖² + Σ|c(k)|²/`misfit`(k).

    As `consistent`, but with the two regions and the unknown c of `problem`: the sources of the
    field may lie beyond the mask in which it is known, and what of it no susceptibility explains
    does not pull the map away from the `prior` `(X, Y, Z)` (ppm). c is solved for as white noise u
    that a filter √`misfit` colours. Returns χ (ppm) in the mask and the number of iterations.
    """
    data, sources = problem.W.square(), problem.S.to(problem.f)
    colour = None if problem.misfit is None else problem.misfit.sqrt()
    start = problem.cut(prior) * sources

    def field(x: Tensor) -> Tensor:
        spectrum = problem.transform(sources * x[0]).mul_(problem.D)
        if colour is not None:
            spectrum += problem.transform(x[1]).mul_(colour)
        return problem.inverse(spectrum)

    def adjoint(e: Tensor) -> Tensor:
        spectrum = problem.transform(data * e)
        parts = [sources * problem.inverse(spectrum * problem.D)]
        if colour is not None:
            parts.append(problem.inverse(spectrum.mul_(colour)))
        return torch.stack(parts)

    def normal(x: Tensor) -> Tensor:
        out = adjoint(field(x))
        out[0].add_(x[0], alpha=weight)
        if colour is not None:
            out[1].add_(x[1])
        return out

    b = adjoint(problem.f - problem.dipole(start))
    found, steps = conjugate_gradient(
        normal, b, tolerance=TOLERANCE, max_iterations=max_iterations
    )
    return problem.restore(start + found[0]), steps
