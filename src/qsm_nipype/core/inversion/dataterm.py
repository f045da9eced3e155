"""Data terms, as splits of y (Dχ or Dχ + h): linear in the field, or in the complex signal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsm_nipype.core.inversion.problem import FieldProblem, PhaseProblem
from qsm_nipype.core.operators import shrink
from qsm_nipype.core.phase import wrap

#: prox(v) = argmin over z of φ(z) + ν/2·(z − v)².
Prox = Callable[[Tensor], Tensor]


class FieldTerm:
    """φ of the field in ppm, given by its proximal map; `a` is the over-relaxation.

    Outside M the weights are zero, so that u₂ = 0 and z₂ is y, relaxed, there.
    """

    def __init__(self, problem: FieldProblem, prox: Prox, *, a: float = 1.0) -> None:
        self._prox, self._a = prox, a
        self._u, self._q = problem.zeros(), problem.zeros()

    def start(self, y: Tensor) -> Tensor:
        """z₂ = prox(y), u₂ = 0."""
        self._z = self._prox(y)
        return torch.sub(self._z, y, out=self._q)

    def __call__(self, y: Tensor) -> Tensor:
        u, a = self._u, self._a
        q = torch.mul(u, 2 - a, out=self._q)
        u.add_(y, alpha=a)
        if a != 1:
            u.add_(self._z, alpha=1 - a)
        self._z = z = self._prox(u)
        return q.sub_(u.sub_(z), alpha=2)


class PhaseTerm:
    """φ = ½|W(e^{iy} − e^{iφ})|² over the voxels of S; the first step updates u₂ as well."""

    def __init__(self, problem: PhaseProblem, nu: float, *, a: float = 1.0) -> None:
        self._problem, self._stiffness = problem, problem.weights.square() / nu
        self._u, self._q = torch.zeros_like(problem.phase), problem.zeros()
        self._z, self._a = torch.zeros_like(problem.phase), a

    def start(self, y: Tensor) -> Tensor:
        """As any step, from u₂ = 0 and z₂ = y."""
        self._z = self._problem.gather(y)
        return self(y)

    def __call__(self, y: Tensor) -> Tensor:
        p, a, before = self._problem, self._a, self._u
        v = p.gather(y).mul_(a).add_(self._z, alpha=1 - a).add_(before)
        self._u = v - phase_prox(v, p.phase, self._stiffness)
        self._z = v - self._u
        return p.scatter_(self._q, ((2 - a) * before).sub_(self._u, alpha=2))


def least_squares(problem: FieldProblem, nu: float) -> Prox:
    """Proximal map of ½W²(z − f)²: (W²f + νv)/(W² + ν)."""
    square = problem.W.square()
    total = square + nu
    fixed, share = square.mul_(problem.f).div_(total), nu / total

    def prox(v: Tensor) -> Tensor:
        return torch.addcmul(fixed, share, v)

    return prox


def absolute(problem: FieldProblem, nu: float, unit: float) -> Prox:
    """Proximal map of `unit`·W|z − f|, the ℓ1 data term on the scale of the ℓ2 one (ppm)."""
    threshold = problem.W * (unit / nu)

    def prox(v: Tensor) -> Tensor:
        return shrink(v - problem.f, threshold).add_(problem.f)

    return prox


def phase_prox(v: Tensor, phase: Tensor, stiffness: Tensor, *, steps: int = 3) -> Tensor:
    """argmin over z of k(1 − cos(z − φ)) + ½(z − v)², by Newton steps from the linear solution.

    `stiffness` k = W²/ν. The turn of φ nearest to `v` is taken, so that wraps in it don't matter.
    """
    e = wrap(v - phase)
    u = e / (1 + stiffness)
    for _ in range(steps):
        slope = (1 + stiffness * torch.cos(u)).clamp_min_(0.5)
        u = u - (u - e + stiffness * torch.sin(u)) / slope
    return v - e + u
