"""Weak-harmonic total variation: an inversion that takes off what is left of the background."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.field_noise import field_noise, noise_weights
from qsm_nipype.core.fourier import gradient_spectrum
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.tv import (
    DATA_PENALTY,
    SplitProblem,
    least_squares,
    relative_change,
    split_problem,
)
from qsm_nipype.core.inversion.weights import harmonic_weight
from qsm_nipype.core.operators import divergence, gradient, shrink_vector

#: Penalty of the splitting z₄ = −Δh; between 0.05 and 1 the convergence is the same.
HARMONIC_PENALTY = 0.2
#: λ/μ in units of the field's RMS: four times that of plain TV converges faster beside h.
THRESHOLD = 6.0


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
    problem = split_problem(field, mask, voxel_size, b0_dir, weights=noise_weights(noise, mask))
    chosen: dict[str, float] = {}
    if regularization is None:
        chosen["noise"] = sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = harmonic_weight(sigma, problem.scale)
    chosen["regularization"] = regularization
    if problem.scale == 0:
        return Solution(torch.zeros_like(field), 0, True, MappingProxyType(chosen))
    state = _Splitting(problem, regularization, harmonic)
    iteration, change = 0, float("inf")
    while iteration < max_iterations and change > tolerance:
        iteration += 1
        before = state.x
        state.step()
        change = relative_change(state.x, before, problem.M)
    chi = problem.restore(state.x)
    return Solution(chi, iteration, change <= tolerance, MappingProxyType(chosen))


class _Splitting:
    """ADMM with z₁ = ∇χ and z₃ = χ (penalty μ), z₂ = Dχ + h (ν) and z₄ = −Δh (π).

    Of each split only the scaled multiplier u and r = z − u are kept. Where a split asks for
    nothing (gradients across the rim; outside the mask), z is what it splits. So outside the box
    the spectra `Y` of Dχ + h and `T` of −Δh already hold it, and transforms see the box only.
    Over-relaxation, which speeds up plain TV, would have to reach there too: without, it cycles.
    """

    def __init__(self, problem: SplitProblem, weight: float, beta: float) -> None:
        self.problem, f, D = problem, problem.f, problem.D
        self.threshold = THRESHOLD * problem.scale
        self.mu = mu = weight / self.threshold
        self.keep = HARMONIC_PENALTY / (beta + HARMONIC_PENALTY)
        nu = DATA_PENALTY
        self.L = L = gradient_spectrum(problem.shape, problem.voxel_size, f)
        stiff = L.square().mul_(HARMONIC_PENALTY)
        smooth = (L + 1).mul_(mu)
        determinant = (stiff + nu).mul_(smooth).addcmul_(stiff, D.square(), value=nu)
        # the inverse of [[μ(L + 1) + νD², νD], [νD, ν + πL²]]
        self.chi_chi = (stiff + nu).div_(determinant)
        self.h_h = smooth.addcmul_(D, D, value=nu).div_(determinant)
        self.chi_h = (nu * D).div_(determinant)
        M = problem.M
        self.rim = torch.stack([M ^ M.roll(-1, axis) for axis in range(3)])
        self.x = torch.zeros_like(f)
        self.Y, self.T = D.new_zeros((2, *D.shape), dtype=D.dtype.to_complex()).unbind(0)
        self.u1, self.r1 = f.new_zeros((2, 3, *f.shape)).unbind(0)
        self.u2, self.u3, self.r3, self.u4, self.q4 = f.new_zeros((5, *f.shape)).unbind(0)
        self.q2 = least_squares(self.x, f, problem.W)

    def step(self) -> None:
        """One iteration: χ and h in Fourier space, then the four splits. Six transforms."""
        y, t = self._solve()
        self._split_gradient()
        self._split_data(y)
        self._split_support()
        self._split_laplacian(t)

    def _solve(self) -> tuple[Tensor, Tensor]:
        """χ and h; returns Dχ + h and −Δh in the box."""
        p, D = self.problem, self.problem.D
        data = self.Y.add_(p.transform(self.q2)).mul_(DATA_PENALTY)
        towards = self.r3.sub_(divergence(self.r1, p.voxel_size)).mul_(self.mu)
        right_chi = p.transform(towards).addcmul_(data, D.to(data.dtype))
        right_h = self.T.add_(p.transform(self.q4)).mul_(self.L).mul_(HARMONIC_PENALTY).add_(data)
        X = self.chi_chi * right_chi - self.chi_h * right_h
        H = right_h.mul_(self.h_h).sub_(right_chi.mul_(self.chi_h))
        self.x = p.inverse(X)
        self.Y = X.mul_(D).add_(H)
        self.T = H.mul_(self.L)
        return p.inverse(self.Y), p.inverse(self.T)

    def _split_gradient(self) -> None:
        slope = gradient(self.x, self.problem.voxel_size)
        u = self.u1.add_(slope)
        z = shrink_vector(u, self.threshold)
        torch.sub(z, u.sub_(z).masked_fill_(self.rim, 0), out=self.r1)
        self.r1 = torch.where(self.rim, slope, self.r1)

    def _split_data(self, y: Tensor) -> None:
        p = self.problem
        u = self.u2.add_(y)
        z = least_squares(u, p.f, p.W)
        torch.sub(z, u.sub_(z), out=self.q2).sub_(y).mul_(p.M)
        u.mul_(p.M)

    def _split_support(self) -> None:
        u = self.u3.add_(self.x)
        z = u * self.problem.M
        torch.sub(z, u.sub_(z), out=self.r3)

    def _split_laplacian(self, t: Tensor) -> None:
        M = self.problem.M
        u = self.u4.add_(t)
        z = u * self.keep
        torch.sub(z, u.sub_(z), out=self.q4).sub_(t).mul_(M)
        u.mul_(M)
