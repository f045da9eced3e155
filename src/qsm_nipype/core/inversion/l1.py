"""Dipole inversion with an ℓ1 data term, which a voxel with a wrong field cannot bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import DATA_PENALTY, Limits, solve_linear
from qsm_nipype.core.inversion.dataterm import absolute
from qsm_nipype.core.inversion.problem import FieldProblem, field_problem
from qsm_nipype.core.inversion.weights import ROBUST_WEIGHT

#: The objective is multiplied by this fraction of the field's RMS. It does not move the minimum,
#: but decides how fast the splitting gets there; 0.1 to 0.5 serve all fields tried.
OBJECTIVE_SCALE = 0.3
#: λ/μ in units of the field's RMS.
ROBUST_GRADIENT_SCALE = 4.0


def robust_problem(problem: FieldProblem, unit: float) -> FieldProblem:
    """`problem` with the power of c over that of noise of which unit·|r| is as stiff as ½r².

    `unit` (ppm) is the slope of the ℓ1 term.
    """
    if problem.misfit is None or unit == 0:
        return problem
    return replace(problem, misfit=problem.misfit * (problem.error.noise / unit))


def l1tv(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    regularization: float = ROBUST_WEIGHT,
    tolerance: float = 1.5e-3,
    max_iterations: int = 100,
) -> Solution:
    """Total variation with an ℓ1 data term [Milovic2022]_: local `field` in ppm → χ in ppm.

    Minimises ‖W(Dχ + c − f)‖₁ + λ Σ|∇χ|₂ + ½‖c‖² over χ and c; weights, c and `region` as in
    `tv.tv`. `regularization` λ need not follow the noise: both terms grow with it.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region)
    unit = OBJECTIVE_SCALE * problem.scale
    problem = robust_problem(problem, unit)
    return solve_linear(
        problem,
        absolute(problem, DATA_PENALTY, unit),
        regularization * unit,
        Limits(tolerance, max_iterations),
        gradient_scale=ROBUST_GRADIENT_SCALE,
        chosen={"regularization": regularization},
    )
