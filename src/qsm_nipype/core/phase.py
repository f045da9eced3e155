"""From phase as the scanner exported it to wrapped radians, with every decision on record.

Order of evidence: the sidecar's `Units`, slope and intercept, the vendors' integer ranges, and
at last one common scaling of all echoes. Echoes are never scaled one by one, because an early
echo need not span a whole turn, and no value is ever made up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qsm_nipype.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

TWO_PI = 2.0 * math.pi
#: Integer ranges in use: lowest and highest value, value of one turn, value of phase 0.
_RANGES: tuple[tuple[str, float, float, float, float], ...] = (
    ("degrees −180…180", -180, 180, 360, 0),
    ("degrees 0…360", 0, 360, 360, 180),
    ("8-bit 0…255", 0, 255, 256, 128),
    ("12-bit −2048…2047", -2048, 2047, 4096, 0),
    ("milliradians −3142…3142 (GE, Philips)", -3142, 3142, 2000 * math.pi, 0),
    ("12-bit 0…4095 (Siemens)", 0, 4095, 4096, 2048),
    ("13-bit −4096…4095 (Siemens)", -4096, 4095, 8192, 0),
    ("milliradians 0…6283", 0, 6283, 2000 * math.pi, 1000 * math.pi),
    ("16-bit −32768…32767", -32768, 32767, 65536, 0),
    ("16-bit 0…65535", 0, 65535, 65536, 32768),
)


@dataclass(frozen=True)
class StoredEcho:
    """One echo's phase as stored: `raw` `(X, Y, Z)`, the header's slope and intercept, sidecar."""

    name: str
    raw: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scaled(self) -> np.ndarray:
        """The values with slope and intercept applied, float32."""
        return self.raw.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


@dataclass(frozen=True)
class PhaseReading:
    """`phase` `(X, Y, Z, E)` in [−π, π], `signal` `(X, Y, Z)` false where nothing was measured.

    `record` says what was found, what was decided and why; it is plain JSON material.
    """

    phase: np.ndarray
    signal: np.ndarray
    record: dict[str, Any]


def read_phase(echoes: Sequence[StoredEcho]) -> PhaseReading:
    """Decide the unit of `echoes` and convert them to radians.

    Voxels that hold NaN, or in every echo the same over-represented lowest value (the −π fill of
    Philips in air), are 'no signal': phase 0 there, and no part in any decision. Raises DataError
    for images that are not 3-D, of differing shapes, without a finite value, or constant.
    """
    _refuse(echoes)
    signal, fill = _signal(echoes)
    spans = [_span(e.raw, signal) for e in echoes]
    scaled = [_affine_span(s, e) for s, e in zip(spans, echoes, strict=True)]
    rule = _decide(echoes, spans, scaled, signal)
    phase = np.empty((*echoes[0].raw.shape, len(echoes)), np.float32, order="F")
    for e, echo in enumerate(echoes):
        values = echo.raw.astype(np.float32) if rule.use_raw else echo.scaled
        values = (values - np.float32(rule.zero)) * np.float32(TWO_PI / rule.turn)
        turned = wrap(np.where(signal, values, 0))
        phase[..., e] = np.where(signal, np.clip(turned, -math.pi, math.pi), 0)
    record = {
        "units_in_sidecar": sorted({str(e.metadata.get("Units", "none")) for e in echoes}),
        "slope": sorted({float(e.slope) for e in echoes}),
        "intercept": sorted({float(e.intercept) for e in echoes}),
        "stored_range": [[float(a), float(b)] for a, b in spans],
        "scaled_range": [[float(a), float(b)] for a, b in scaled],
        "decision": rule.decision,
        "reason": rule.reason,
        "fill_value": fill,
        "voxels_without_signal": int(signal.size - np.count_nonzero(signal)),
        "warnings": list(rule.warnings),
    }
    return PhaseReading(phase, signal, record)


def from_parts(real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase (rad) and magnitude from real and imaginary part of the same shape.

    Raises DataError when neither part is ever negative: then they hold an unknown zero level.
    """
    if min(np.nanmin(real), np.nanmin(imaginary)) >= 0 and np.nanmax(real) > 0:
        raise DataError(
            "the real and imaginary parts have no negative values; export them as signed numbers"
        )
    return np.arctan2(imaginary, real), np.hypot(real, imaginary)


