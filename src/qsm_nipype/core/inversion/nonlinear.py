"""Dipole inversion with the data term in the complex signal, by ADMM (the FANSI family)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from qsm_nipype.core.fourier import gradient_spectrum, irfft, rfft
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.dataterm import B0, ECHO_TIME, PhaseData, phase_data, phase_prox
from qsm_nipype.core.inversion.weights import phase_weight
from qsm_nipype.core.operators import divergence, gradient


def nltv(  # noqa: PLR0913  the common signature, with all the data this method can use
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    magnitude: Tensor | None = None,
    b0: float = B0,
    echo_time: float = ECHO_TIME,
    regularization: float | None = None,
    tolerance: float = 2e-3,
    max_iterations: int = 100,
) -> Solution:
    """Non-linear total variation (FANSI) [Milovic2018]_: local `field` → χ, `(X, Y, Z)` in ppm.

    Minimises ½‖W(e^{iDχ} − e^{iφ})‖² + λ Σ|∇χ| over the χ that vanish outside `mask`, in radians:
    φ = 2π·γ·`b0`·`echo_time`·field (T, s). Because the phase enters through e^{iφ}, whole turns in
    single voxels don't matter; beside a strong source, where φ is made smaller (`phase_data`),
    they pull less than they would in a linear data term. Weights W come from `noise` (SD in
    ppm), else from `magnitude`. Differences are per voxel and isotropic.

    `regularization` λ in ppm; None takes it from the field's noise (that of `field_noise`) and
    the size of its signal by `phase_weight`.
    Stops when χ changes by less than `tolerance` relative to itself in an iteration.
    """
    data = phase_data(
        field,
        mask,
        voxel_size,
        b0_dir,
        noise=noise,
        magnitude=magnitude,
        b0=b0,
        echo_time=echo_time,
    )
    weight = phase_weight(data.noise, data.size) if regularization is None else regularization
    return solve_admm(data, Variation, weight, tolerance, max_iterations)


def nltgv(  # noqa: PLR0913  the common signature, with all the data this method can use
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    magnitude: Tensor | None = None,
    b0: float = B0,
    echo_time: float = ECHO_TIME,
    regularization: float | None = None,
    tolerance: float = 2e-3,
    max_iterations: int = 100,
) -> Solution:
    """Non-linear total generalised variation (FANSI) [Milovic2018]_ [Bredies2010]_: χ in ppm.

    As `nltv`, with λ·min over w of Σ|∇χ − w| + 2Σ|ℰw| (ℰ: symmetrised gradient) for the total
    variation, which lets χ vary linearly at no cost and so makes no stairs of ramps.
    """
    data = phase_data(
        field,
        mask,
        voxel_size,
        b0_dir,
        noise=noise,
        magnitude=magnitude,
        b0=b0,
        echo_time=echo_time,
    )
    weight = phase_weight(data.noise, data.size) if regularization is None else regularization
    return solve_admm(data, GeneralisedVariation, weight, tolerance, max_iterations)


class _Prior(Protocol):
    """One half of a split: takes x, keeps its own z and scaled dual u, returns Aᵀ(z − u)."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Variation:
    """λ Σ|∇x| with z = ∇x; `threshold` is λ/μ."""

    def __init__(self, data: PhaseData, threshold: float) -> None:
        self._voxel_size, self._threshold, self._faces = data.voxel_size, threshold, data.faces()
        self._u = data.phase.new_zeros((3, *data.grid.shape))
        self._t = torch.empty_like(self._u)

    def __call__(self, x: Tensor) -> Tensor:
        t = gradient(x, self._voxel_size, out=self._t).add_(self._u)
        _project(t, self._threshold, self._faces, out=self._u)  # u = t − z
        return divergence(t.sub_(self._u, alpha=2), self._voxel_size).neg_()


