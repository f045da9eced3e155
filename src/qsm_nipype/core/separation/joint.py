"""Joint inversion: one χ⁺ and one χ⁻ that explain the field and R2′.

Both live on the loop of `inversion.admm`. With x = χ⁺ − |χ⁻| and s = χ⁺ + |χ⁻| the field asks for
x only, so that the χ-update of the other inversions serves x, with half the penalty, and that of s
needs no data. What R2′ says, and that both are of one sign, is a proximal map in each voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.fourier import gradient_spectrum
from qsm_nipype.core.inversion.admm import DATA_PENALTY, RELAXATION, Dipole, Limits
from qsm_nipype.core.inversion.dataterm import FieldTerm, least_squares
from qsm_nipype.core.inversion.harmonic import MODEL_SHARE_WITH_TAIL
from qsm_nipype.core.inversion.priors import RENEWALS, Variation
from qsm_nipype.core.inversion.problem import FieldProblem, field_problem, relative_change
from qsm_nipype.core.inversion.weights import TAILED_FACTOR, tv_weight
from qsm_nipype.core.separation import RELAXIVITY, RELAXIVITY_B0, Sources, relaxivity_at
from qsm_nipype.core.separation.rates import rate_noise

#: λ/μ in units of the field's RMS: of the order of the gradients of χ⁺ and χ⁻, which R2′ draws.
GRADIENT_SCALE = 0.2


@dataclass(frozen=True)
class Decay:
    """What R2′ says on the box of a problem: ½`weight`(α χ⁺ + β|χ⁻| − `rate`)².

    `rate` is R2′ over the mean relaxivity (ppm), `paramagnetic` α and `diamagnetic` β the
    relaxivities over their mean; `weight` is zero where R2′ is not known.
    """

    rate: Tensor
    weight: Tensor
    paramagnetic: float = 1.0
    diamagnetic: float = 1.0

    def nearest(self, p: Tensor, n: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """χ⁺ and |χ⁻|, none negative, that minimise it plus ½`penalty` times the distance²."""
        a, b, k = self.paramagnetic, self.diamagnetic, self.weight / penalty
        excess = (a * p + b * n - self.rate) / (1 + k * (a * a + b * b))
        both_p, both_n = p - k * a * excess, n - k * b * excess
        only_p = ((p + k * a * self.rate) / (1 + k * a * a)).clamp_min_(0)
        only_n = ((n + k * b * self.rate) / (1 + k * b * b)).clamp_min_(0)
        less = self._cost(only_p, 0.0, p, n, k) < self._cost(0.0, only_n, p, n, k)
        inside = (both_p >= 0) & (both_n >= 0)
        zero = p.new_zeros(())
        return (
            torch.where(inside, both_p, torch.where(less, only_p, zero)),
            torch.where(inside, both_n, torch.where(less, zero, only_n)),
        )

    def _cost(
        self, p: Tensor | float, n: Tensor | float, at_p: Tensor, at_n: Tensor, k: Tensor
    ) -> Tensor:
        misfit = self.paramagnetic * p + self.diamagnetic * n - self.rate
        return (at_p - p).square() + (at_n - n).square() + k * misfit * misfit


def joint(  # noqa: PLR0913  the common signature, with all the data this method uses
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    r2prime: Tensor,
    chi: Tensor | None = None,
    b0: float = RELAXIVITY_B0,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    paramagnetic: float = RELAXIVITY,
    diamagnetic: float = RELAXIVITY,
    regularization: float | None = None,
    tail: float = 1.0,
    trust: float = 0.3,
    tolerance: float = 5e-3,
    max_iterations: int = 100,
) -> Sources:
    """χ⁺ and χ⁻ (ppm) from the local `field` (ppm) and `r2prime` (1/s), all `(X, Y, Z)`.

    Minimises, over χ⁺ ≥ 0 and |χ⁻| ≥ 0 that vanish outside `region`,
    ½‖W(D(χ⁺ − |χ⁻|) + c − f)‖² + ½v‖D_r⁺χ⁺ + D_r⁻|χ⁻| − R2′‖² + λ Σ R(∇χ⁺) + λ Σ R(∇|χ⁻|):
    the field term, model error c, prior R (with a `tail`) and λ of `harmonic.whtv`, the relaxation
    term of χ-separation [Shin2021]_. v is the noise of the field over that of R2′, squared, times
    `trust`; not-a-number in R2′ counts for nothing. `paramagnetic` and `diamagnetic` are D_r⁺ and
    D_r⁻ at 3 T (1/s per ppm), scaled with `b0` (T). `chi` (ppm) is a map to start from. Raises
    ValueError for a relaxivity that is not above zero.
    """
    problem = field_problem(field, mask, voxel_size, b0_dir, noise=noise, region=region,
                            model_share=MODEL_SHARE_WITH_TAIL)  # fmt: skip
    decay, sigma = decay_of(problem, r2prime, b0, (paramagnetic, diamagnetic), trust)
    chosen = {"noise": problem.error.noise, "rate_noise": sigma}
    weight = regularization
    if weight is None:
        weight = tv_weight(problem.error.noise, problem.scale, TAILED_FACTOR)
    chosen["regularization"] = weight
    first = None if chi is None else problem.cut(torch.where(problem.mask, chi, 0.0))
    return invert_sources(
        problem, decay, weight, Limits(tolerance, max_iterations), chosen, tail=tail, start=first
    )


def decay_of(
    problem: FieldProblem,
    r2prime: Tensor,
    b0: float,
    relaxivities: tuple[float, float],
    trust: float = 1.0,
) -> tuple[Decay, float]:
    """What `r2prime` (1/s) says, by D_r⁺ and D_r⁻ at 3 T, and its noise (1/s).

    As a likelihood it weighs, against the field's term, the ratio of both noises squared; `trust`
    times this. Raises ValueError for relaxivities not above zero.
    """
    slopes = [relaxivity_at(b0, d) for d in relaxivities]
    mean = sum(slopes) / 2
    sigma = rate_noise(r2prime, problem.mask)
    known = problem.mask & torch.isfinite(r2prime)
    field_noise = max(problem.error.noise, 1e-6)
    ratio = trust * (field_noise / max(sigma / mean, field_noise)) ** 2
    rate = torch.where(known, r2prime, 0.0) / mean
    weight = known.to(rate) * ratio
    return Decay(problem.cut(rate), problem.cut(weight), *(d / mean for d in slopes)), sigma


def invert_sources(
    problem: FieldProblem,
    decay: Decay,
    weight: float,
    limits: Limits,
    chosen: Mapping[str, float],
    *,
    tail: float = 0.0,
    free: Tensor | None = None,
    start: Tensor | None = None,
) -> Sources:
    """The loop of `admm.solve` with both sources; `weight` is λ (ppm), `start` a χ in the box.

    Where `free` (3, box) holds, a step to the next voxel costs nothing, as at the rim.
    """
    if problem.scale == 0 or weight == 0:
        nothing = problem.restore(problem.zeros())
        return Sources(nothing, nothing, parameters=MappingProxyType(dict(chosen)))
    radius, a = GRADIENT_SCALE * problem.scale, RELAXATION
    mu, nu = weight / radius, DATA_PENALTY
    rim = problem.rim() if free is None else problem.rim() | free
    priors = [Variation(problem, radius, free=rim, tail=tail * problem.scale or None, a=a)
              for _ in range(2)]  # fmt: skip
    data = FieldTerm(problem, least_squares(problem, nu), a=a)
    of_x, of_s = Dipole(problem, mu / 2, nu, a=a), Smooth(problem, a)
    amounts = Amounts(problem, decay, mu, a)
    p, n = split_by_rate(problem.zeros() if start is None else start, decay)
    x, s = p - n, p + n
    q = data.start(of_x.start(x))
    pulls = amounts.start((p, n), _divergences([prior.start for prior in priors], p, n))
    iteration, change = 0, float("inf")
    least = RENEWALS[-1] + 1 if tail else 0
    while iteration < limits.max_iterations:
        iteration += 1
        # (νsD² + ½μ(L + 1)) X = νsD·F(z₂ − u₂) + ½μ·F(of χ⁺ − of |χ⁻|);  (L + 1) S = F(of both)
        new, y = of_x(pulls[0] - pulls[1], q)
        new_s = of_s(pulls[0] + pulls[1])
        change = max(relative_change(new, x, problem.S), relative_change(new_s, s, problem.S))
        x, s = new, new_s
        if change <= limits.tolerance and iteration >= least:
            break
        p, n = (s + x) / 2, (s - x) / 2
        # z₁ = shrink(∇χ± + u₁, λ/μ);  z₃ = what R2′ and the signs allow nearest to χ± + u₃
        pulls = amounts((p, n), _divergences(priors, p, n))
        # z₂ = argmin φ(z) + ν/2·|z − y − u₂|²
        q = data(y)
    p, n = (part * problem.S for part in decay.nearest((s + x) / 2, (s - x) / 2, mu))
    done = change <= limits.tolerance
    return Sources(
        problem.restore(p), -problem.restore(n), iteration, done, MappingProxyType(dict(chosen))
    )


def _divergences(
    priors: Sequence[Callable[[Tensor], Tensor]], p: Tensor, n: Tensor
) -> list[Tensor]:
    return [prior(v) for prior, v in zip(priors, (p, n), strict=True)]


def split_by_rate(chi: Tensor, decay: Decay) -> tuple[Tensor, Tensor]:
    """χ⁺ and |χ⁻| with the difference `chi` and a decay as near to the rate as signs allow."""
    a, b = decay.paramagnetic, decay.diamagnetic
    p = torch.maximum((decay.rate + b * chi) / (a + b), chi).clamp_min_(0)
    return p, (p - chi).clamp_min_(0)


class Smooth:
    """The update of s: (L + 1) S = F(z₃ − u₃ − div(z₁ − u₁)), of χ⁺ and |χ⁻| summed."""

    def __init__(self, problem: FieldProblem, a: float) -> None:
        self._problem, self._a = problem, a
        L = gradient_spectrum(problem.shape, problem.voxel_size, problem.D)
        self._inverse = L.add_(1).reciprocal_()
        self._P = torch.zeros_like(problem.D, dtype=problem.D.dtype.to_complex())

    def __call__(self, pull: Tensor) -> Tensor:
        p, P = self._problem, self._P
        P.add_(p.transform(pull))
        S = P * self._inverse
        P.sub_(S, alpha=self._a)
        return p.inverse(S)


class Amounts:
    """z₃ = (χ⁺, |χ⁻|): of one sign, zero outside S, near R2′; as `admm.Support`."""

    def __init__(self, problem: FieldProblem, decay: Decay, mu: float, a: float) -> None:
        self._S, self._decay, self._mu, self._a = problem.S, decay, mu, a
        self._z = [problem.zeros(), problem.zeros()]
        self._u = [problem.zeros(), problem.zeros()]
        self._p = [problem.zeros(), problem.zeros()]

    def start(self, x: tuple[Tensor, Tensor], divergences: list[Tensor]) -> list[Tensor]:
        """z₃ = χ±, u₃ = 0."""
        self._z = [v.clone() for v in x]
        self._p = [torch.sub(v, d) for v, d in zip(x, divergences, strict=True)]
        return [p.clone() for p in self._p]

    def __call__(self, x: tuple[Tensor, Tensor], divergences: list[Tensor]) -> list[Tensor]:
        a, changes = self._a, []
        v = [
            u.add_(one, alpha=a).add_(z, alpha=1 - a)
            for u, one, z in zip(self._u, x, self._z, strict=True)
        ]
        self._z = [z * self._S for z in self._decay.nearest(v[0], v[1], self._mu)]
        for k in range(2):
            self._u[k] = v[k].sub_(self._z[k])
            new = torch.sub(self._z[k], self._u[k]).sub_(divergences[k])
            changes.append(new - self._p[k].sub_(x[k], alpha=a))
            self._p[k] = new
        return changes
