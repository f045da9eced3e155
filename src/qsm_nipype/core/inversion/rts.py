"""Rapid two-step inversion: divide where that is safe, let total variation fill the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import (
    GRADIENT_SCALE,
    RELAXATION,
    Limits,
    NoData,
    WeightedDivision,
    solve,
    zero_solution,
)
from qsm_nipype.core.inversion.direct import tkd
from qsm_nipype.core.inversion.ilsqr import fit_least_squares
from qsm_nipype.core.inversion.priors import Variation
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import rts_weight, with_model_error

#: Conjugate gradient steps of the first stage: few, because stopping early is what keeps the
#: ill-conditioned part of k-space from being fitted to noise.
FIRST_STAGE_ITERATIONS = 12


def rts(  # noqa: PLR0913  (the eight of every inversion and the paper's δ)
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    regularization: float | None = None,
    threshold: float = 0.2,
    tolerance: float = 5e-3,
    max_iterations: int = 40,
) -> Solution:
    """Rapid two-step dipole inversion [Kames2018]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    First a few conjugate gradient steps for W·D·χ = W·f with χ = 0 outside `region`, from a
    truncated division, which settle the well-conditioned part |D| ≥ `threshold`. Then
    ½‖H^½(χ − χ₁)‖² + λ Σ|∇χ|₂ with the k-space weight H = min(|D|/`threshold`, 1)², by ADMM with
    two transforms an iteration. `regularization` λ (ppm) None takes it from noise and model error
    by `rts_weight`. Weights W as in `tv.tv`. Stops on a relative change of χ of `tolerance`.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region)
    chosen: dict[str, float] = {}
    if regularization is None:
        chosen["noise"], share = problem.error.noise, problem.error.share
        sigma = with_model_error(chosen["noise"], share, problem.scale)
        regularization = rts_weight(sigma, problem.scale)
    chosen["regularization"] = regularization
    if problem.scale == 0:
        return zero_solution(problem, chosen)
    divided = problem.cut(tkd(field, mask, voxel_size, b0_dir, threshold=threshold).chi)
    first, steps = fit_least_squares(problem, 1e-6, FIRST_STAGE_ITERATIONS, start=divided)
    H = (problem.D.abs() / threshold).clamp_(max=1.0).square_()
    radius = GRADIENT_SCALE * problem.scale
    second = solve(
        problem,
        Variation(problem, radius, a=RELAXATION),
        NoData(),
        WeightedDivision(problem, first, H, regularization / radius, a=RELAXATION),
        Limits(tolerance, max_iterations),
        a=RELAXATION,
        start=first,
        chosen=chosen,
    )
    return replace(second, iterations=steps + second.iterations)
