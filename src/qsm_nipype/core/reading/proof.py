"""What the values of an image prove: that it is phase, and what a turn is; or that it is not.

Phase is an angle. Where its values end on one side they go on at the other: next to a voxel at
the highest value lie, as often as one just below it, voxels at the lowest. So it is at a wrap in
tissue, and so it is in the noise of air, which fills a turn evenly. No magnitude, field map,
unwrapped or masked image has such a seam, and only a whole turn has it at both of its ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qsm_nipype.core.reading.units import nearest

#: Voxels at either end of the range that are asked for their neighbours: fewest, and usual.
_FEWEST, _ASKED = 30, 100
#: They lie in this share of the range at its end, or the end is not filled.
_DEPTH = 0.03
#: Share of their neighbours that lies across the seam, and on this side of it, at least; and how
#: many times more there may be on one side than on the other.
_ACROSS, _RATIO = 0.08, 5.0
#: An image of fewer levels is a mask or a map of labels.
_LEVELS = 16


@dataclass(frozen=True)
class Turn:
    """One turn of phase as an image shows it: from `low` to `high`, in steps of `step`.

    `across` is the smaller of the shares of neighbours across the seam from its two sides.
    """

    low: float
    high: float
    step: float
    across: float

    @property
    def length(self) -> float:
        """Of a turn: the highest value lies one step below the lowest of the next."""
        return self.high - self.low + self.step


def find_turn(values: np.ndarray, signal: np.ndarray) -> Turn | None:
    """The turn of phase that `values` `(X, Y, Z)` have a seam for; None: they show none.

    Only voxels of `signal` `(X, Y, Z)` count. The range is that of all values, or that of all
    but one in a thousand (a few voxels may be damaged).
    """
    inside = values[signal]
    asked = max(_FEWEST, min(_ASKED, inside.size // 200), inside.size // 5000)
    if inside.size < 1000 or few_levels(inside):
        return None
    rank = [0, asked, inside.size - 1 - asked, inside.size - 1]
    low, near_low, near_high, high = (float(v) for v in np.partition(inside, rank)[rank])
    for a, b in _ranges(inside, low, high):
        if near_low - a > _DEPTH * (b - a) or b - near_high > _DEPTH * (b - a):
            continue
        within = signal & (values >= a) & (values <= b) if (a, b) != (low, high) else signal
        ends = within & (values <= near_low), within & (values >= near_high)
        shares = [_across(values, within, end, (a, b), e == 1) for e, end in enumerate(ends)]
        if min(shares) > 0:
            return Turn(a, b, smallest_step(inside), min(shares))
    return _by_jumps(values, signal, Turn(low, high, smallest_step(inside), 0.0))


def _by_jumps(values: np.ndarray, signal: np.ndarray, whole: Turn) -> Turn | None:
    """The turn of a unit in use, where few voxels reach its ends but neighbours jump by it.

    Of a smooth image with few wraps, neighbours differ by little or by almost a turn, not by
    half of one. How long the turn is, the ends do not tell to a hundredth: so the unit must be
    one in use.
    """
    unit = nearest(whole.low, whole.high, tolerance=0.02, step=whole.step)
    if unit is None:
        return None
    jumps = halves = 0
    for axis in range(3):
        n = values.shape[axis]
        both = signal.take(range(1, n), axis) & signal.take(range(n - 1), axis)
        steps = np.abs(np.diff(values, axis=axis)[both]) / unit.turn
        jumps += int((steps > 0.8).sum())
        halves += int(((steps > 0.35) & (steps < 0.65)).sum())
    if jumps < _FEWEST or jumps < 3 * halves:
        return None
    return Turn(unit.low, unit.high - whole.step, whole.step, jumps / (jumps + halves))


def few_levels(values: np.ndarray) -> bool:
    """Whether `values` are of fewer levels than phase can have: a mask, or labels."""
    sample = values[:: max(1, values.size // 20000)]
    return np.unique(sample).size < _LEVELS and np.unique(values).size < _LEVELS


def smallest_step(values: np.ndarray) -> float:
    """The step of values that come in levels; 0 where there is none, as in fractions."""
    levels = np.unique(values[:: max(1, values.size // 20000)].astype(np.float64))
    if levels.size < 2:
        return 0.0
    gaps = np.diff(levels)
    step = float(gaps.min())
    whole = np.abs(gaps / step - np.rint(gaps / step)).max() < 0.01
    return step if whole and step > 1e-5 * (levels[-1] - levels[0]) else 0.0


def _ranges(inside: np.ndarray, low: float, high: float) -> Iterator[tuple[float, float]]:
    yield low, high
    trimmed = np.sort(inside[:: max(1, inside.size // 200000)])
    cut = trimmed.size // 1000
    a, b = float(trimmed[cut]), float(trimmed[-1 - cut])
    # far outliers only: the last step at either end belongs to the turn
    if b > a and (high - b > _DEPTH * (b - a) or a - low > _DEPTH * (b - a)):
        reach = 0.005 * (b - a)
        kept = inside[(inside >= a - reach) & (inside <= b + reach)]
        yield float(kept.min()), float(kept.max())


def _across(
    values: np.ndarray, within: np.ndarray, end: np.ndarray, ends: tuple[float, float], flip: bool
) -> float:
    """The share of neighbours of `end` in the quarter of the range across the seam; 0: no seam.

    Two axes must show it: of images whose sign alternates from slice to slice, one does.
    """
    here = np.argwhere(end)
    here = here[:: max(1, len(here) // 20000)]
    low, high = ends
    shares = []
    for axis in range(3):
        found = [_beside(values, within, here, axis, step) for step in (-1, 1)]
        place = (np.concatenate(found) - low) / (high - low)
        place = 1 - place if flip else place
        if place.size < _FEWEST:
            continue
        near, far = float((place < 0.25).mean()), float((place > 0.75).mean())
        balanced = near < _RATIO * far and far < _RATIO * near
        shares.append(far if balanced and min(near, far) >= _ACROSS else 0.0)
    return sorted(shares)[-2] if len(shares) > 1 else 0.0


def _beside(
    values: np.ndarray, within: np.ndarray, here: np.ndarray, axis: int, step: int
) -> np.ndarray:
    """Values `(N,)` one `step` along `axis` from the voxels `here` `(M, 3)`, unless equal."""
    there = here.copy()
    there[:, axis] += step
    inside = (there[:, axis] >= 0) & (there[:, axis] < values.shape[axis])
    own, other = tuple(here[inside].T), tuple(there[inside].T)
    return values[other][within[other] & (values[other] != values[own])]


def share_smooth(values: np.ndarray, where: np.ndarray, limit: float) -> float:
    """The share of neighbours in `where` (both `(X, Y, Z)`) that differ by less than `limit`."""
    smooth = total = 0
    for axis in range(3):
        n = values.shape[axis]
        both = where.take(range(1, n), axis) & where.take(range(n - 1), axis)
        steps = np.abs(np.diff(values, axis=axis)[both])
        smooth, total = smooth + int((steps < limit).sum()), total + steps.size
    return smooth / total if total else 0.0


def likeness(values: np.ndarray, magnitude: np.ndarray, signal: np.ndarray) -> str:
    """What an image without a seam is, where it follows the `magnitude`: its kind, or "".

    All `(X, Y, Z)`. A magnitude rises with the magnitude of any echo (correlation over 0.8); a
    real or imaginary part is small wherever there is no signal, of both signs elsewhere, and
    nowhere larger than the magnitude (times a factor).
    """
    v, m = values[signal].astype(np.float64), magnitude[signal].astype(np.float64)
    m = np.nan_to_num(m, nan=0.0, posinf=0.0, neginf=0.0)
    if v.size < _ASKED or v.std() == 0 or m.std() == 0:
        return ""
    if v.min() >= 0 and np.corrcoef(v, m)[0, 1] > 0.8:
        return "a magnitude"
    low, high = np.quantile(m, (0.15, 0.7))
    dark, bright = (m <= low) & (m > 0), m >= high
    air, head = v[dark], v[bright]
    if air.size < _ASKED:
        return ""
    quiet, loud = (float(np.subtract(*np.quantile(x, (0.75, 0.25)))) for x in (air, head))
    if 0 < quiet < 0.1 * loud and abs(np.median(air)) < 0.1 * np.abs(head).max():
        if v.min() >= 0:
            return "a magnitude"
        reach = [float(np.quantile(np.abs(v[w]) / m[w], 0.99)) for w in (dark, bright)]
        return "a real or imaginary part" if reach[0] < 1.5 * reach[1] else ""
    return ""


def large_scale_phase(
    phase: np.ndarray, magnitude: np.ndarray, voxel_size: Sequence[float]
) -> float | None:
    """How far apart (rad) the phase of one part of the head is from that of others: the median.

    Blocks of 12 mm, most of which is signal, against their mean; `phase` (rad), `magnitude`
    `(X, Y, Z)`. None where there are fewer than 60 such blocks.
    """
    edge = [max(2, round(12.0 / float(step))) for step in voxel_size]
    count = [n // b for n, b in zip(phase.shape, edge, strict=True)]
    if min(count) < 1:
        return None
    cut = tuple(slice(0, n * b) for n, b in zip(count, edge, strict=True))
    shape = [k for pair in zip(count, edge, strict=True) for k in pair]
    positive = magnitude[magnitude > 0]
    if positive.size == 0:
        return None
    head = magnitude[cut] > 0.25 * np.quantile(positive[:: max(1, positive.size // 100000)], 0.98)
    total = np.where(head, np.exp(1j * phase[cut]), 0).reshape(shape).sum(axis=(1, 3, 5))
    held = head.reshape(shape).sum(axis=(1, 3, 5))
    full = held > 0.6 * math.prod(edge)
    if np.count_nonzero(full) < 60:
        return None
    blocks = total[full] / np.maximum(np.abs(total[full]), 1e-12)
    return float(np.median(np.abs(np.angle(blocks * np.conj(blocks.mean())))))
