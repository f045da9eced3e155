"""Morphology enabled dipole inversion: total variation away from the magnitude's edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.problem import B0, ECHO_TIME, PhaseProblem, Signal, phase_problem
from qsm_nipype.core.inversion.weights import MEDI_FACTOR, phase_weight, with_model_error
from qsm_nipype.core.operators import divergence, gradient
from qsm_nipype.core.phase import wrap
from qsm_nipype.core.solvers import conjugate_gradient

#: Share of the mask's voxels taken as edges along each axis, as in the MEDI toolbox.
EDGE_SHARE = 0.3
#: Weight of the CSF's homogeneity relative to the data term (λ_CSF/λ of the MEDI toolbox).
CSF_WEIGHT = 0.1
#: Rounding of |∇χ| at zero, in typical phases of the field.
GRADIENT_ROUNDING = 0.1
#: Least weight of the data in the preconditioner, as a share of their mean weight.
SHELL_WEIGHT = 0.1
#: Residuals above so many standard deviations lose weight with `merit`.
OUTLIER_LIMIT = 6.0


def medi(  # noqa: PLR0913  the common signature, with all the data this method can use
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    magnitude: Tensor | None = None,
    csf: Tensor | None = None,
    b0: float = B0,
    echo_time: float = ECHO_TIME,
    regularization: float | None = None,
    merit: bool = False,
    tolerance: float = 5e-3,
    max_iterations: int = 15,
) -> Solution:
    """MEDI [Liu2011]_ [Liu2013]_: local `field` → χ, `(X, Y, Z)` in ppm.

    Minimises ½‖W(e^{iDχ} − e^{iφ})‖² + λ Σ|M_G ∇χ| over the χ that vanish outside `region`, by
    Gauss-Newton steps, each solved by conjugate gradients. M_G is zero on the edges of
    `magnitude`: the share `EDGE_SHARE` of voxels where it changes most along an axis. Without a
    magnitude there are no edges but the mask's. φ = 2π·γ·`b0`·`echo_time`·field (T, s); weights W
    come from `noise` (SD in ppm), else from `magnitude`.

    `csf` (bool): voxels whose χ is asked to be uniform and is then taken as zero (MEDI+0)
    [Liu2018]_. `merit`: voxels with outlying residuals lose weight after each step [Liu2013]_.
    `regularization` λ in ppm, per voxel differences; None takes it from the noise by
    `phase_weight`. Stops when a step changes χ by less than `tolerance` relative to itself.
    """
    signal = Signal(noise, magnitude, b0, echo_time)
    data = phase_problem(field, mask, voxel_size, b0_dir, signal, region=region)
    weight = regularization
    if weight is None:
        sigma = with_model_error(data.error.noise, data.error.share, data.size)
        weight = phase_weight(sigma, data.size, factor=MEDI_FACTOR)
    edges = smooth_faces(data, None if magnitude is None else data.cut(magnitude))
    pool = None if csf is None else data.gather(data.cut(csf.bool()))
    x, steps, done = _gauss_newton(
        data, edges, pool, weight * data.radians, merit, tolerance, max_iterations
    )
    if pool is not None and bool(pool.any()):
        x = x - x[pool].mean()
    chi = data.restore(data.scatter_(data.zeros(), x))
    return Solution(chi, steps, done, MappingProxyType({"regularization": weight}))


def smooth_faces(data: PhaseProblem, magnitude: Tensor | None) -> Tensor:
    """M_G (3, grid): 1 where χ should not change to the next voxel, 0 at edges and at the rim."""
    faces = data.faces().to(data.phase.dtype)
    if magnitude is None:
        return faces
    slope = gradient(magnitude, data.voxel_size).abs_().mul_(faces)
    for axis in range(3):
        values = slope[axis][faces[axis] > 0]
        if values.numel():
            rank = max(1, round((1 - EDGE_SHARE) * values.numel()))
            faces[axis] *= slope[axis] <= values.kthvalue(rank).values
    return faces


def _gauss_newton(
    data: PhaseProblem,
    faces: Tensor,
    pool: Tensor | None,
    weight: float,
    merit: bool,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int, bool]:
    """χ (rad) over the voxels of S, Gauss-Newton steps taken, whether it settled."""
    x, Dx = torch.zeros_like(data.phase), torch.zeros_like(data.phase)
    W2 = data.weights.square()
    rounding = GRADIENT_ROUNDING * data.spread
    if rounding == 0:
        return x, 0, True
    for step in range(1, max_iterations + 1):
        P = _reweight(data, faces, x, weight, rounding)
        apply, precondition = _normal_equations(data, W2, P, pool)
        slope = _dipole(data, W2 * torch.sin(Dx - data.phase)) + _rough(data, P, x)
        if pool is not None:
            slope.add_(_deviation(x, pool), alpha=CSF_WEIGHT)
        dx, _ = conjugate_gradient(
            apply, slope.neg_(), tolerance=0.1, max_iterations=20, preconditioner=precondition
        )
        x = x + dx
        Dx = _dipole(data, x)
        if float(dx.norm()) <= tolerance * float(x.norm()):
            return x, step, True
        if merit:
            W2 = _trust(W2, wrap(Dx - data.phase), data.gather(data.M))
    return x, max_iterations, False


def _normal_equations(
    data: PhaseProblem, W2: Tensor, P: Tensor, pool: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A p = D W² D p + ∇ᵀP∇p [+ CSF], and the inverse of its diagonal."""

    def apply(p: Tensor) -> Tensor:
        out = _dipole(data, W2 * _dipole(data, p)).add_(_rough(data, P, p))
        return out if pool is None else out.add_(_deviation(p, pool), alpha=CSF_WEIGHT)

    diagonal = data.gather(sum_faces(P, data.voxel_size))
    # where there are no data, those around still weigh on χ
    around = W2.clamp_min(SHELL_WEIGHT * float(W2.mean()))
    diagonal = diagonal.add_(around, alpha=float(data.D.square().mean())).clamp_min_(1e-6)
    return apply, lambda r: r / diagonal


