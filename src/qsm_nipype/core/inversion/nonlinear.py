"""Dipole inversion with the data term in the complex signal, by ADMM (the FANSI family)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import Limits, solve_phase
from qsm_nipype.core.inversion.priors import GeneralisedVariation, Variation
from qsm_nipype.core.inversion.problem import B0, ECHO_TIME, Signal, phase_problem
from qsm_nipype.core.inversion.weights import phase_weight


def nltv(  # noqa: PLR0913  the common signature, with all the data this method can use
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    magnitude: Tensor | None = None,
    b0: float = B0,
    echo_time: float = ECHO_TIME,
    regularization: float | None = None,
    tolerance: float = 4e-4,
    max_iterations: int = 150,
) -> Solution:
    """Non-linear total variation (FANSI) [Milovic2018]_: local `field` → χ, `(X, Y, Z)` in ppm.

    Minimises ½‖W(e^{i(Dχ + c)} − e^{iφ})‖² + λ Σ|∇χ| + ½‖c‖², χ = 0 outside `region`, in radians:
    φ = 2π·γ·`b0`·`echo_time`·field (T, s). Because the phase enters through e^{iφ}, whole turns in
    single voxels don't matter; beside a strong source, where φ is made smaller (`phase_problem`),
    they pull less than they would in a linear data term. Weights W come from `noise` (SD in
    ppm), else from `magnitude`. Differences are per voxel and isotropic.

    `regularization` λ in ppm; None takes it from the field's noise (that of `field_noise`) and
    the size of its signal by `phase_weight`.
    Stops when χ changes by less than `tolerance` relative to itself in an iteration.
    """
    signal = Signal(noise, magnitude, b0, echo_time)
    problem = phase_problem(field, mask, voxel_size, b0_dir, signal, region=region)
    weight = regularization
    if weight is None:
        weight = phase_weight(problem.error.noise, problem.size)
    return solve_phase(problem, Variation, weight, Limits(tolerance, max_iterations))


def nltgv(  # noqa: PLR0913  the common signature, with all the data this method can use
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    magnitude: Tensor | None = None,
    b0: float = B0,
    echo_time: float = ECHO_TIME,
    regularization: float | None = None,
    tolerance: float = 5e-4,
    max_iterations: int = 150,
) -> Solution:
    """Non-linear total generalised variation (FANSI) [Milovic2018]_ [Bredies2010]_: χ in ppm.

    As `nltv`, with λ·min over w of Σ|∇χ − w| + 2Σ|ℰw| (ℰ: symmetrised gradient) for the total
    variation, which lets χ vary linearly at no cost and so makes no stairs of ramps.
    """
    signal = Signal(noise, magnitude, b0, echo_time)
    problem = phase_problem(field, mask, voxel_size, b0_dir, signal, region=region)
    weight = regularization
    if weight is None:
        weight = phase_weight(problem.error.noise, problem.size)
    return solve_phase(problem, GeneralisedVariation, weight, Limits(tolerance, max_iterations))
