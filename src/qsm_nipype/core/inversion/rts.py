"""Rapid two-step inversion: divide where that is safe, let total variation fill the rest."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.field_noise import field_noise, noise_weights
from qsm_nipype.core.fourier import gradient_spectrum
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.direct import tkd
from qsm_nipype.core.inversion.ilsqr import least_squares
from qsm_nipype.core.inversion.tv import (
    RELAXATION,
    SplitProblem,
    relative_change,
    split_problem,
)
from qsm_nipype.core.inversion.weights import rts_weight
from qsm_nipype.core.operators import divergence, gradient, shrink_vector

#: Conjugate gradient steps of the first stage: few, because stopping early is what keeps the
#: ill-conditioned part of k-space from being fitted to noise.
FIRST_STAGE = 12


def rts(  # noqa: PLR0913  (the eight of every inversion and the paper's δ)
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
    threshold: float = 0.2,
    tolerance: float = 1e-2,
    max_iterations: int = 40,
) -> Solution:
    """Rapid two-step dipole inversion [Kames2018]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    First a few conjugate gradient steps for W·D·χ = W·f with χ = 0 outside `mask`, from a
    truncated division, which settle the well-conditioned part |D| ≥ `threshold`. Then
    ½‖H(χ − χ₁)‖² + λ Σ|∇χ|₂ with the k-space weight H = min(|D|/`threshold`, 1)², by ADMM with
    two transforms an iteration. `regularization` λ (ppm) None takes it from the noise by
    `rts_weight`. Weights W as in `tv.tv`. Stops on a relative change of χ of `tolerance`.
    """
    problem = split_problem(field, mask, voxel_size, b0_dir, weights=noise_weights(noise, mask))
    sigma = 0.0
    if regularization is None:
        sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = rts_weight(sigma, problem.scale)
    chosen = {"regularization": regularization, **({"noise": sigma} if sigma else {})}
    if problem.scale == 0:
        return Solution(
            problem.restore(torch.zeros_like(problem.f)), 0, True, MappingProxyType(chosen)
        )
    start = problem.cut(tkd(field, mask, voxel_size, b0_dir, threshold=threshold).chi)
    first, steps = least_squares(problem, 1e-6, FIRST_STAGE, start=start)
    H = (problem.D.abs() / threshold).clamp_(max=1.0).square_()
    x, iterations, change = _fill(problem, first, H, regularization, (tolerance, max_iterations))
    return Solution(
        problem.restore(x),
        steps + iterations,
        change <= tolerance,
        MappingProxyType(chosen),
    )


def _fill(
    problem: SplitProblem,
    first: Tensor,
    H: Tensor,
    regularization: float,
    limits: tuple[float, int],
) -> tuple[Tensor, int, float]:
    """ADMM for ½‖H^½(χ − `first`)‖² + λ Σ|∇χ|₂ with χ = 0 outside the mask."""
    M, vox, a = problem.M, problem.voxel_size, RELAXATION
    threshold = 1.5 * problem.scale
    mu = regularization / threshold
    denominator = (H + mu * (gradient_spectrum(problem.shape, vox, first) + 1)).reciprocal_()
    fixed = problem.transform(first).mul_(H)

    x = first
    z1, z3 = shrink_vector(gradient(x, vox), threshold), x.clone()
    r1, r3 = z1.clone(), x.clone()
    u1, u3 = torch.zeros_like(z1), torch.zeros_like(x)
    iteration, change = 0, float("inf")
    while iteration < limits[1] and change > limits[0]:
        iteration += 1
        # χ-update
        X = problem.transform(r3.sub_(divergence(r1, vox)).mul_(mu)).add_(fixed).mul_(denominator)
        x_old, x = x, problem.inverse(X)
        # z₁, u₁: gradient
        u1.add_(gradient(x, vox, out=r1), alpha=a).add_(z1, alpha=1 - a)
        z1 = shrink_vector(u1, threshold)
        torch.sub(z1, u1.sub_(z1), out=r1)
        # z₃, u₃: support
        u3.add_(x, alpha=a).add_(z3, alpha=1 - a)
        z3 = u3 * M
        torch.sub(z3, u3.sub_(z3), out=r3)
        change = relative_change(x, x_old, M)
    return x, iteration, change
