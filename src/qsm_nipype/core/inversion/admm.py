"""ADMM of every total variation inversion: prior × data term × χ-solver in one loop.

All minimise φ(y) + λ·R(∇χ) over the χ that vanish outside the source region S, y being Dχ or
Dχ + h. Splitting makes each step closed-form: z₁ = ∇χ (penalty μ, see `priors`), z₂ = y (ν, see
`dataterm`) and z₃ = χ (μ). Each split keeps its scaled multiplier u and gives z − u, which pulls
χ; the solver finds χ in Fourier space. `a` is the over-relaxation of the splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from qsm_nipype.core.fourier import gradient_spectrum
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.dataterm import FieldTerm, PhaseTerm, Prox
from qsm_nipype.core.inversion.priors import GeneralisedVariation, Variation
from qsm_nipype.core.inversion.problem import (
    FieldProblem,
    PhaseProblem,
    Problem,
    relative_change,
)

#: Over-relaxation; between 1.5 and 1.8 halves the iterations of a = 1.
RELAXATION = 1.7
#: Penalty ν of z₂ = Dχ, against the linear data term's 1.
DATA_PENALTY = 0.2
#: λ/μ in units of the field's RMS: of the order of χ's gradients.
GRADIENT_SCALE = 1.5
#: The same with the data term in the complex signal, with its own over-relaxation.
PHASE_PENALTY, PHASE_GRADIENT_SCALE, PHASE_RELAXATION = 0.15, 4.0, 1.5
#: Penalty π of z₄ = −Δh.
LAPLACIAN_PENALTY = 0.5
#: Weight γ of ½|∇h|² for a source region of one voxel; γ grows with its cross-section, so that it
#: is the size of the head that counts and not that of a voxel.
HARMONIC_ENERGY = 4e-8


class Limits(NamedTuple):
    """Relative change of χ at which to stop, the most iterations and the fewest."""

    tolerance: float
    max_iterations: int
    least: int = 0


class Prior(Protocol):
    """The split of ∇χ: takes χ and gives div(z₁ − u₁); `start` for a χ to begin from."""

    def start(self, x: Tensor) -> Tensor: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Data(Protocol):
    """The split of y: takes y and gives z₂ − u₂ − y, which is zero outside the data mask."""

    def start(self, y: Tensor) -> Tensor: ...

    def __call__(self, y: Tensor) -> Tensor: ...


class Solver(Protocol):
    """The χ-update: takes z₃ − u₃ − div(z₁ − u₁) and z₂ − u₂ − y and gives χ and y."""

    def start(self, x: Tensor) -> Tensor: ...

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]: ...


def solve(
    problem: Problem,
    prior: Prior,
    data: Data,
    solver: Solver,
    limits: Limits,
    *,
    a: float = 1.0,
    start: Tensor | None = None,
    chosen: Mapping[str, float],
) -> Solution:
    """The loop. `start` is a χ in the box to begin from; `chosen` is what the method reports."""
    support = Support(problem, a)
    x = y = problem.zeros()
    if start is not None:
        x, y = start, solver.start(start)
    pull, q = support.start(x, prior.start(x)), data.start(y)
    iteration, change = 0, float("inf")
    while iteration < limits.max_iterations:
        iteration += 1
        # χ: (νD² + μ(L + 1)) X = νD·F(z₂ − u₂) + μ·F(∇ᵀ(z₁ − u₁) + z₃ − u₃)
        new, y = solver(pull, q)
        change, x = relative_change(new, x, problem.S), new
        if change <= limits.tolerance and iteration >= limits.least:
            break
        # z₁ = shrink(∇χ + u₁, λ/μ),  u₁ ← ∇χ + u₁ − z₁;  z₃ = S(χ + u₃),  u₃ ← χ + u₃ − z₃
        pull = support(x, prior(x))
        # z₂ = argmin φ(z) + ν/2·|z − y − u₂|²,  u₂ ← y + u₂ − z₂
        q = data(y)
    done = change <= limits.tolerance
    return Solution(problem.restore(x), iteration, done, MappingProxyType(dict(chosen)))


class Support:
    """χ = 0 outside S by z₃ = χ.

    In S, u₃ is zero; outside, z₃ is. So r = z₃ − u₃ alone is kept: z₃ in S and −u₃ outside. What
    is given on is the change of p = r − div(z₁ − u₁) from p − aχ, which is what it becomes
    outside the box.
    """

    def __init__(self, problem: Problem, a: float) -> None:
        self._S, self._a, self._p = problem.S, a, problem.zeros()

    def start(self, x: Tensor, divergence: Tensor) -> Tensor:
        """z₃ = χ, which is zero outside S; u₃ = 0."""
        self._r = x.clone()
        torch.sub(x, divergence, out=self._p)
        return self._p.clone()

    def __call__(self, x: Tensor, divergence: Tensor) -> Tensor:
        # r = (1 − a)r + aχ in S,  r = r − aχ outside
        r, p, a = self._r, self._p, self._a
        torch.where(self._S, torch.lerp(r, x, a), r.sub_(x, alpha=a), out=r)
        p.sub_(x, alpha=a)
        new = torch.sub(r, divergence, out=divergence)
        change = new - p
        self._p = new
        return change


class Dipole:
    """y = Dχ + c. Four transforms an iteration.

    Of what z₂ − u₂ holds beside Dχ, c takes the part 1 − s, s = 1/(1 + ν·misfit): its prior is
    diagonal in k-space, and so it is gone from the equation of χ.

    Outside the box, where nothing is asked, z₂ is Dχ itself, relaxed by `a`, and the spectrum R
    of z₂ − u₂ can be kept from that of y: transforms see the box only.
    """

    def __init__(self, problem: Problem, mu: float, nu: float, *, a: float = 1.0) -> None:
        self._problem, self._weight, self._a = problem, mu / nu, a
        L, D = _laplacian(problem), problem.D
        self._s = _share_of_dipole(problem, nu)
        self._inverse = L.add_(1).mul_(self._weight).add_(self._s * D * D).reciprocal_()
        self._sD = self._s * D
        self._R, self._P = _spectrum(problem), _spectrum(problem)

    def start(self, x: Tensor) -> Tensor:
        """y of a χ to begin from."""
        self._R = self._problem.transform(x).mul_(self._problem.D)
        return self._problem.inverse(self._R)

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, D, R, P = self._problem, self._problem.D, self._R, self._P
        # X = (sD·(R + F q) + μ/ν·(P + F(pull))) / (sD² + μ/ν·(L + 1))
        R.add_(p.transform(q))
        P.add_(p.transform(pull))
        X = (R * self._sD).add_(P, alpha=self._weight).mul_(self._inverse)
        x = p.inverse(X)
        P.sub_(X, alpha=self._a)
        Y = _with_c(X.mul_(D), R, self._s)
        R.mul_(1 - self._a).add_(Y, alpha=self._a)
        return x, p.inverse(Y)


class DipoleAndHarmonic:
    """y = Dχ + h + c with ½β‖MΔh‖² by z₄ = −Δh (penalty π) and ½γ‖∇h‖². Six transforms.

    Harmonic functions can be of any size, and those that a layer of χ at the rim of S makes are
    among them: without γ (`HARMONIC_ENERGY`), h and that layer grow against each other for
    thousands of iterations. Of all h that explain the field, it prefers the least energy.
    What sources outside S put into the field is harmonic in M. c as in `Dipole`. Outside the box
    z₂ is y and z₄ is −Δh, relaxed by `a`: the spectra R and R₄ of z₂ − u₂ and z₄ − u₄ are kept
    from theirs.
    """

    def __init__(
        self,
        problem: Problem,
        mu: float,
        nu: float,
        beta: float,
        pi: float,
        *,
        a: float = 1.0,
    ) -> None:
        self._problem, self._mu, self._pi, self._a = problem, mu / nu, pi / nu, a
        self._free = problem.M.to(problem.D.dtype) * (beta / (beta + pi))
        self._L = L = _laplacian(problem)
        self._s = s = _share_of_dipole(problem, nu)
        self._sD = sD = s * problem.D
        # the inverse of [[μ(L + 1) + νsD², νsD], [νsD, νs + πL² + γL]], times ν
        stiff = L.square().mul_(self._pi).add_(L, alpha=self._gamma(problem) / nu)
        smooth = (L + 1).mul_(self._mu)
        determinant = (stiff + s).mul_(smooth).addcmul_(stiff, sD * problem.D)
        self._chi_chi = (stiff + s).div_(determinant)
        self._h_h = smooth.addcmul_(sD, problem.D).div_(determinant)
        self._chi_h = sD / determinant
        self._R, self._R4, self._P = (_spectrum(problem) for _ in range(3))
        self._z, self._u, self._q = problem.zeros(), problem.zeros(), problem.zeros()

    def start(self, x: Tensor) -> Tensor:
        """y of a χ to begin from, without background."""
        self._R = self._problem.transform(x).mul_(self._problem.D)
        return self._problem.inverse(self._R)

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, D, R, R4, P = self._problem, self._problem.D, self._R, self._R4, self._P
        # [X; H] = inverse · [sD·(R + F q) + μ/ν·(P + F(pull)); s(R + F q) + π/ν·L·(R₄ + F q₄)]
        R.add_(p.transform(q))
        P.add_(p.transform(pull))
        right_h = R4.add_(p.transform(self._q)).mul(self._L).mul_(self._pi).add_(R * self._s)
        right_chi = (R * self._sD).add_(P, alpha=self._mu)
        X = (self._chi_chi * right_chi).sub_(self._chi_h * right_h)
        H = right_h.mul_(self._h_h).sub_(right_chi.mul_(self._chi_h))
        x = p.inverse(X)
        P.sub_(X, alpha=self._a)
        Y, T = _with_c(X.mul_(D).add_(H), R, self._s), H.mul_(self._L)
        R.mul_(1 - self._a).add_(Y, alpha=self._a)
        R4.mul_(1 - self._a).add_(T, alpha=self._a)
        self._split(p.inverse(T))
        return x, p.inverse(Y)

    @staticmethod
    def _gamma(problem: Problem) -> float:
        return HARMONIC_ENERGY * float(problem.S.sum()) ** (2 / 3)

    def _split(self, t: Tensor) -> None:
        """z₄ = π/(β + π)·(t + u₄) in S and t outside, t = a(−Δh) + (1 − a)z₄."""
        u, z, a = self._u, self._z, self._a
        q = torch.mul(u, 2 - a, out=self._q)
        u.add_(t, alpha=a).add_(z, alpha=1 - a)
        torch.mul(u, self._free, out=z)  # the new u₄
        q.sub_(z, alpha=2)
        u.sub_(z)  # the new z₄
        self._u, self._z = z, u


class WeightedDivision:
    """½‖H^½(χ − χ₁)‖² instead of a data term, H ≥ 0 in k-space. Two transforms an iteration."""

    def __init__(
        self, problem: Problem, first: Tensor, H: Tensor, mu: float, *, a: float = 1.0
    ) -> None:
        self._problem, self._mu, self._a, self._P = problem, mu, a, _spectrum(problem)
        self._inverse = _laplacian(problem).add_(1).mul_(mu).add_(H).reciprocal_()
        self._fixed = problem.transform(first).mul_(H)

    def start(self, x: Tensor) -> Tensor:
        """Nothing is split here."""
        return x

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, P = self._problem, self._P
        # X = (H·F(χ₁) + μ·(P + F(pull))) / (H + μ(L + 1))
        P.add_(p.transform(pull))
        X = torch.add(self._fixed, P, alpha=self._mu).mul_(self._inverse)
        P.sub_(X, alpha=self._a)
        x = p.inverse(X)
        return x, x


class NoData:
    """The data term of `WeightedDivision`, which holds it itself."""

    def start(self, y: Tensor) -> Tensor:
        """Nothing is split here."""
        return y

    def __call__(self, y: Tensor) -> Tensor:
        return y


def solve_linear(
    problem: FieldProblem,
    prox: Prox,
    weight: float,
    limits: Limits,
    *,
    start: Tensor | None = None,
    gradient_scale: float = GRADIENT_SCALE,
    chosen: Mapping[str, float],
) -> Solution:
    """Total variation of `weight` λ (ppm) with a data term linear in the field; `start` is χ.

    `gradient_scale` is λ/μ in units of the field's RMS: it decides the speed, not the result.
    """
    if problem.scale == 0:
        return zero_solution(problem, chosen)
    radius, a = gradient_scale * problem.scale, RELAXATION
    return solve(
        problem,
        Variation(problem, radius, a=a),
        FieldTerm(problem, prox, a=a),
        Dipole(problem, weight / radius, DATA_PENALTY, a=a),
        limits,
        a=a,
        start=start,
        chosen=chosen,
    )


def solve_phase(
    problem: PhaseProblem,
    prior: type[Variation] | type[GeneralisedVariation],
    weight: float,
    limits: Limits,
    *,
    harmonic: float | None = None,
) -> Solution:
    """`prior` of `weight` λ (ppm) with the data term in the complex signal, beside h or not."""
    chosen = {"regularization": weight}
    radius = PHASE_GRADIENT_SCALE * problem.spread
    if radius == 0:
        return zero_solution(problem, chosen)
    mu, nu, a = weight * problem.radians / radius, PHASE_PENALTY, PHASE_RELAXATION
    solver: Solver = Dipole(problem, mu, nu, a=a)
    if harmonic is not None:
        solver = DipoleAndHarmonic(problem, mu, nu, harmonic, LAPLACIAN_PENALTY, a=a)
    split = prior(problem, radius, free=problem.rim(), a=a)
    data = PhaseTerm(problem, nu, a=a)
    return solve(problem, split, data, solver, limits, a=a, chosen=chosen)


def zero_solution(problem: Problem, chosen: Mapping[str, float]) -> Solution:
    """χ = 0, where there is no field."""
    chi = problem.restore(problem.zeros())
    return Solution(chi, parameters=MappingProxyType(dict(chosen)))


def _share_of_dipole(problem: Problem, nu: float) -> Tensor:
    """s = 1/(1 + ν·misfit): a scalar 1 where the model has no error."""
    if problem.misfit is None:
        return problem.D.new_ones(())
    return problem.misfit.mul(nu).add_(1).reciprocal_()


def _with_c(Y: Tensor, T: Tensor, s: Tensor) -> Tensor:
    """Y and the c = (1 − s)(T − Y) beside it, where T = F(z₂ − u₂)."""
    return Y if s.dim() == 0 else Y.sub_(T).mul_(s).add_(T)


def _laplacian(problem: Problem) -> Tensor:
    """L = Σ|E|², minus the Laplacian's spectrum."""
    return gradient_spectrum(problem.shape, problem.voxel_size, problem.D)


def _spectrum(problem: Problem) -> Tensor:
    """A spectrum of zeros."""
    return torch.zeros_like(problem.D, dtype=problem.D.dtype.to_complex())
