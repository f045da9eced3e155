"""Single-step inversion of the total field with total generalised variation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.background.lbv import lbv
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.admm import Limits, solve_phase
from qsm_nipype.core.inversion.priors import GeneralisedVariation
from qsm_nipype.core.inversion.problem import B0, ECHO_TIME, Signal, phase_problem
from qsm_nipype.core.inversion.weights import BACKGROUND_MISFIT, phase_weight


def tgv(  # noqa: PLR0913  the common signature, with all the data this method can use
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
    harmonic: float = 150.0,
    tolerance: float = 2e-3,
    max_iterations: int = 100,
) -> Solution:
    """Single-step TGV [Langkammer2015]_ [Chatnuntawech2017]_: TOTAL `field` → χ, both in ppm.

    Minimises ½‖W(e^{i(Dχ + h)} − e^{iφ})‖² + λ TGV(χ) + ½β‖Δh‖² over χ and h: the background h is
    harmonic in the mask, so that only the Laplacian of the field depends on χ, as in the paper's
    data term. The iteration starts from the h that makes the field vanish at the mask's rim (a
    Laplacian boundary value problem), and χ and h then settle together. The mask loses one voxel,
    where no Laplacian can be formed; χ is zero there.

    `harmonic` is β; the rest is that of `nltgv`, but λ accounts for an error of
    `BACKGROUND_MISFIT` of the signal besides the noise, as in `whtv`: h does not take all of the
    background. Raises
    ValueError when nothing of the mask is left.
    """
    known = torch.isfinite(field)
    start = lbv(torch.where(known, field, 0.0), mask.bool() & known, voxel_size, b0_dir)
    signal = Signal(noise, magnitude, b0, echo_time)
    problem = phase_problem(start.field, start.mask, voxel_size, b0_dir, signal, region=region)
    weight = regularization
    if weight is None:
        weight = phase_weight(problem.error.noise, problem.size, misfit=BACKGROUND_MISFIT)
    limits = Limits(tolerance, max_iterations)
    return solve_phase(problem, GeneralisedVariation, weight, limits, harmonic=harmonic)
