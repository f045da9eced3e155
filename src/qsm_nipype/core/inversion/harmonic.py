"""Weak-harmonic total variation: an inversion that takes off what is left of the background."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import (
    DATA_PENALTY,
    DipoleAndHarmonic,
    Limits,
    solve,
    zero_solution,
)
from qsm_nipype.core.inversion.dataterm import FieldTerm, least_squares
from qsm_nipype.core.inversion.priors import Variation
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import harmonic_weight

#: Penalty of the splitting z₄ = −Δh; between 0.05 and 1 the convergence is the same.
LAPLACIAN_PENALTY = 0.2
#: λ/μ in units of the field's RMS: four times that of plain TV converges faster beside h.
GRADIENT_SCALE_BESIDE_H = 6.0


def whtv(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
    harmonic: float = 150.0,
    tolerance: float = 2e-3,
    max_iterations: int = 150,
) -> Solution:
    """Weak-harmonic QSM [Milovic2019]_ with a linear data term: χ in ppm.

    Minimises ½‖W(Dχ + h − f)‖² + λ Σ|∇χ|₂ + ½β‖M Δh‖² over the χ that vanish outside `mask` M and
    over h: what sources outside put into the field is harmonic inside. f is the local `field`
    `(X, Y, Z)` in ppm, `harmonic` is β; weights W, differences and the rest as in `tv`, except
    that the step of χ at the mask's rim costs nothing. `regularization` λ (ppm) None: see
    `harmonic_weight`.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise)
    chosen: dict[str, float] = {}
    if regularization is None:
        chosen["noise"] = sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = harmonic_weight(sigma, problem.scale)
    chosen["regularization"] = regularization
    if problem.scale == 0:
        return zero_solution(problem, chosen)
    radius = GRADIENT_SCALE_BESIDE_H * problem.scale
    mu, nu = regularization / radius, DATA_PENALTY
    return solve(
        problem,
        Variation(problem, radius, faces=~problem.rim()),
        FieldTerm(problem, least_squares(problem, nu)),
        DipoleAndHarmonic(problem, mu, nu, harmonic, LAPLACIAN_PENALTY),
        Limits(tolerance, max_iterations),
        chosen=chosen,
    )
