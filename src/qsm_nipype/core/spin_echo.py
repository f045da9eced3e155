"""R2 from multi-echo spin echoes, with the stimulated echoes that imperfect pulses make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.core.swi.filters import low_pass

#: T2 (s) of the dictionary, in equal steps of their logarithm.
T2_RANGE, T2_STEPS = (0.008, 2.0), 72
#: Refocusing angle over the nominal one; beyond 1 it is that as much below.
B1_RANGE, B1_STEPS = (0.6, 1.0), 33
#: T1 (s) of the stimulated echoes: they stay too short for it to matter.
T1 = 1.0
#: Width (mm) of the Gaussian that smooths the transmit field.
B1_SMOOTHING = 6.0
#: Voxels at a time; more than so many are not all asked for B1.
_CHUNK, _MANY = 100_000, 100_000


@dataclass(frozen=True)
class SpinEchoDecay:
    """`r2` (1/s), `t2` (s) and `b1` (refocusing over nominal angle), zero outside the mask."""

    r2: Tensor
    t2: Tensor
    b1: Tensor


def echo_train(t2: Tensor, angle: Tensor, spacing: float, count: int, *, t1: float = T1) -> Tensor:
    """Echoes of a train of equal refocusing pulses: extended phase graphs [Hennig1988]_.

    `t2` (s) and `angle` (rad) are `(N,)`; `spacing` (s) between the `count` echoes. Returns
    `(N, count)`, of 1 without decay and at π. The magnetisation lies along the pulses' axis
    (CPMG), so that all states are real; what recovers by T1 is taken to be crushed.
    """
    e2, e1 = torch.exp(-spacing / 2 / t2)[:, None], math.exp(-spacing / 2 / t1)
    c, s, sine = torch.cos(angle / 2) ** 2, torch.sin(angle / 2) ** 2, torch.sin(angle)
    c, s, sine, cosine = (x[:, None] for x in (c, s, sine, torch.cos(angle)))
    plus, minus, z = (t2.new_zeros(len(t2), count + 2) for _ in range(3))
    plus[:, 0] = minus[:, 0] = 1
    echoes = []
    for _ in range(count):
        plus, minus, z = _half(plus, minus, z, e2, e1)
        plus, minus, z = (
            c * plus + s * minus + sine * z,
            s * plus + c * minus - sine * z,
            cosine * z - 0.5 * sine * (plus - minus),
        )
        plus, minus, z = _half(plus, minus, z, e2, e1)
        echoes.append(plus[:, 0])
    return torch.stack(echoes, -1).abs()


def _half(
    plus: Tensor, minus: Tensor, z: Tensor, e2: Tensor, e1: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Half an echo spacing: decay, and every state one order further."""
    plus, minus = plus * e2, minus * e2
    first = minus[:, 1]
    forward = torch.cat([first[:, None], plus[:, :-1]], 1)
    back = torch.cat([minus[:, 1:], torch.zeros_like(first)[:, None]], 1)
    back[:, 0] = first
    return forward, back, z * e1


def spin_echo_r2(
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    echo_times: Sequence[float],
    refocusing: float = 180.0,
    longest: float = T2_RANGE[1],
) -> SpinEchoDecay:
    """R2 by the best match of a dictionary of echo trains over T2 and B1.

    `magnitude` `(X, Y, Z, E)` of three or more equally spaced echoes (s), of which the first is
    one spacing after the excitation; `refocusing` is the nominal angle in degrees. B1 is found
    voxel by voxel, smoothed over 6 mm, and T2 is found again with it, between the dictionary's
    values by a parabola. T2 is cut at `longest` (s). Slice profiles are taken to be even. Raises
    ValueError for other echo times, or an empty mask.
    """
    te = [float(t) for t in echo_times]
    gaps = [b - a for a, b in zip([0.0, *te], te)]  # noqa: B905  one is longer
    if len(te) < 3 or max(abs(g - gaps[0]) for g in gaps) > 0.02 * gaps[0]:
        raise ValueError("R2 needs three or more echoes at equal steps from the excitation on")
    like = magnitude.new_zeros(())
    times = torch.linspace(math.log(T2_RANGE[0]), math.log(T2_RANGE[1]), T2_STEPS).exp().to(like)
    scales = torch.linspace(*B1_RANGE, B1_STEPS).to(like)
    trains = torch.stack(
        [echo_train(times, _angle(b, refocusing, times), gaps[0], len(te)) for b in scales]
    )
    trains = trains / trains.norm(dim=-1, keepdim=True).clamp_min(1e-30)  # (B1, T2, E)
    smooth = _smooth(*_coarse_b1(magnitude, mask, trains[::2, ::2], scales[::2]), mask, voxel_size)
    signal = magnitude[mask]
    place = ((smooth[mask] - B1_RANGE[0]) / (B1_RANGE[1] - B1_RANGE[0]) * (B1_STEPS - 1)).round()
    place = place.long().clamp(0, B1_STEPS - 1)
    t2 = _best_t2(signal, place, trains, times).clamp_max(longest)
    maps = []
    for values in (1 / t2, t2):
        volume = like.new_zeros(mask.shape)
        volume[mask] = values
        maps.append(volume)
    return SpinEchoDecay(maps[0], maps[1], smooth)


def _angle(scale: Tensor, refocusing: float, like: Tensor) -> Tensor:
    return torch.full_like(like, math.radians(refocusing) * float(scale))


def _coarse_b1(
    magnitude: Tensor, mask: Tensor, trains: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """B1 of the best of `trains` `(B1, T2, E)` times its weight, and the weight, the signal.

    Only every other voxel along each axis is asked where there are many.
    """
    asked = mask
    if int(mask.sum()) > _MANY:
        asked = torch.zeros_like(mask)
        asked[::2, ::2, ::2] = mask[::2, ::2, ::2]
    flat = trains.reshape(-1, trains.shape[-1])
    weight = torch.where(asked, magnitude[..., 0], 0.0)
    weighted = torch.zeros_like(weight)
    signal = magnitude[asked]
    best = [(part @ flat.T).argmax(1) // trains.shape[1] for part in signal.split(_CHUNK)]
    weighted[asked] = scales[torch.cat(best)] * signal[:, 0]
    return weighted, weight


def _smooth(weighted: Tensor, weight: Tensor, mask: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """The transmit field, each voxel weighing as much as its signal."""
    low = low_pass(mask, voxel_size, B1_SMOOTHING, weight)
    return torch.where(mask, low(weighted) / low(weight).clamp_min(1e-30), 0.0)


def _best_t2(signal: Tensor, place: Tensor, trains: Tensor, times: Tensor) -> Tensor:
    """T2 (s) of each voxel `(N, E)` with the B1 at `place`, between the dictionary's values."""
    found = signal.new_empty(len(signal))
    step = math.log(float(times[1] / times[0]))
    for k in place.unique().tolist():
        for index in (place == k).nonzero()[:, 0].split(_CHUNK):
            match = signal[index] @ trains[k].T
            best = match.argmax(1).clamp(1, T2_STEPS - 2)
            a, b, c = (match.gather(1, (best + d)[:, None])[:, 0] for d in (-1, 0, 1))
            bend = (a - 2 * b + c).clamp_max(-1e-30)
            shift = (0.5 * (a - c) / bend).clamp(-1, 1)
            found[index] = times[best] * torch.exp(shift * step)
    return found