_Phase = TypeVar("_Phase", "Tensor", np.ndarray)


def wrap(phase: _Phase) -> _Phase:
    """`phase` (rad), a tensor or an array, brought into [−π, π] by whole turns.

    What lies on the border may lie beyond it by rounding.
    """
    return phase - TWO_PI * (phase / TWO_PI).round()


@dataclass(frozen=True)
class _Rule:
    decision: str
    reason: str
    turn: float = TWO_PI
    zero: float = 0.0
    use_raw: bool = False
    warnings: tuple[str, ...] = ()


Spans = Sequence[tuple[float, float]]


def _decide(echoes: Sequence[StoredEcho], raw: Spans, scaled: Spans, signal: np.ndarray) -> _Rule:
    """The unit of the data, by the order of evidence in the module's docstring."""
    stated = all(str(e.metadata.get("Units", "")).lower() in ("rad", "radian") for e in echoes)
    rescaled = any(e.slope != 1 or e.intercept != 0 for e in echoes)
    warnings: tuple[str, ...] = ()
    low, high = _joint(scaled)
    if rescaled and _is_radian(*_joint(raw)) and not _is_radian(low, high):
        return _Rule(
            "stored values are radians, the header's slope is ignored",
            f"the stored values span a whole turn, scaled ones only [{low:.4g}, {high:.4g}]",
            use_raw=True,
            warnings=("the header's slope and intercept are wrong",),
        )
    agrees = 0.05 < max(abs(low), abs(high)) <= 1.1 * TWO_PI
    if stated and agrees and not _is_share_of_turn(echoes, low, high, signal):
        return _Rule("radians", "the sidecar says Units: rad and the range agrees")
    if stated:
        warnings = (f"the sidecar says Units: rad, but the values span [{low:.4g}, {high:.4g}]",)
    if _is_radian(low, high):
        return _Rule("radians", "the values span one turn", warnings=warnings)
    if max(abs(low), abs(high)) < 2 * TWO_PI and any(_is_radian(*s) for s in scaled):
        return _Rule("radians", "at least one echo spans exactly one turn", warnings=warnings)
    for name, bottom, top, turn, zero in _RANGES:
        if _fills(low, high, bottom, top):
            return _Rule(name, "the values fill this range", turn, zero, False, warnings)
    if (
        1.05 < max(abs(low), abs(high)) <= math.pi
        and low < 0
        and all(np.issubdtype(e.raw.dtype, np.floating) for e in echoes)
    ):
        warning = f"no unit is given and the values span only [{low:.4g}, {high:.4g}]"
        reason = "floating-point numbers of both signs within ±π"
        return _Rule("radians", reason, warnings=(*warnings, warning))
    return _by_maker(echoes, low, high, warnings) or _jointly(low, high, warnings)


def _by_maker(
    echoes: Sequence[StoredEcho], low: float, high: float, warnings: tuple[str, ...]
) -> _Rule | None:
    """The maker's range where values fit into it without filling it; integers only."""
    maker = str(echoes[0].metadata.get("Manufacturer", "")).lower()
    if not all(np.issubdtype(e.raw.dtype, np.integer) for e in echoes):
        return None
    known = {"siemens": ("Siemens",), "ge": ("GE",), "philips": ("GE, Philips", "12-bit 0…4095")}
    for key, marks in known.items():
        if not maker.startswith(key):
            continue
        for name, bottom, top, turn, zero in _RANGES:
            used = any(mark in name for mark in marks)
            if used and bottom <= low and high <= top and high - low > 0.25 * (top - bottom):
                warning = f"the values span only [{low:.4g}, {high:.4g}]"
                return _Rule(name, f"{maker} data", turn, zero, False, (*warnings, warning))
    return None


def _jointly(low: float, high: float, warnings: tuple[str, ...]) -> _Rule:
    warning = "the unit of the phase is not known: check that it spans one turn"
    if low >= 0:
        reason = f"no known unit; [0, {high:.4g}] is taken as one turn for all echoes"
        return _Rule("joint scaling", reason, high, high / 2, False, (*warnings, warning))
    reach = max(-low, high)
    reason = f"no known unit; ±{reach:.4g} is taken as ±π for all echoes"
    return _Rule("joint scaling", reason, 2 * reach, 0.0, False, (*warnings, warning))


