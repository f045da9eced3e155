"""Hybrid data fidelity: a robust ℓ1 stage finds the wrong voxels, an ℓ2 stage does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import DATA_PENALTY, Limits, solve_linear
from qsm_nipype.core.inversion.dataterm import absolute, least_squares
from qsm_nipype.core.inversion.l1 import OBJECTIVE_SCALE, ROBUST_GRADIENT_SCALE, robust_problem
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import ROBUST_WEIGHT, tv_weight

#: Iterations of the ℓ1 stage: enough for its residual to show which voxels are wrong.
FIRST_STAGE_ITERATIONS = 15


def hdqsm(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    regularization: float | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Solution:
    """Hybrid data fidelity QSM [Lambert2022]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    `region` and model error as in `tv.tv`. First an ℓ1 data term for a few iterations; then
    `tv.tv`'s ℓ2 one, started from it, whose
    weights are divided by |residual|/(3σ) where the first stage's residual exceeds 3σ: noise
    keeps its weight, voxels with a wrong field lose theirs. `regularization` λ (ppm) is the
    second stage's; None takes it from the noise by `tv_weight`.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region)
    sigma = max(problem.error.noise, 1e-2 * problem.scale)
    if regularization is None:
        regularization = tv_weight(sigma, problem.scale)
    chosen = {"regularization": regularization, "noise": sigma}
    unit = OBJECTIVE_SCALE * problem.scale
    first = solve_linear(
        robust_problem(problem, unit),
        absolute(problem, DATA_PENALTY, unit),
        ROBUST_WEIGHT * unit,
        Limits(tolerance, min(FIRST_STAGE_ITERATIONS, max_iterations)),
        gradient_scale=ROBUST_GRADIENT_SCALE,
        chosen=chosen,
    )
    if sigma == 0:
        return first
    x = problem.cut(first.chi)
    excess = (problem.dipole(x) - problem.f).abs_().div_(3 * sigma).clamp_min_(1.0)
    trusted = replace(problem, W=problem.W / excess)
    second = solve_linear(
        trusted,
        least_squares(trusted, DATA_PENALTY),
        regularization,
        Limits(tolerance, max_iterations),
        start=x,
        chosen=chosen,
    )
    return replace(second, iterations=first.iterations + second.iterations)
