"""Which unit phase is in: what its images show, what is stated, and whether both agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qsm_nipype.core.reading.proof import Turn, few_levels, likeness, share_smooth
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.core.reading.units import Unit, nearest, of_header, of_maker, worded
from qsm_nipype.errors import DataError

#: Of the neighbours in unwrapped phase, so many at least differ by less than half a turn.
SMOOTH = 0.7


@dataclass(frozen=True)
class Images:
    """What there is to decide on: echoes, their ranges and the turns they show."""

    echoes: Sequence[StoredEcho]
    magnitude: Sequence[np.ndarray]
    signal: np.ndarray
    spans: Sequence[tuple[float, float]]
    turns: Sequence[Turn | None]

    @property
    def name(self) -> str:
        return self.echoes[0].name

    @property
    def low(self) -> float:
        return min(a for a, _ in self.spans)

    @property
    def high(self) -> float:
        return max(b for _, b in self.spans)


@dataclass(frozen=True)
class Rule:
    """The unit that was decided on, why, and of which values: `use_raw` those without slope."""

    unit: Unit
    reason: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    use_raw: bool = field(default=False, kw_only=True)
    name: str = field(default="", kw_only=True)


def decide(images: Images, wanted: Unit | None) -> Rule:
    """The unit of the data: what the user states, what the images show, what else states it."""
    known = [turn for turn in images.turns if turn is not None]
    _check_unproven(images, bool(known))
    if known:
        return _shown(images, known, wanted)
    if wanted is not None:
        return _stated_only(images, wanted, f"--phase-units says {wanted.name}")
    return _by_witness(images)


def _shown(images: Images, turns: Sequence[Turn], wanted: Unit | None) -> Rule:
    """The unit that the seam of the images shows; others must not contradict it."""
    slopes = {(e.slope, e.intercept) for e in images.echoes}
    rescaled = slopes != {(1.0, 0.0)}
    raw = _without_slope(images)
    use_raw = rescaled and _is_radian(raw) and not _is_radian(turns)
    if use_raw:
        turns = [turn for turn in raw if turn is not None]
    warnings: tuple[str, ...] = ()
    if use_raw:
        warnings = ("the header's slope and intercept are wrong",)
    length = _agreed(images, turns)
    low, high = min(t.low for t in turns), max(t.high for t in turns)
    unit = nearest(low, high, step=max(t.step for t in turns))
    shown = f"neighbours on both sides of a seam show that {_range(low, high)} is one turn"
    if wanted is not None and abs(wanted.turn / length - 1) > 0.02:
        raise DataError(
            f"{images.name}: --phase-units says {wanted.name}, but {shown}; leave the option out"
        )
    warnings += _contradicted(images, length, low, high)
    if use_raw:
        name = "stored values are radians, the header's slope is ignored"
        return Rule(unit or _measured(low, length), shown, (), warnings, use_raw=True, name=name)
    unit = unit or wanted
    if unit is not None:
        return Rule(unit, shown, _beyond(images, unit), warnings)
    _check_whole(images, length, low, high)
    warnings += (
        f"the phase is in no unit in use: {_range(low, high)} is one turn, by its wraps and noise",
    )
    return Rule(_measured(low, length), shown, (), warnings)


def _check_whole(images: Images, length: float, low: float, high: float) -> None:
    """Refuse a range in no unit in use that is not a whole turn: cut off, or folded.

    Values that were cut off lie at both ends, more often there than beside them. Folded phase
    (arctan without its quadrant, absolute values) has half the turn that its sidecar states.
    """
    why = ""
    for echo in images.echoes:
        values = echo.scaled[images.signal]
        ends = [np.count_nonzero(values == end) for end in (low, high)]
        beside = np.count_nonzero(np.abs(np.abs(values - (low + high) / 2) - length / 2)
                                  < 0.02 * length) - sum(ends)  # fmt: skip
        if min(ends) > 0.01 * values.size and sum(ends) > 2 * beside:
            why = f"{sum(ends)} voxels are at its ends, so that what lay beyond was cut off"
    units = {worded(stated(e)) for e in images.echoes} - {None}
    for unit in units:
        if unit is not None and 0.3 * unit.turn < length < 0.95 * unit.turn:
            why = why or f"the sidecar says {unit.name}, of which that is no whole turn"
    if why:
        raise DataError(
            f"{images.name}: its values span {_range(low, high)}, and {why}; export the whole "
            "phase (of complex data its angle, by arctan2), or correct Units in the sidecar"
        )


def _measured(low: float, length: float) -> Unit:
    middle = low + length / 2
    return Unit("one turn as measured", low, length, 0.0 if low < 0 < low + length else middle)


def _agreed(images: Images, turns: Sequence[Turn]) -> float:
    """The turn that all `turns` show. Raises DataError where they differ."""
    lengths = [turn.length for turn in turns]
    if max(lengths) > 1.02 * min(lengths):
        raise DataError(
            f"{images.name}: one turn of phase is {min(lengths):.4g} in one echo and "
            f"{max(lengths):.4g} in another; export all echoes with the same scaling"
        )
    return max(lengths)


def _contradicted(images: Images, length: float, low: float, high: float) -> tuple[str, ...]:
    """A warning where the sidecar states another unit than the image shows."""
    for text in sorted({stated(e) for e in images.echoes}):
        unit = worded(text)
        if unit is not None and abs(unit.turn / length - 1) > 0.02:
            return (f"the sidecar says Units: {text}, but the values span {_range(low, high)}",)
    return ()


def _beyond(images: Images, unit: Unit) -> tuple[str, ...]:
    """A note for echoes beyond a turn. Raises DataError for one that is in another unit."""
    far = []
    for e, (echo, turn, (low, high)) in enumerate(
        zip(images.echoes, images.turns, images.spans, strict=True)
    ):
        if turn is not None:
            continue
        small, large = high - low < 0.01 * unit.turn, high - low > 1.02 * unit.turn
        if small or (large and _share_smooth(images, e, unit.turn / 2) < SMOOTH):
            raise DataError(
                f"{echo.name}: its values span {_range(low, high)}, but one turn is "
                f"{unit.turn:.4g} in the other echoes; export all echoes with the same scaling"
            )
        far += [echo.name] if large else []
    return (f"{', '.join(far)}: values beyond one turn were brought back into it",) if far else ()


def _share_smooth(images: Images, echo: int, limit: float) -> float:
    """The share of neighbours with signal in an echo that differ by less than `limit`."""
    where = images.signal
    if echo < len(images.magnitude) and images.magnitude[echo].max() > 0:
        magnitude = np.nan_to_num(images.magnitude[echo])
        where = where & (magnitude > 0.2 * np.quantile(magnitude[where], 0.98))
    return share_smooth(images.echoes[echo].scaled, where, limit)


def _without_slope(images: Images) -> list[Turn | None]:
    """The turns of the stored values, before slope and intercept."""
    found: list[Turn | None] = []
    for turn, e in zip(images.turns, images.echoes, strict=True):
        if turn is None or e.slope == 0:
            found.append(None)
            continue
        ends = sorted((end - e.intercept) / e.slope for end in (turn.low, turn.high))
        found.append(Turn(ends[0], ends[1], turn.step / abs(e.slope), turn.across))
    return found


def _is_radian(turns: Sequence[Turn | None]) -> bool:
    """Whether every turn is that of radians, ±π or 0…2π."""
    known = [t for t in turns if t is not None]
    units = [nearest(t.low, t.high, step=t.step) for t in known]
    return bool(units) and all(u is not None and u.name == "radians" for u in units)


def _check_unproven(images: Images, others: bool) -> None:
    """Raise DataError for echoes without a seam that are seen to be something else."""
    for e, (echo, turn) in enumerate(zip(images.echoes, images.turns, strict=True)):
        if turn is not None:
            continue
        if few_levels(echo.raw[images.signal]):
            raise DataError(
                f"{echo.name}: it holds a few different values only, as a mask or labels do; give "
                "the phase image of this echo"
            )
        kind = ""
        if e < len(images.magnitude):
            kind = likeness(echo.scaled, images.magnitude[e], images.signal)
        if kind:
            there = "the other echoes are phase" if others else "it has no wraps"
            raise DataError(
                f"{echo.name}: it looks like {kind}, not like phase ({there}, and it follows the "
                "magnitude); give the phase image of this echo"
            )


def _by_witness(images: Images) -> Rule:
    """The unit that header, sidecar or maker state of phase without a seam. Raises DataError."""
    texts = {stated(e) for e in images.echoes} - {""}
    unit = worded(next(iter(texts))) if len(texts) == 1 else None
    if unit is not None:
        return _stated_only(images, unit, f"the sidecar says Units: {next(iter(texts))}")
    headers = [of_header(e.slope, e.intercept) for e in images.echoes]
    if headers[0] is not None and all(u == headers[0] for u in headers):
        return _stated_only(images, headers[0], "slope and intercept make one turn")
    maker = str(images.echoes[0].metadata.get("Manufacturer", ""))
    whole = all(np.issubdtype(e.raw.dtype, np.integer) for e in images.echoes)
    unit = of_maker(maker, images.low, images.high) if whole else None
    if unit is not None:
        warning = f"the values span only {_range(images.low, images.high)}"
        return Rule(unit, f"{maker} data", (), (warning,))
    raise DataError(
        f"{images.name}: nothing shows what a turn of phase is (values "
        f"{_range(images.low, images.high)} without wraps, no unit in the sidecar); if this is "
        "phase, state its unit by --phase-units rad, mrad, deg, cycles, or the range of one turn "
        "as in --phase-units -4096..4095, otherwise give the phase image"
    )


def _stated_only(images: Images, unit: Unit, why: str) -> Rule:
    """`unit` where the values can be phase in it, wrapped or not. Raises DataError."""
    low, high, turn = images.low, images.high, unit.turn
    if high - low < 0.01 * turn:
        raise DataError(
            f"{images.name}: {why}, but the values span {_range(low, high)}, not a hundredth of a "
            "turn; state what a turn is by --phase-units, or correct Units in the sidecar"
        )
    if max(abs(low - unit.zero), abs(high - unit.zero)) <= 1.01 * turn and high - low <= (
        1.01 * turn
    ):
        return Rule(unit, f"{why} and the range agrees")
    for e, echo in enumerate(images.echoes):
        share = _share_smooth(images, e, turn / 2)
        if share < SMOOTH:
            raise DataError(
                f"{echo.name}: {why}, but the values span {_range(low, high)}, and "
                f"{100 * (1 - share):.0f} % of neighbours differ by over half a turn; correct the "
                "unit, or state it by --phase-units"
            )
    note = f"the phase was unwrapped ({_range(low, high)}): it is brought back into one turn"
    return Rule(unit, f"{why} and neighbours differ by less than half a turn", (note,))


def stated(echo: StoredEcho) -> str:
    return str(echo.metadata.get("Units", "")).strip()


def _range(low: float, high: float) -> str:
    return f"[{low:.4g}, {high:.4g}]"
