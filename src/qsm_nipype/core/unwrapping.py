"""Phase unwrapping in space and over echoes: ROMEO, and Laplacian unwrapping as an alternative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from qsm_nipype.core import romeo as engine
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.phase import TWO_PI, wrap

#: Regions of fewer voxels than this are shifted by their mean alone.
SMALLEST_REGION = 50


@dataclass(frozen=True)
class Unwrapped:
    """`phase` `(X, Y, Z, E)` in rad, 0 outside `mask`, congruent to the wrapped phase.

    `quality` `(X, Y, Z)` in [0, 1] is ROMEO's mean edge quality of the template echo, `mode` how
    the echoes were unwrapped ("template" or "individual"), `template` which echo led,
    `inconsistency` the magnitude-weighted RMS (rad) of the echoes about a common field for each
    mode that was tried, and `regions` how many separate parts the mask has.
    """

    phase: Tensor
    quality: Tensor
    mask: Tensor
    mode: str
    template: int
    inconsistency: dict[str, float]
    regions: int


def romeo(
    phase: Tensor,
    echo_times: Sequence[float],
    *,
    magnitude: Tensor | None = None,
    mask: Tensor | None = None,
    mode: str = "auto",
    template: int | None = None,
) -> Unwrapped:
    """Unwrap `phase` `(X, Y, Z, E)` in rad by ROMEO [Dymerska2021]_.

    The template echo (default: the first) is unwrapped along the best edges. In "template" mode
    the other echoes follow voxel by voxel from the field of those already unwrapped; the phase
    offset must be removed before. In "individual" mode each echo is unwrapped in space and only
    shifted as a whole. "auto" takes whichever leaves the echoes closer to one common field, and
    tries the individual one only if the template leaves more than 1 rad in a thousandth of the
    signal. `mask` defaults to `signal_mask(magnitude)`. Raises ValueError for unknown modes.
    """
    if mode not in ("auto", "template", "individual"):
        raise ValueError(f"unknown unwrapping mode {mode!r}: choose auto, template or individual")
    times = np.asarray(echo_times, np.float32)
    echoes, shape = echo_first(phase), tuple(phase.shape[:3])
    signal = None if magnitude is None else echo_first(magnitude)
    keep = _working_mask(signal, mask, shape)
    lead = 0 if template is None else template

    first, quality, regions = _unwrap_leader(echoes, signal, times, lead, keep, shape)
    weights = np.ones_like(echoes) if signal is None else signal
    tried: dict[str, float] = {}
    candidates: dict[str, np.ndarray] = {}
    if mode != "individual":
        candidates["template"] = follow_field(echoes, weights, times, lead, first, keep)
        tried["template"], outliers = _spread(candidates["template"], weights, times, keep)
    if mode == "individual" or (mode == "auto" and times.size > 1 and outliers > 1e-3):
        each = _individual(echoes, signal, times, lead, first, keep, shape)
        candidates["individual"] = each
        tried["individual"], _ = _spread(each, weights, times, keep)
    best = min(tried, key=lambda name: tried[name])
    return Unwrapped(
        phase=echo_last(candidates[best], shape).to(phase.device),
        quality=torch.from_numpy(quality.reshape(shape)).to(phase.device),
        mask=torch.from_numpy(keep.reshape(shape)).to(phase.device),
        mode=best,
        template=lead,
        inconsistency=tried,
        regions=regions,
    )


def quality_map(
    phase: Tensor,
    echo_times: Sequence[float],
    *,
    magnitude: Tensor | None = None,
    mask: Tensor | None = None,
    template: int = 0,
) -> Tensor:
    """ROMEO's voxel quality `(X, Y, Z)` in [0, 1]: the mean of a voxel's six edge qualities.

    0 outside `mask` (default: `signal_mask(magnitude)`); meant for masking, too.
    """
    echoes, shape = echo_first(phase), tuple(phase.shape[:3])
    signal = None if magnitude is None else echo_first(magnitude)
    keep = _working_mask(signal, mask, shape)
    how = _qualities(echoes, signal, np.asarray(echo_times, np.float32), template, keep)
    quality = engine.voxel_quality(echoes[template], *how, keep, shape)  # type: ignore[call-arg]
    return torch.from_numpy(quality.reshape(shape)).to(phase.device)


def laplacian(phase: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Unwrap `phase` `(X, Y, Z)` or `(X, Y, Z, E)` in rad by its Laplacian [Schofield2003]_.

    Solves ∇²φ = div(wrapped gradient) with mirrored borders by cosine transforms and returns the
    phase congruent to the input nearest to that solution: exact where neighbours differ by less
    than π, smooth errors elsewhere. With `mask`, edges that leave it do not count.
    """
    if phase.dim() == 4:
        parts = [laplacian(phase[..., e], mask=mask) for e in range(phase.shape[3])]
        return torch.stack(parts, dim=-1)
    divergence = torch.zeros_like(phase)
    for axis in range(3):
        n = phase.shape[axis]
        step = wrap(torch.diff(phase, dim=axis))
        if mask is not None:
            keep = mask.bool()
            step = step * (keep.narrow(axis, 1, n - 1) & keep.narrow(axis, 0, n - 1))
        divergence.narrow(axis, 0, n - 1).add_(step)
        divergence.narrow(axis, 1, n - 1).sub_(step)
    smooth = _solve_poisson(divergence)
    keep = torch.ones_like(phase, dtype=torch.bool) if mask is None else mask.bool()
    smooth = smooth - (smooth - phase)[keep].median()
    return torch.where(keep, phase + TWO_PI * torch.round((smooth - phase) / TWO_PI), 0.0)