class GeneralisedVariation:
    """λ Σ|∇x − w| + 2λ Σ|ℰw| with z₁ = ∇x − w, z₀ = ℰw and a linearised step for w."""

    STEPS = 1

    def __init__(self, data: PhaseData, threshold: float) -> None:
        self._voxel_size, self._threshold, self._faces = data.voxel_size, threshold, data.faces()
        whole = self._faces.all(dim=0)  # ℰw is asked for where all its differences are inside
        for axis in range(3):
            whole = whole & whole.roll(1, axis)
        self._whole = whole
        self._u1, self._w = data.phase.new_zeros((2, 3, *data.grid.shape)).unbind(0)
        self._r0 = data.phase.new_zeros((6, *data.grid.shape))  # z₀ − u₀
        self._u0 = torch.zeros_like(self._r0)
        self._r1 = torch.zeros_like(self._u1)
        self._lipschitz = 1 + sum(4 / v**2 for v in data.voxel_size)

    def __call__(self, x: Tensor) -> Tensor:
        t = gradient(x, self._voxel_size)
        # w-update: descend ½|∇x − w − r₁|² + ½|ℰw − r₀|²
        goal = t - self._r1
        for _ in range(self.STEPS):
            strain = symmetric_gradient(self._w, self._voxel_size).sub_(self._r0)
            slope = symmetric_divergence(strain, self._voxel_size).neg_().add_(self._w).sub_(goal)
            self._w.sub_(slope, alpha=1 / self._lipschitz)
        # z₁, u₁
        t.sub_(self._w).add_(self._u1)
        _project(t, self._threshold, self._faces, out=self._u1)
        torch.sub(t, self._u1, alpha=2, out=self._r1)
        # z₀, u₀
        t0 = symmetric_gradient(self._w, self._voxel_size).add_(self._u0)
        _project(t0, 2 * self._threshold, self._whole, out=self._u0)
        torch.sub(t0, self._u0, alpha=2, out=self._r0)
        return divergence(self._r1 + self._w, self._voxel_size).neg_()


def _project(t: Tensor, radius: float, where: Tensor, *, out: Tensor) -> Tensor:
    """Voxel-wise projection onto the ball of `radius` in ℝ³ (or of symmetric 3 × 3 tensors).

    Zero outside `where`, which leaves z free there.
    """
    length = t[0].square()
    for a in range(1, t.shape[0]):
        length.addcmul_(t[a], t[a], value=1.0 if a < 3 else 2.0)
    factor = length.sqrt_().clamp_min_(radius).reciprocal_().mul_(radius)
    return torch.mul(t, factor, out=out).mul_(where)


