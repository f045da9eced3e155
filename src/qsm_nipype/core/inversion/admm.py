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

#: Over-relaxation with a linear data term; between 1.5 and 1.8 halves the iterations of a = 1.
RELAXATION = 1.7
#: Penalty ν of z₂ = Dχ, against the linear data term's 1.
DATA_PENALTY = 0.5
#: λ/μ in units of the field's RMS: of the order of χ's gradients.
GRADIENT_SCALE = 1.5
#: Penalties ν and π of z₂ and z₄ with the data term in the complex signal.
PHASE_PENALTY, PHASE_LAPLACIAN_PENALTY = 1.0, 1.0


class Limits(NamedTuple):
    """Relative change of χ at which to stop, and the most iterations."""

    tolerance: float
    max_iterations: int


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
    pull, q = support.start(x) - prior.start(x), data.start(y)
    iteration, change = 0, float("inf")
    while iteration < limits.max_iterations:
        iteration += 1
        # χ: (νD² + μ(L + 1)) X = νD·F(z₂ − u₂) + μ·F(∇ᵀ(z₁ − u₁) + z₃ − u₃)
        new, y = solver(pull, q)
        change, x = relative_change(new, x, problem.S), new
        if change <= limits.tolerance:
            break
        # z₃ = S(χ + u₃),  u₃ ← χ + u₃ − z₃;  z₁ = shrink(∇χ + u₁, λ/μ),  u₁ ← ∇χ + u₁ − z₁
        pull = prior(x)
        torch.sub(support(x), pull, out=pull)
        # z₂ = argmin φ(z) + ν/2·|z − y − u₂|²,  u₂ ← y + u₂ − z₂
        q = data(y)
    done = change <= limits.tolerance
    return Solution(problem.restore(x), iteration, done, MappingProxyType(dict(chosen)))


class Support:
    """χ = 0 outside S by z₃ = χ.

    In S, u₃ is zero; outside, z₃ is. So r = z₃ − u₃ alone is kept: z₃ in S and −u₃ outside.
    """

    def __init__(self, problem: Problem, a: float) -> None:
        self._S, self._a = problem.S, a

    def start(self, x: Tensor) -> Tensor:
        """z₃ = χ, which is zero outside S; u₃ = 0."""
        self._r = x.clone()
        return self._r

    def __call__(self, x: Tensor) -> Tensor:
        # r = (1 − a)r + aχ in S,  r = r − aχ outside
        r, a = self._r, self._a
        return torch.where(self._S, torch.lerp(r, x, a), r.sub_(x, alpha=a), out=r)


class Dipole:
    """y = Dχ. Four transforms an iteration.

    Outside the box, where nothing is asked, z₂ is Dχ itself, which the spectrum Y = DX already
    holds: transforms see the box only.
    """

    def __init__(self, problem: Problem, mu: float, nu: float) -> None:
        self._problem, self._weight = problem, mu / nu
        L, D = _laplacian(problem), problem.D
        self._inverse = L.add_(1).mul_(self._weight).addcmul_(D, D).reciprocal_()
        self._Y = _spectrum(problem)

    def start(self, x: Tensor) -> Tensor:
        """y of a χ to begin from."""
        self._Y = self._problem.transform(x).mul_(self._problem.D)
        return self._problem.inverse(self._Y)

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, D = self._problem, self._problem.D
        # X = (D·(Y + F q) + μ/ν·F(pull)) / (D² + μ/ν·(L + 1))
        Y = self._Y.add_(p.transform(q)).mul_(D)
        X = p.transform(pull.mul_(self._weight)).add_(Y).mul_(self._inverse)
        x = p.inverse(X)
        self._Y = X.mul_(D)
        return x, p.inverse(self._Y)


