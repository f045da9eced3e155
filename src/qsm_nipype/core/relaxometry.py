"""R2* and T2* from the decay of the magnitude over the echoes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.core.dephasing import log_loss
from qsm_nipype.core.signal_noise import noise_level

#: Steps of Fisher scoring, voxels at a time, and M/σ above which 2σ² does not matter.
_SCORINGS, _CHUNK, _HIGH = 10, 200_000, 14.0


@dataclass(frozen=True)
class Decay:
    """`r2star` (1/s), `t2star` (s) and `amplitude` (signal at TE = 0), zero outside the mask."""

    r2star: Tensor
    t2star: Tensor
    amplitude: Tensor


def loglinear(
    magnitude: Tensor,
    mask: Tensor,
    echo_times: Sequence[float],
    *,
    reweightings: int = 2,
    longest: float = 0.5,
    sigma: float | None = None,
    total_field: Tensor | None = None,
    b0: float | None = None,
) -> Decay:
    """Weighted straight line through ln|S| over TE, then the same above the noise floor.

    `magnitude` M `(X, Y, Z, E)`, `echo_times` in s. The variance of ln|S| is σ²/|S|², so an echo
    weighs |S|²; weights come from the measured signal first and then, `reweightings` times, from
    the fitted decay, which takes away the bias that noisy weights bring. A magnitude does not fall
    below its noise: M² is |S|² + 2σ² on average [Gudbjartsson1995]_. So from the line on,
    |S|² + 2σ² is fitted to M², whose variance is 4σ²(|S|² + σ²). `sigma` is σ in the unit of
    `magnitude`; None measures it, 0 leaves the line as it is. With the `total_field` (ppm of `b0`
    T) what its change across a voxel takes of the signal is no decay (`dephasing`). T2* is cut at
    `longest` (s), R2* at 1/`longest`. Raises ValueError for a single echo.
    """
    te = _echo_axis(echo_times, magnitude)
    signal = magnitude[mask].clamp_min(1e-6 * float(magnitude.max().clamp_min(1e-30)))
    log_signal = signal.log()
    weights = signal.square()
    for _ in range(reweightings + 1):
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
        mean_te = (weights * te).sum(-1, keepdim=True)
        mean_log = (weights * log_signal).sum(-1, keepdim=True)
        spread = (weights * (te - mean_te) ** 2).sum(-1, keepdim=True)
        slope = (weights * (te - mean_te) * (log_signal - mean_log)).sum(-1, keepdim=True)
        rate = (-slope / spread.clamp_min(1e-12)).clamp(1 / longest, 5 / float(te[0]))
        fitted = mean_log + rate * (mean_te - te)
        weights = (2 * (fitted - fitted.amax(-1, keepdim=True))).exp()
    if sigma is None:
        sigma = _noise(signal, fitted, magnitude[..., 0], mask)
    start = mean_log + rate * mean_te
    low = (signal.amin(-1) < _HIGH * sigma).nonzero()[:, 0]
    for part in low.split(_CHUNK) if sigma > 0 else ():
        found = _above_floor(signal[part] / sigma, start[part] - math.log(sigma), rate[part], te)
        start[part] = found[0] + math.log(sigma)
        rate[part] = found[1].clamp_min(1 / longest)
    if total_field is not None and b0 is not None:
        feigned = log_loss(total_field, mask, echo_times, b0)
        start, rate = _without(feigned, start, rate, te)
        rate = rate.clamp_min(1 / longest)
    return _decay(rate[:, 0], start.exp()[:, 0], mask)


def _without(loss: Tensor, start: Tensor, rate: Tensor, te: Tensor) -> tuple[Tensor, Tensor]:
    """ln A and R `(N, 1)` without the line that a `loss` −ln F `(N, E)` added to the fit."""
    weights = (-2 * rate * te).exp()
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
    mean_te = (weights * te).sum(-1, keepdim=True)
    mean_loss = (weights * loss).sum(-1, keepdim=True)
    spread = (weights * (te - mean_te) ** 2).sum(-1, keepdim=True).clamp_min(1e-12)
    slope = (weights * (te - mean_te) * (loss - mean_loss)).sum(-1, keepdim=True) / spread
    return start + mean_loss - slope * mean_te, rate - slope


def _above_floor(signal: Tensor, start: Tensor, rate: Tensor, te: Tensor) -> tuple[Tensor, Tensor]:
    """ln A and R of A² exp(−2 R t) + 2 fitted to M² by scoring, M = `signal` `(N, E)` in units of
    σ, from `start` and `rate` `(N, 1)`.

    A decay that takes the second echo below the noise cannot be told from a faster one: R ends
    there.
    """
    excess = signal.square() - 2
    for _ in range(_SCORINGS):
        power = (2 * (start - rate * te)).exp()
        # weighted line through (M² − 2 − |S|²) / 2|S|², the distance of ln|S| from the fit
        weights = power.square() / (power + 1)
        total = weights.sum(-1, keepdim=True).clamp_min(1e-30)
        pull = power * (excess - power) / (2 * (power + 1)) / total
        weights = weights / total
        mean_te = (weights * te).sum(-1, keepdim=True)
        spread = (weights * (te - mean_te) ** 2).sum(-1, keepdim=True).clamp_min(1e-12)
        slope = (pull * (te - mean_te)).sum(-1, keepdim=True) / spread
        slope = slope.clamp(-1 / (te[-1] - te[0]), 1 / (te[-1] - te[0]))
        level = pull.sum(-1, keepdim=True).clamp(-0.5, 0.5) + start - rate * mean_te
        fastest = (start - rate * te[0]).clamp_min(1.0) / (te[1] - te[0])
        rate = torch.minimum(rate - slope, fastest).clamp(0, 5 / float(te[0]))
        start = level + rate * mean_te
    return start, rate


def _noise(signal: Tensor, fitted: Tensor, first: Tensor, mask: Tensor) -> float:
    """σ of the signal: from the median misfit of the decay in the quarter of the voxels with most
    signal left, bounded by what neighbours differ by.

    The misfit's sum of squares over σ² is χ² distributed with E − 2 degrees of freedom.
    """
    spatial = noise_level(first, mask)
    freedom = signal.shape[1] - 2
    if freedom < 1 or not signal.shape[0]:
        return spatial
    step = max(1, signal.shape[0] // 300_000)
    signal, fitted = signal[::step], fitted[::step].exp()
    far = fitted[:, -1] >= fitted[:, -1].quantile(0.75)  # far from the floor, if any is
    energy = (signal - fitted)[far].square().sum(-1)
    estimate = math.sqrt(float(energy.median()) / (freedom * (1 - 2 / (9 * freedom)) ** 3))
    return min(estimate, spatial)


def arlo(
    magnitude: Tensor, mask: Tensor, echo_times: Sequence[float], *, longest: float = 0.5
) -> Decay:
    """Auto-regression on linear operations [Pei2015]_: Simpson's rule over echo triplets.

    `magnitude` `(X, Y, Z, E)` with at least three equally spaced echoes (s); raises ValueError
    otherwise. T2* is cut at `longest` (s).
    """
    te = _echo_axis(echo_times, magnitude)
    gaps = te[1:] - te[:-1]
    if len(te) < 3 or (gaps - gaps[0]).abs().max() > 0.02 * gaps[0]:
        raise ValueError("ARLO needs three or more equally spaced echoes; use loglinear")
    step = float(gaps.mean())
    signal = magnitude[mask]
    first, middle, last = signal[:, :-2], signal[:, 1:-1], signal[:, 2:]
    area = step / 3 * (first + 4 * middle + last)
    drop = first - last
    top = (area**2).sum(-1) + step / 3 * (area * drop).sum(-1)
    bottom = step / 3 * (drop**2).sum(-1) + (area * drop).sum(-1)
    shortest = float(te[0]) / 5
    t2star = (top / bottom.clamp_min(1e-30)).clamp(shortest, longest)
    t2star = torch.where(bottom > 0, t2star, torch.full_like(t2star, longest))
    amplitude = (signal * (te / t2star[:, None]).exp()).mean(-1)
    return _decay(1 / t2star, amplitude, mask)


def _echo_axis(echo_times: Sequence[float], magnitude: Tensor) -> Tensor:
    if len(echo_times) < 2:
        raise ValueError("R2* needs two or more echoes")
    return torch.tensor([float(t) for t in echo_times]).to(magnitude)


def _decay(rate: Tensor, amplitude: Tensor, mask: Tensor) -> Decay:
    maps = []
    for values in (rate, 1 / rate, amplitude):
        volume = values.new_zeros(mask.shape)
        volume[mask] = torch.nan_to_num(values)
        maps.append(volume)
    return Decay(*maps)