def signal_mask(magnitude: Tensor) -> Tensor:
    """Voxels of `magnitude` `(X, Y, Z[, E])` above the noise of air; generous on purpose.

    With air in the image its 10th percentile measures the noise, and the limit is the 99.9th of
    that noise; it is never more than 5 % of the bright tissue. It says where unwrapping starts
    to make sense, not where the brain is.
    """
    freedom = 2 * (magnitude.shape[3] if magnitude.dim() == 4 else 1)
    combined = combined_magnitude(magnitude.float())
    combined = torch.nan_to_num(combined, nan=0.0, posinf=0.0, neginf=0.0)
    positive = combined[combined > 0]
    if positive.numel() == 0:
        return torch.zeros_like(combined, dtype=torch.bool)
    sample = positive[:: max(1, positive.numel() // 200_000)]
    low, high = torch.quantile(sample, torch.tensor([0.1, 0.95], device=sample.device)).tolist()
    return combined > min(low * _chi(freedom, 3.09) / _chi(freedom, -1.2816), 0.05 * high)


def _chi(freedom: int, z: float) -> float:
    """Quantile of the χ distribution at the normal quantile `z` (Wilson and Hilferty)."""
    spread = 2 / (9 * freedom)
    return math.sqrt(freedom * (1 - spread + z * math.sqrt(spread)) ** 3)


def echo_first(x: Tensor) -> np.ndarray:
    """`(X, Y, Z, E)` tensor → contiguous float32 array `(E, X·Y·Z)` for the numba kernels."""
    volume = x.detach().to("cpu", torch.float32)
    if volume.dim() == 3:
        volume = volume.unsqueeze(-1)
    return volume.movedim(-1, 0).contiguous().reshape(volume.shape[-1], -1).numpy()


def echo_last(x: np.ndarray, shape: Sequence[int]) -> Tensor:
    """`(E, X·Y·Z)` array → `(X, Y, Z, E)` tensor (a view)."""
    return torch.from_numpy(x).reshape(x.shape[0], *shape).movedim(0, -1)


def _working_mask(
    signal: np.ndarray | None, mask: Tensor | None, shape: tuple[int, ...]
) -> np.ndarray:
    if mask is not None:
        return np.ascontiguousarray(mask.detach().cpu().numpy().astype(bool)).reshape(-1)
    if signal is None:
        return np.ones(math.prod(shape), bool)
    return signal_mask(echo_last(signal, shape)).numpy().reshape(-1)


_EMPTY = np.zeros(0, np.float32)


def _qualities(
    echoes: np.ndarray, signal: np.ndarray | None, times: np.ndarray, echo: int, keep: np.ndarray
) -> tuple:
    """The arguments that describe edge qualities of one echo to the numba kernels."""
    second, ratio = _EMPTY, np.float32(1.0)
    if times.size > 1:
        other = echo + 1 if echo + 1 < times.size else echo - 1
        second, ratio = echoes[other], np.float32(times[echo] / times[other])
    if signal is None:
        return second, ratio, _EMPTY, np.float32(1.0)
    sample = signal[echo][keep][:: max(1, int(keep.sum()) // 200_000)]
    strong = np.float32(np.quantile(sample, 0.95)) if sample.size else np.float32(1.0)
    return second, ratio, signal[echo], strong


def _unwrap_leader(
    echoes: np.ndarray,
    signal: np.ndarray | None,
    times: np.ndarray,
    lead: int,
    keep: np.ndarray,
    shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray, int]:
    """Unwrap the template echo; returns it with its voxel quality and the number of regions."""
    how = _qualities(echoes, signal, times, lead, keep)
    costs = engine.edge_costs(echoes[lead], *how, keep, shape)  # type: ignore[call-arg]
    quality = engine.voxel_quality(echoes[lead], *how, keep, shape)  # type: ignore[call-arg]
    first = echoes[lead].copy()
    label = engine.grow(first, costs, keep, shape)
    _align_regions(first, label, how[0], how[1])
    return first, quality, int(label.max(initial=0))


def _align_regions(
    first: np.ndarray, label: np.ndarray, second: np.ndarray, ratio: np.floating
) -> None:
    """Shift each region by whole turns, in place.

    With a second echo: to the turns at which it agrees best with the field of the first, which
    settles the turns between regions. With one echo: to a median within half a turn of 0 for the
    largest region, and within half a turn of that one for the others.
    """
    if not label.any():
        return
    sizes, parts = _parts(label)
    largest = int(np.argmax(sizes))
    centre = 0.0
    for number in [largest, *(r for r in parts if r != largest)]:
        members = parts[number]
        level = float(np.median(first[members]))
        nearest = -round((level - centre) / TWO_PI)
        turns = nearest
        if second.size > 0 and members.size >= SMALLEST_REGION:
            sample = members[:: max(1, members.size // 5000)]
            turns = _agreeing_turns(first[sample], second[sample], float(ratio), nearest)
        if turns:
            first[members] += np.float32(TWO_PI * turns)
        if number == largest:
            centre = level + TWO_PI * turns
    _shift_crumbs(first, label, sizes, np.full_like(first, centre))


def _parts(label: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Size of each region (by label), and the voxels of the largest and of all not small."""
    inside = np.flatnonzero(label)
    sizes = np.bincount(label[inside])
    wanted = sizes >= SMALLEST_REGION
    wanted[np.argmax(sizes)] = True
    inside = inside[wanted[label[inside]]]
    inside = inside[np.argsort(label[inside], kind="stable")]
    numbers = np.flatnonzero(wanted & (sizes > 0))
    pieces = np.split(inside, np.cumsum(sizes[numbers])[:-1])
    return sizes, {int(n): piece for n, piece in zip(numbers, pieces, strict=True)}


def _shift_crumbs(x: np.ndarray, label: np.ndarray, sizes: np.ndarray, goal: np.ndarray) -> None:
    """Shift the regions too small for a vote by the turns that bring their mean next to `goal`."""
    small = sizes < SMALLEST_REGION
    small[np.argmax(sizes)] = False
    where = np.flatnonzero(small[label] & (label > 0))
    if where.size == 0:
        return
    gap = np.bincount(label[where], weights=goal[where] - x[where], minlength=sizes.size)
    turns = np.rint(gap / np.maximum(sizes, 1) / TWO_PI)
    x[where] += (TWO_PI * turns[label[where]]).astype(np.float32)


def _agreeing_turns(first: np.ndarray, second: np.ndarray, ratio: float, nearest: int) -> int:
    """Turns near `nearest` at which `first` predicts `second` best (ties: `nearest`)."""

    def disagreement(turns: int) -> float:
        gap = wrap((first + TWO_PI * turns) / ratio - second)
        return float(np.mean(np.abs(gap))) + 0.05 * abs(turns - nearest)

    return min((nearest + k for k in (0, -1, 1, -2, 2)), key=disagreement)


def _individual(
    echoes: np.ndarray,
    signal: np.ndarray | None,
    times: np.ndarray,
    lead: int,
    first: np.ndarray,
    keep: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Unwrap every echo in space; whole turns per region bring it next to the template's field."""
    out = np.zeros_like(echoes)
    for e in range(times.size):
        if e == lead:
            out[e] = np.where(keep, first, 0)
            continue
        how = _qualities(echoes, signal, times, e, keep)
        costs = engine.edge_costs(echoes[e], *how, keep, shape)  # type: ignore[call-arg]
        out[e] = echoes[e]
        label = engine.grow(out[e], costs, keep, shape)
        if not label.any():
            return np.zeros_like(echoes)
        gap = first * (times[e] / times[lead]) - out[e]
        sizes, parts = _parts(label)
        for members in parts.values():
            out[e][members] += np.float32(TWO_PI * np.round(np.median(gap[members]) / TWO_PI))
        _shift_crumbs(out[e], label, sizes, gap + out[e])
        out[e][~keep] = 0
    return out


def follow_field(
    echoes: np.ndarray,
    weights: np.ndarray,
    times: np.ndarray,
    lead: int,
    first: np.ndarray,
    keep: np.ndarray,
) -> np.ndarray:
    """Unwrap each echo onto the field of the echoes before it, nearest echo time first.

    The field is the weighted fit to all echoes unwrapped so far, so that its error shrinks as
    the echo time grows; scaling the template alone would amplify its noise by TE/TE₁.
    """
    order = np.argsort(np.abs(times - times[lead]), kind="stable").astype(np.int64)
    out = np.zeros_like(echoes)
    _follow(echoes, weights, times, order, first, keep, out)
    return out


@njit(cache=True, nogil=True, parallel=True)
def _follow(echoes, weights, times, order, first, keep, out):
    turn = np.float32(TWO_PI)
    for v in prange(keep.size):
        if not keep[v]:
            continue
        lead = order[0]
        out[lead, v] = first[v]
        w = weights[lead, v] ** 2 + np.float32(1e-30)
        top = w * times[lead] * first[v]
        bottom = w * times[lead] ** 2
        for k in range(1, order.size):
            e = order[k]
            expected = top / bottom * times[e]
            value = echoes[e, v]
            value += turn * np.rint((expected - value) / turn)
            out[e, v] = value
            w = weights[e, v] ** 2
            top += w * times[e] * value
            bottom += w * times[e] ** 2


def _spread(
    unwrapped: np.ndarray, weights: np.ndarray, times: np.ndarray, keep: np.ndarray
) -> tuple[float, float]:
    """Weighted RMS (rad) about the common field, and the fraction of signal off by over 1 rad."""
    if times.size == 1:
        return 0.0, 0.0
    t = times[:, None]
    sample = np.flatnonzero(keep)
    sample = sample[:: max(1, sample.size // 500_000)]
    w, phi = weights[:, sample] ** 2, unwrapped[:, sample]
    field = (w * t * phi).sum(0) / np.maximum((w * t * t).sum(0), 1e-30)
    squared = w * (phi - t * field) ** 2
    total = max(float(w.sum(dtype=np.float64)), 1e-30)
    off = squared.sum(0) > w.sum(0)
    return (
        math.sqrt(float(squared.sum(dtype=np.float64)) / total),
        float(w[:, off].sum(dtype=np.float64)) / total,
    )


def _solve_poisson(divergence: Tensor) -> Tensor:
    """φ with ∇²φ = `divergence` and no flow through the borders (zero mean)."""
    spectrum, eigenvalues = divergence, divergence.new_zeros(())
    for axis, n in enumerate(divergence.shape):
        spectrum = _dct(spectrum, axis)
        k = torch.arange(n, device=divergence.device, dtype=divergence.dtype)
        view = [1, 1, 1]
        view[axis] = n
        eigenvalues = eigenvalues + (2 - 2 * torch.cos(math.pi * k / n)).view(view)
    eigenvalues[0, 0, 0] = 1.0
    # the divergence above is Σ(step in − step out) with the sign of +∇², the eigenvalues of −∇²
    spectrum = -spectrum / eigenvalues
    spectrum[0, 0, 0] = 0.0
    for axis in range(3):
        spectrum = _idct(spectrum, axis)
    return spectrum


def _dct(x: Tensor, axis: int) -> Tensor:
    """Cosine transform (type II) along `axis` by one complex FFT of the same length."""
    x = x.movedim(axis, -1)
    n = x.shape[-1]
    shuffled = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    k = torch.arange(n, device=x.device, dtype=x.dtype)
    twist = torch.polar(torch.ones_like(k), -math.pi * k / (2 * n))
    return (torch.fft.fft(shuffled) * twist).real.movedim(-1, axis)


def _idct(x: Tensor, axis: int) -> Tensor:
    """Inverse of `_dct`."""
    x = x.movedim(axis, -1)
    n = x.shape[-1]
    mirrored = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:].flip(-1)], dim=-1)
    k = torch.arange(n, device=x.device, dtype=x.dtype)
    twist = torch.polar(torch.ones_like(k), math.pi * k / (2 * n))
    shuffled = torch.fft.ifft(torch.complex(x, -mirrored) * twist).real
    out = torch.empty_like(shuffled)
    half = (n + 1) // 2
    out[..., ::2] = shuffled[..., :half]
    out[..., 1::2] = shuffled[..., half:].flip(-1)
    return out.movedim(-1, axis)
