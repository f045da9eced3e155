"""Total variation regularised dipole inversion with a linear data term, by ADMM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import DATA_PENALTY, Limits, solve_linear
from qsm_nipype.core.inversion.dataterm import least_squares
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import tv_weight


def tv(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    regularization: float | None = None,
    tolerance: float = 1.5e-3,
    max_iterations: int = 100,
) -> Solution:
    """Total variation inversion [Bilgic2014]_ with spatial weights [Milovic2018]_: χ in ppm.

    Minimises ½‖W(Dχ + c − f)‖² + λ Σ|∇χ|₂ + ½‖c‖² over the χ that vanish outside `region` (`mask`,
    where there is none) and over c, what no isotropic χ explains of f, in the norm of
    `problem.Problem.misfit`; f is the local `field` `(X, Y, Z)` in ppm. χ is told in `mask`. The
    weights W are the mask, or σ₀/σ from the map `noise` (SD in ppm): where the field is unknown,
    outside the mask, nothing is asked of Dχ. `regularization` λ (ppm, ∇ being per mean voxel
    edge) None takes it from the noise in the field by `tv_weight`. Stops when χ changes by less
    than `tolerance`, relative to itself, in an iteration.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region)
    chosen: dict[str, float] = {}
    if regularization is None:
        chosen["noise"] = sigma = problem.error.noise
        regularization = tv_weight(sigma, problem.scale)
    return solve_linear(
        problem,
        least_squares(problem, DATA_PENALTY),
        regularization,
        Limits(tolerance, max_iterations),
        chosen=chosen | {"regularization": regularization},
    )
