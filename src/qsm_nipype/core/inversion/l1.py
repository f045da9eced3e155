"""Dipole inversion with an ℓ1 data term, which a voxel with a wrong field cannot bend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.field_noise import noise_weights
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.tv import DATA_PENALTY, Prox, solve, split_problem
from qsm_nipype.core.inversion.weights import ROBUST_WEIGHT
from qsm_nipype.core.operators import shrink

#: The objective is multiplied by this fraction of the field's RMS. It does not move the minimum,
#: but decides how fast the splitting gets there; 0.1 to 0.5 serve all fields tried.
UNIT = 0.3


def l1tv(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float = ROBUST_WEIGHT,
    tolerance: float = 5e-3,
    max_iterations: int = 100,
) -> Solution:
    """Total variation with an ℓ1 data term [Milovic2022]_: local `field` in ppm → χ in ppm.

    Minimises ‖W(Dχ − f)‖₁ + λ Σ|∇χ|₂ over the χ that vanish outside `mask`, weights as in
    `tv.tv`. `regularization` λ need not follow the noise: both terms grow with it.
    """
    problem = split_problem(field, mask, voxel_size, b0_dir, weights=noise_weights(noise, mask))
    unit = UNIT * problem.scale
    return solve(
        problem,
        absolute(unit),
        regularization * unit,
        tolerance=tolerance,
        max_iterations=max_iterations,
        chosen={"regularization": regularization},
    )


def absolute(unit: float) -> Prox:
    """Proximal map of `unit`·W|z − f|, the ℓ1 data term on the scale of the ℓ2 one (ppm)."""

    def prox(v: Tensor, f: Tensor, W: Tensor) -> Tensor:
        return torch.add(f, shrink(v - f, W * (unit / DATA_PENALTY)))

    return prox