def symmetric_gradient(w: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """ℰw = ½(∇w + ∇wᵀ) of `w` (3, X, Y, Z): (6, X, Y, Z) in the order xx, yy, zz, xy, xz, yz."""
    out = w.new_empty((6, *w.shape[1:]))
    for a in range(3):
        out[a] = _difference(w[a], a, voxel_size)
    for n, (a, b) in enumerate(_PAIRS, start=3):
        out[n] = _difference(w[a], b, voxel_size).add_(_difference(w[b], a, voxel_size)).mul_(0.5)
    return out


def symmetric_divergence(q: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """Negative adjoint of `symmetric_gradient` in the inner product of symmetric tensors."""
    out = q.new_empty((3, *q.shape[1:]))
    for a in range(3):
        out[a] = _difference_adjoint(q[a], a, voxel_size)
    for n, (a, b) in enumerate(_PAIRS, start=3):
        out[a].add_(_difference_adjoint(q[n], b, voxel_size))
        out[b].add_(_difference_adjoint(q[n], a, voxel_size))
    return out


_PAIRS = ((0, 1), (0, 2), (1, 2))


def _difference(x: Tensor, axis: int, voxel_size: Sequence[float]) -> Tensor:
    return x.roll(-1, axis).sub_(x).div_(voxel_size[axis])


def _difference_adjoint(x: Tensor, axis: int, voxel_size: Sequence[float]) -> Tensor:
    return (x - x.roll(1, axis)).div_(voxel_size[axis])


def solve_admm(
    data: PhaseData,
    prior_type: type[Variation] | type[GeneralisedVariation],
    weight: float,
    tolerance: float,
    max_iterations: int,
    harmonic: float | None = None,
) -> Solution:
    """ADMM over z₁ = ∇χ (penalty μ), z₂ = Dχ [+ h] (penalty 1) and χ = 0 outside the mask (μ)."""
    chosen = MappingProxyType({"regularization": weight})
    grid, M = data.grid, data.inside
    spread = data.spread
    x = torch.zeros(grid.shape, dtype=data.phase.dtype, device=data.phase.device)
    if spread == 0:
        return Solution(grid.restore(x), parameters=chosen)
    mu = weight * data.radians / spread
    prior = prior_type(data, spread)
    solve = _ChiSolver(data, mu) if harmonic is None else _HarmonicSolver(data, mu, harmonic)
    k = data.weights.square()
    u2, u3 = torch.zeros_like(data.phase), torch.zeros_like(x)
    y = torch.zeros_like(x)  # Dχ [+ h]
    iteration, change = 0, float("inf")
    while iteration < max_iterations and change > tolerance:
        iteration += 1
        # z₁, u₁: prior, and the support of χ
        r1 = prior(x)
        u3.add_(x).masked_fill_(M, 0)
        r1.add_(torch.where(M, x, -u3))
        # z₂, u₂: data; outside the mask z₂ = Dχ and u₂ = 0
        v = data.gather(y).add_(u2)
        u2 = v - phase_prox(v, data.phase, k)
        r2 = data.scatter_(y, v.sub_(u2, alpha=2))
        # χ-update
        before = data.gather(x)
        x, y = solve(r1, r2)
        change = _relative_change(data.gather(x), before)
    return Solution(data.to_ppm(x), iteration, change <= tolerance, chosen)


class _ChiSolver:
    """χ-update in Fourier space: (D² + μ(|E|² + 1)) X = μ r̂₁ + D r̂₂; returns x and Dx."""

    def __init__(self, data: PhaseData, mu: float) -> None:
        self._D, self._mu, self._shape = data.kernel, mu, data.grid.shape
        energy = gradient_spectrum(self._shape, data.voxel_size, data.phase)
        self._denominator = energy.add_(1).mul_(mu).addcmul_(self._D, self._D)

    def __call__(self, r1: Tensor, r2: Tensor) -> tuple[Tensor, Tensor]:
        X = rfft(r1).mul_(self._mu).add_(rfft(r2).mul_(self._D)).div_(self._denominator)
        x = irfft(X, self._shape)
        return x, irfft(X.mul_(self._D), self._shape)


class _HarmonicSolver:
    """χ- and h-update, two by two in Fourier space, and the split z₄ = Δh (penalty `PENALTY`).

    Returns x and Dx + h.
    """

    PENALTY = 1.0

    def __init__(self, data: PhaseData, mu: float, beta: float) -> None:
        self._D, self._mu, self._shape = data.kernel, mu, data.grid.shape
        self._M, self._keep = data.inside, self.PENALTY / (beta + self.PENALTY)
        self._L = gradient_spectrum(self._shape, data.voxel_size, data.phase)  # of −Δ
        self._a = (self._L + 1).mul_(mu).addcmul_(self._D, self._D)
        self._c = self._L.square().mul_(self.PENALTY).add_(1)
        self._u4, self._r4 = torch.zeros(2, *self._shape).to(data.phase).unbind(0)

    def __call__(self, r1: Tensor, r2: Tensor) -> tuple[Tensor, Tensor]:
        # h- and χ-update: [a D; D c] (X, H) = (Rx, Rh)
        R2 = rfft(r2)
        Rx = rfft(r1).mul_(self._mu).addcmul_(R2, self._D)
        Rh = rfft(self._r4).mul_(self._L).mul_(self.PENALTY).add_(R2)
        determinant = self._a * self._c - self._D.square()
        X = (self._c * Rx).addcmul_(Rh, self._D, value=-1).div_(determinant)
        H = (self._a * Rh).addcmul_(Rx, self._D, value=-1).div_(determinant)
        # z₄, u₄: −Δh, small inside the mask, free outside
        t = irfft(H * self._L, self._shape).add_(self._u4)
        self._u4 = (t * (1 - self._keep)).mul_(self._M)
        self._r4 = t.sub_(self._u4, alpha=2)
        y = irfft(H.addcmul_(X, self._D), self._shape)
        return irfft(X, self._shape), y


def _relative_change(x: Tensor, before: Tensor) -> float:
    """‖x − before‖/‖x‖; 0 where x vanishes."""
    size = float(x.norm())
    return float((x - before).norm()) / size if size > 0 else 0.0