class DipoleAndHarmonic:
    """y = Dχ + h with ½β‖SΔh‖² by z₄ = −Δh (penalty π). Six transforms an iteration.

    What sources outside S put into the field is harmonic in S. Outside the box z₂ is y and z₄
    is −Δh, which the spectra `Y` and `T` hold. Over-relaxation, which speeds up `Dipole`, would
    have to reach there too: without, it cycles.
    """

    def __init__(self, problem: Problem, mu: float, nu: float, beta: float, pi: float) -> None:
        self._problem, self._mu, self._pi = problem, mu / nu, pi / nu
        self._free = problem.S.to(problem.D.dtype) * (beta / (beta + pi))
        self._L = L = _laplacian(problem)
        D = problem.D
        # the inverse of [[μ(L + 1) + νD², νD], [νD, ν + πL²]], times ν
        stiff = L.square().mul_(self._pi)
        smooth = (L + 1).mul_(self._mu)
        determinant = (stiff + 1).mul_(smooth).addcmul_(stiff, D.square())
        self._chi_chi = (stiff + 1).div_(determinant)
        self._h_h = smooth.addcmul_(D, D).div_(determinant)
        self._chi_h = D / determinant
        self._Y, self._T = _spectrum(problem), _spectrum(problem)
        self._u, self._q = problem.zeros(), problem.zeros()

    def start(self, x: Tensor) -> Tensor:
        """y of a χ to begin from, without background."""
        self._Y = self._problem.transform(x).mul_(self._problem.D)
        return self._problem.inverse(self._Y)

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, D = self._problem, self._problem.D
        # [X; H] = inverse · [D·(Y + F q) + μ/ν·F(pull); Y + F q + π/ν·L·(T + F q₄)]
        data = self._Y.add_(p.transform(q))
        right_chi = p.transform(pull.mul_(self._mu)).addcmul_(data, D.to(data.dtype))
        right_h = self._T.add_(p.transform(self._q)).mul_(self._L).mul_(self._pi).add_(data)
        X = (self._chi_chi * right_chi).sub_(self._chi_h * right_h)
        H = right_h.mul_(self._h_h).sub_(right_chi.mul_(self._chi_h))
        x = p.inverse(X)
        self._Y = X.mul_(D).add_(H)
        self._T = H.mul_(self._L)
        self._split(p.inverse(self._T))
        return x, p.inverse(self._Y)

    def _split(self, t: Tensor) -> None:
        """z₄ = π/(β + π)·(t + u₄) in S and t outside: u₄ ← t + u₄ − z₄, q₄ = z₄ − u₄ − t."""
        q = self._q.copy_(self._u)
        q.sub_(self._u.add_(t).mul_(self._free), alpha=2)


class WeightedDivision:
    """½‖H^½(χ − χ₁)‖² instead of a data term, H ≥ 0 in k-space. Two transforms an iteration."""

    def __init__(self, problem: Problem, first: Tensor, H: Tensor, mu: float) -> None:
        self._problem, self._mu = problem, mu
        self._inverse = _laplacian(problem).add_(1).mul_(mu).add_(H).reciprocal_()
        self._fixed = problem.transform(first).mul_(H)

    def start(self, x: Tensor) -> Tensor:
        """Nothing is split here."""
        return x

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p = self._problem
        # X = (H·F(χ₁) + μ·F(pull)) / (H + μ(L + 1))
        X = p.transform(pull.mul_(self._mu)).add_(self._fixed).mul_(self._inverse)
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
    chosen: Mapping[str, float],
) -> Solution:
    """Total variation of `weight` λ (ppm) with a data term linear in the field; `start` is χ."""
    if problem.scale == 0:
        return zero_solution(problem, chosen)
    radius, a = GRADIENT_SCALE * problem.scale, RELAXATION
    return solve(
        problem,
        Variation(problem, radius, a=a),
        FieldTerm(problem, prox, a=a),
        Dipole(problem, weight / radius, DATA_PENALTY),
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
    radius = problem.spread
    if radius == 0:
        return zero_solution(problem, chosen)
    mu, nu = weight * problem.radians / radius, PHASE_PENALTY
    solver: Solver = Dipole(problem, mu, nu)
    if harmonic is not None:
        solver = DipoleAndHarmonic(problem, mu, nu, harmonic, PHASE_LAPLACIAN_PENALTY)
    split = prior(problem, radius, faces=problem.faces())
    return solve(problem, split, PhaseTerm(problem, nu), solver, limits, chosen=chosen)


def zero_solution(problem: Problem, chosen: Mapping[str, float]) -> Solution:
    """χ = 0, where there is no field."""
    chi = problem.restore(problem.zeros())
    return Solution(chi, parameters=MappingProxyType(dict(chosen)))


def _laplacian(problem: Problem) -> Tensor:
    """L = Σ|E|², minus the Laplacian's spectrum."""
    return gradient_spectrum(problem.shape, problem.voxel_size, problem.D)


def _spectrum(problem: Problem) -> Tensor:
    """A spectrum of zeros."""
    return torch.zeros_like(problem.D, dtype=problem.D.dtype.to_complex())
