"""Separations as the literature has them: voxel by voxel, with the magnitude's edges, by R2*."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.inversion.admm import Limits
from qsm_nipype.core.inversion.medi import EDGE_SHARE
from qsm_nipype.core.inversion.problem import FieldProblem, field_problem
from qsm_nipype.core.inversion.weights import tv_weight
from qsm_nipype.core.operators import gradient
from qsm_nipype.core.separation import RELAXIVITY, RELAXIVITY_B0, Sources, relaxivity_at
from qsm_nipype.core.separation.joint import decay_of, invert_sources
from qsm_nipype.core.separation.rates import REVERSIBLE_SHARE, assumed_reversible


def pointwise(  # noqa: PLR0913  the common signature, with all the data this method uses
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    r2prime: Tensor,
    chi: Tensor,
    b0: float = RELAXIVITY_B0,
    paramagnetic: float = RELAXIVITY,
    diamagnetic: float = RELAXIVITY,
) -> Sources:
    """χ⁺ and χ⁻ (ppm) that solve χ = χ⁺ + χ⁻ and R2′ = D_r⁺χ⁺ − D_r⁻χ⁻ voxel by voxel.

    The closed form of χ-separation [Shin2021]_ for a `chi` (ppm) that is known. Where R2′ (1/s) is
    less than |χ| alone makes, all is of one sign: the sum stays χ. The field is not looked at.
    Raises ValueError for a relaxivity that is not above zero.
    """
    inside = mask.bool() & torch.isfinite(chi) & torch.isfinite(r2prime)
    strong, weak = (relaxivity_at(b0, d) for d in (paramagnetic, diamagnetic))
    rate, known = torch.where(inside, r2prime, 0.0), torch.where(inside, chi, 0.0)
    # χ⁺ = (R2′ + D_r⁻ χ)/(D_r⁺ + D_r⁻), and neither below χ nor below zero
    plus = torch.maximum((rate + weak * known) / (strong + weak), known).clamp_min(0)
    plus = torch.where(inside, plus, 0.0)
    return Sources(plus, known - plus)


def chi_separation(  # noqa: PLR0913  the common signature, with all the data this method uses
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    r2prime: Tensor,
    magnitude: Tensor | None = None,
    b0: float = RELAXIVITY_B0,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    paramagnetic: float = RELAXIVITY,
    diamagnetic: float = RELAXIVITY,
    regularization: float | None = None,
    tolerance: float = 5e-3,
    max_iterations: int = 100,
) -> Sources:
    """χ-separation [Shin2021]_ in the form of MEDI: total variation away from magnitude's edges.

    Minimises ½‖W(D(χ⁺ − |χ⁻|) − f)‖² + ½v‖D_r⁺χ⁺ + D_r⁻|χ⁻| − R2′‖² + λ Σ|M_G∇χ⁺| + λ Σ|M_G∇χ⁻|
    over χ⁺ ≥ 0 and |χ⁻| ≥ 0, with M_G zero on the `EDGE_SHARE` of voxels where `magnitude` changes
    most along an axis; everything else as in `joint.joint`.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region,
                            model_share=0.0)  # fmt: skip
    decay, sigma = decay_of(problem, r2prime, b0, (paramagnetic, diamagnetic))
    found = tv_weight(problem.error.noise, problem.scale)
    weight = found if regularization is None else regularization
    chosen = {"rate_noise": sigma, "regularization": weight}
    free = None if magnitude is None else magnitude_edges(problem, magnitude)
    limits = Limits(tolerance, max_iterations)
    return invert_sources(problem, decay, weight, limits, chosen, free=free)


def r2star_qsm(  # noqa: PLR0913  the common signature, with all the data this method uses
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    r2star: Tensor,
    magnitude: Tensor | None = None,
    b0: float = RELAXIVITY_B0,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    paramagnetic: float = RELAXIVITY,
    diamagnetic: float = RELAXIVITY,
    share: float = REVERSIBLE_SHARE,
    regularization: float | None = None,
    tolerance: float = 5e-3,
    max_iterations: int = 100,
) -> Sources:
    """R2*QSM [Dimov2022]_: gradient echoes alone, R2* (1/s) modelled by both sources.

    As `chi_separation` with R2* = D_r/`share`·(χ⁺ + |χ⁻|): everywhere the same `share` of R2* is
    taken to be reversible.
    """
    return chi_separation(
        field,
        mask,
        voxel_size,
        b0_dir,
        r2prime=assumed_reversible(r2star, mask, share=share).rate,
        magnitude=magnitude,
        b0=b0,
        noise=noise,
        region=region,
        paramagnetic=paramagnetic,
        diamagnetic=diamagnetic,
        regularization=regularization,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def magnitude_edges(problem: FieldProblem, magnitude: Tensor) -> Tensor:
    """Where the `magnitude` `(X, Y, Z)` changes most to the next voxel: (3, box), bool."""
    slope = gradient(problem.cut(magnitude), problem.voxel_size).abs_()
    faces, edges = problem.faces(), []
    for axis in range(3):
        inside = slope[axis][faces[axis]]
        if not inside.numel():
            edges.append(torch.zeros_like(faces[axis]))
            continue
        rank = max(1, round((1 - EDGE_SHARE) * inside.numel()))
        edges.append(faces[axis] & (slope[axis] > inside.kthvalue(rank).values))
    return torch.stack(edges)