def _is_radian(low: float, high: float) -> bool:
    """Whether [low, high] is one turn: ±π or 0…2π within 1 %."""
    signed = abs(max(-low, high) - math.pi) < 0.01 * math.pi and low < 0
    return signed or (low > -0.01 and abs(high - TWO_PI) < 0.01 * TWO_PI)


def _is_share_of_turn(
    echoes: Sequence[StoredEcho], low: float, high: float, signal: np.ndarray
) -> bool:
    """Whether the values are wrapped phase on a scale of −1…1 or 0…1.

    The ends must be those within 1 %, and one echo fill both as phase that wraps does: the
    outermost 2 % of the range hold 0.5 % of its values or more (2 % if all were alike). A field
    map in radians reaches ±1 in a few voxels only.
    """
    if abs(high - 1) >= 0.01 or min(abs(low + 1), abs(low)) >= 0.01:
        return False
    margin = 0.02 * (high - low)
    for echo in echoes:
        values = echo.scaled[signal]
        ends = (values <= low + margin).mean(), (values >= high - margin).mean()
        if min(ends) >= 0.005:
            return True
    return False


def _fills(low: float, high: float, bottom: float, top: float) -> bool:
    """Whether [low, high] lies in [bottom, top] and reaches its ends within 2 %."""
    slack, margin = 0.02 * (top - bottom), 0.001 * (top - bottom) + 1
    inside = bottom - margin <= low and high <= top + margin
    return inside and low <= bottom + slack and high >= top - slack


def _joint(spans: Spans) -> tuple[float, float]:
    return min(a for a, _ in spans), max(b for _, b in spans)


def _span(raw: np.ndarray, signal: np.ndarray) -> tuple[float, float]:
    values = raw[signal]
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(values.min()), float(values.max())


def _affine_span(span: tuple[float, float], echo: StoredEcho) -> tuple[float, float]:
    ends = sorted(v * echo.slope + echo.intercept for v in span)
    return ends[0], ends[1]


def _refuse(echoes: Sequence[StoredEcho]) -> None:
    for echo in echoes:
        if echo.raw.ndim != 3 or min(echo.raw.shape) < 2:
            raise DataError(
                f"{echo.name}: shape {echo.raw.shape} is not a 3-D volume; "
                "QSM needs the whole 3-D acquisition"
            )
        if echo.raw.shape != echoes[0].raw.shape:
            raise DataError(
                f"{echo.name}: shape {echo.raw.shape} differs from {echoes[0].raw.shape} of "
                f"{echoes[0].name}; give echoes of one acquisition"
            )
        finite = echo.raw[np.isfinite(echo.raw)] if echo.raw.dtype.kind == "f" else echo.raw
        if finite.size == 0:
            raise DataError(f"{echo.name}: no voxel has a finite phase; convert the image again")
        if finite.min() == finite.max():
            raise DataError(
                f"{echo.name}: the phase is {finite.flat[0]:g} everywhere; export it again"
            )


def _signal(echoes: Sequence[StoredEcho]) -> tuple[np.ndarray, float | None]:
    """Where a phase was measured, and the fill value (as stored) of the rest, if there is one."""
    signal = np.ones(echoes[0].raw.shape, bool)
    for echo in echoes:
        if echo.raw.dtype.kind == "f":
            signal &= np.isfinite(echo.raw)
    filled = signal.copy()
    first = echoes[0].raw
    fill = _frequent_value(first[signal])
    if fill is None:
        return signal, None
    for echo in echoes:
        filled &= echo.raw == fill
    # by chance, values at every echo agree in few voxels: a fill covers many
    if np.count_nonzero(filled) < 0.02 * filled.size:
        return signal, None
    rest = signal & ~filled
    return (rest, fill) if rest.any() else (signal, None)


def _frequent_value(values: np.ndarray) -> float | None:
    """The lowest value or zero, whichever 2 % of `values` or more are exactly equal to."""
    for candidate in (values.min(), values.dtype.type(0)):
        if np.count_nonzero(values == candidate) >= 0.02 * values.size:
            return float(candidate)
    return None
