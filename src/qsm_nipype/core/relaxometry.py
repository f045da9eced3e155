"""R2* and T2* from the decay of the magnitude over the echoes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
) -> Decay:
    """Weighted straight line through ln|S| over TE.

    `magnitude` `(X, Y, Z, E)`, `echo_times` in s. The variance of ln|S| is σ²/|S|², so an echo
    weighs |S|²; weights come from the measured signal first and then, `reweightings` times, from
    the fitted decay, which takes away the bias that noisy weights bring. T2* is cut at `longest`
    (s), R2* at 1/`longest`. Raises ValueError for a single echo.
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
    amplitude = (mean_log + rate * mean_te).exp()
    return _decay(rate[:, 0], amplitude[:, 0], mask)


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
