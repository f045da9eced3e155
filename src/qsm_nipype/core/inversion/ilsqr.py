"""Least squares inversion followed by the removal of the streaks it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.direct import tkd
from qsm_nipype.core.inversion.problem import FieldProblem, field_problem
from qsm_nipype.core.operators import divergence, gradient
from qsm_nipype.core.solvers import conjugate_gradient


def ilsqr(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    threshold: float = 0.2,
    tolerance: float = 1e-2,
    max_iterations: int = 30,
) -> Solution:
    """iLSQR [Li2015]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    First least squares for W·D·χ = W·f with χ = 0 outside `region`, by conjugate gradients on the
    normal equations, stopped at the relative residual `tolerance`. Then the streaks: the part
    χₛ of χ within the cone |D| < `threshold` whose gradient agrees best with that of χ where
    there should be none, min ‖G(∇χ − ∇χₛ)‖², is subtracted. G is 0 on the edges of a truncated
    k-space division, of which the steepest 30 % of the mask's voxels count as edges, and 1
    elsewhere. Weights W are the mask, or σ₀/σ from the map `noise` (SD in ppm).
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region)
    if problem.scale == 0:
        return Solution(problem.restore(problem.zeros()))
    x, iterations = fit_least_squares(problem, tolerance, max_iterations)
    guide = problem.cut(tkd(field, mask, voxel_size, b0_dir, threshold=0.2).chi)
    streaks, more = _streaks(
        problem, x, _mark_flat_faces(problem, guide), threshold, max_iterations
    )
    return Solution(
        problem.restore(x - streaks),
        iterations + more,
        iterations < max_iterations,
        MappingProxyType({"threshold": threshold}),
    )


def fit_least_squares(
    problem: FieldProblem, tolerance: float, steps: int, *, start: Tensor | None = None
) -> tuple[Tensor, int]:
    """χ (box) of min ‖W(Dχ − f)‖² over χ = 0 outside S, after at most `steps` CG steps."""
    S, W2, dipole = problem.S, problem.W.square(), problem.dipole
    return conjugate_gradient(
        lambda x: dipole(dipole(x).mul_(W2)).mul_(S),
        dipole(W2 * problem.f).mul_(S),
        x0=start,
        tolerance=tolerance,
        max_iterations=steps,
    )


def _mark_flat_faces(problem: FieldProblem, guide: Tensor) -> Tensor:
    """1 on the 70 % of the differences of `guide` within S that are smallest, else 0."""
    both = problem.faces()
    steps = gradient(guide, problem.voxel_size).abs_()
    inside = steps[both]
    if inside.numel() == 0:
        return torch.zeros_like(steps)
    rank = max(1, round(0.7 * inside.numel()))
    limit = inside.kthvalue(rank).values
    return (both & (steps <= limit)).to(steps.dtype)


def _streaks(
    problem: FieldProblem, x: Tensor, G: Tensor, threshold: float, steps: int
) -> tuple[Tensor, int]:
    """The part of χ = `x` in the cone that makes gradients where `G` says there are none."""
    cone = problem.D.abs() < threshold
    cone[0, 0, 0] = False
    full = x.new_zeros(problem.shape)
    inner = tuple(slice(0, n) for n in x.shape)
    vox = problem.voxel_size

    def project(y: Tensor) -> Tensor:
        """Onto the cone, on the full grid."""
        spectrum = torch.fft.rfftn(y)
        return torch.fft.irfftn(spectrum.mul_(cone), s=problem.shape)

    def energy(y: Tensor) -> Tensor:
        """∇ᵀG∇ of a full-grid tensor, which vanishes outside the box."""
        out = torch.zeros_like(full)
        out[inner] = -divergence(gradient(y[inner], vox).mul_(G), vox)
        return out

    full[inner] = x
    streaks, iterations = conjugate_gradient(
        lambda y: project(energy(y)), project(energy(full)), tolerance=0.05, max_iterations=steps
    )
    return streaks[inner], iterations
