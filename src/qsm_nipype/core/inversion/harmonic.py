"""Weak-harmonic total variation: an inversion that takes off what is left of the background."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import (
    LAPLACIAN_PENALTY,
    RELAXATION,
    DipoleAndHarmonic,
    Limits,
    solve,
    zero_solution,
)
from qsm_nipype.core.inversion.dataterm import FieldTerm, least_squares
from qsm_nipype.core.inversion.priors import RENEWALS, Variation
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import TAILED_FACTOR, tv_weight

#: Penalty ν and λ/μ in units of the field's RMS. Where nothing is asked of the field, y = Dχ + h
#: moves the faster the smaller ν is.
DATA_PENALTY_BESIDE_H, GRADIENT_SCALE_BESIDE_H = 0.05, 18.0
#: Share of the model's error that c takes here. Twice as much leaves the nuclei of a real brain at
#: two thirds of what closed-form methods find in them.
MODEL_SHARE_WITH_TAIL = 0.3


def whtv(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    regularization: float | None = None,
    harmonic: float = 150.0,
    tail: float = 3.0,
    tolerance: float = 5e-3,
    max_iterations: int = 120,
) -> Solution:
    """Weak-harmonic QSM [Milovic2019]_ with a linear data term: χ in ppm.

    Minimises ½‖W(Dχ + h + c − f)‖² + λ Σ R(|∇χ|) + ½β‖M Δh‖² + ½γ‖∇h‖² + ½‖c‖² over the χ that
    vanish outside `region`, over h and c: what sources outside put into the field is harmonic in
    the `mask` M, and its energy has a small weight γ (`admm.HARMONIC_ENERGY`), without which χ at
    the rim is undetermined. f is the local `field` `(X, Y, Z)` in ppm, `harmonic` is β; the norm
    of c, weights W and the rest as in `tv`, except that the step of χ at the rim of `region`
    costs nothing. R is |∇χ| up to `tail` times the RMS of f in a voxel, and grows with its
    logarithm beyond, so that steep edges, those of nuclei and veins, keep their height
    (`priors.Variation`). A `tail` of 0 is total variation.
    """
    problem = field_problem(
        field,
        mask,
        voxel_size,
        b0_dir,
        noise=noise,
        region=region,
        model_share=MODEL_SHARE_WITH_TAIL,
    )
    chosen: dict[str, float] = {}
    if regularization is None:
        chosen["noise"] = sigma = problem.error.noise
        regularization = tv_weight(sigma, problem.scale, TAILED_FACTOR)
    chosen["regularization"] = regularization
    if problem.scale == 0:
        return zero_solution(problem, chosen)
    radius = GRADIENT_SCALE_BESIDE_H * problem.scale
    mu, nu, a = regularization / radius, DATA_PENALTY_BESIDE_H, RELAXATION
    return solve(
        problem,
        Variation(problem, radius, free=problem.rim(), tail=tail * problem.scale or None, a=a),
        FieldTerm(problem, least_squares(problem, nu), a=a),
        DipoleAndHarmonic(problem, mu, nu, harmonic, LAPLACIAN_PENALTY, a=a),
        Limits(tolerance, max_iterations, RENEWALS[-1] + 1 if tail else 0),
        a=a,
        chosen=chosen,
    )
