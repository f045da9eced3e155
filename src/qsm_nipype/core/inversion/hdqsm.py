"""Hybrid data fidelity: a robust ℓ1 stage tells the wrong voxels, an ℓ2 stage does the rest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.field_noise import field_noise, noise_weights
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.l1 import UNIT, absolute
from qsm_nipype.core.inversion.tv import least_squares, solve, split_problem
from qsm_nipype.core.inversion.weights import ROBUST_WEIGHT, tv_weight

#: Iterations of the ℓ1 stage: enough for its residual to show which voxels are wrong.
FIRST_STAGE = 15


def hdqsm(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
    tolerance: float = 5e-3,
    max_iterations: int = 60,
) -> Solution:
    """Hybrid data fidelity QSM [Lambert2022]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    First an ℓ1 data term for a few iterations; then `tv.tv`'s ℓ2 one, started from it, whose
    weights are divided by |residual|/(3σ) where the first stage's residual exceeds 3σ: noise
    keeps its weight, voxels with a wrong field lose theirs. `regularization` λ (ppm) is the
    second stage's; None takes it from the noise by `tv_weight`.
    """
    weights = noise_weights(noise, mask).to(field)
    problem = split_problem(field, mask, voxel_size, b0_dir, weights=weights)
    sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
    sigma = max(sigma, 1e-2 * problem.scale)
    if regularization is None:
        regularization = tv_weight(sigma, problem.scale)
    chosen = {"regularization": regularization, "noise": sigma}
    first = solve(
        problem,
        absolute(UNIT * problem.scale),
        ROBUST_WEIGHT * UNIT * problem.scale,
        tolerance=tolerance,
        max_iterations=min(FIRST_STAGE, max_iterations),
        chosen=chosen,
    )
    if sigma == 0:
        return first
    fitted = problem.inverse(problem.transform(problem.cut(first.chi)).mul_(problem.D))
    residual = (fitted - problem.f).abs_() / (3 * sigma)
    problem.W.div_(residual.clamp_min_(1.0))
    second = solve(
        problem,
        least_squares,
        regularization,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=first.chi,
        chosen=chosen,
    )
    return Solution(
        second.chi, first.iterations + second.iterations, second.converged, second.parameters
    )