def sum_faces(P: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """Diagonal of ∇ᵀP∇."""
    total = torch.zeros_like(P[0])
    for axis, step in enumerate(voxel_size):
        total.add_(P[axis], alpha=1 / step**2).add_(P[axis].roll(1, axis), alpha=1 / step**2)
    return total


def _dipole(data: PhaseProblem, values: Tensor) -> Tensor:
    """Field (rad) in S of a χ (rad) that lives in S."""
    return data.gather(data.dipole(data.scatter_(data.zeros(), values)))


def _rough(data: PhaseProblem, P: Tensor, values: Tensor) -> Tensor:
    """∇ᵀP∇χ in S."""
    full = data.scatter_(data.zeros(), values)
    flux = gradient(full, data.voxel_size).mul_(P)
    return data.gather(divergence(flux, data.voxel_size, out=full)).neg_()


def _reweight(
    data: PhaseProblem, faces: Tensor, x: Tensor, weight: float, rounding: float
) -> Tensor:
    """P = λ M_G/√(|M_G∇χ|² + ε²): the quadratic that touches the total variation at x.

    |M_G∇χ|² of a voxel is half the sum over its six faces, so a face has the mean P of its two.
    """
    full = data.scatter_(data.zeros(), x)
    slope = gradient(full, data.voxel_size).mul_(faces).square_()
    length = torch.full_like(full, rounding**2)
    for axis in range(3):
        length.add_(slope[axis], alpha=0.5).add_(slope[axis].roll(1, axis), alpha=0.5)
    stiffness = length.rsqrt_().mul_(weight / 2)
    for axis in range(3):
        torch.add(stiffness, stiffness.roll(-1, axis), out=slope[axis])
    return slope.mul_(faces)


def _deviation(x: Tensor, pool: Tensor) -> Tensor:
    """x less its mean over `pool`, and zero elsewhere."""
    count = pool.sum().clamp_min(1)
    return torch.where(pool, x - (x * pool).sum() / count, 0.0)


def _trust(W2: Tensor, residual: Tensor, known: Tensor) -> Tensor:
    """W² with less weight where the residual is beyond `OUTLIER_LIMIT` SD of the `known`."""
    size = W2.sqrt() * residual.abs()
    excess = size / (OUTLIER_LIMIT * size[known].square().mean().sqrt()).clamp_min(1e-12)
    return W2 / excess.clamp_min(1).pow(4)
