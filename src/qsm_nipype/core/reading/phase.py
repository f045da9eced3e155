"""From phase as the scanner exported it to wrapped radians, with every decision on record.

What a turn is, is proven by the image itself (`proof.find_turn`) or stated: by the user, the
sidecar's `Units`, slope and intercept, or the maker's integers. What is neither is refused: a
wrong unit is a wrong map. Echoes are never scaled one by one, because an early echo need not span
a whole turn, and no value is ever made up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qsm_nipype.core.phase import TWO_PI, wrap
from qsm_nipype.core.reading.decision import SMOOTH, Images, decide, stated
from qsm_nipype.core.reading.proof import find_turn, share_smooth
from qsm_nipype.core.reading.stored import StoredEcho, find_signal, refuse, signed
from qsm_nipype.core.reading.units import parse_units
from qsm_nipype.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PhaseReading:
    """`phase` `(X, Y, Z, E)` in [−π, π], `signal` `(X, Y, Z)` false where nothing was measured.

    `record` says what was found, what was decided and why; it is plain JSON material.
    """

    phase: np.ndarray
    signal: np.ndarray
    record: dict[str, Any]


def read_phase(
    echoes: Sequence[StoredEcho],
    magnitude: Sequence[np.ndarray] = (),
    *,
    units: str | None = None,
) -> PhaseReading:
    """Decide the unit of `echoes` and convert them to radians.

    `magnitude` of the same echoes, each `(X, Y, Z)`, tells phase from what is not. `units` is the
    user's statement (`units.parse_units`). Voxels that hold NaN, or in every echo the same
    over-represented value at an end of the range or zero (the −π fill of Philips in air), are 'no
    signal': phase 0 there, and no part in any decision. Already unwrapped phase is brought back
    into one turn. Raises DataError for images that are not 3-D, of differing shapes, infinite,
    without a finite value, or constant; and for those that show and state no unit, contradict
    the one that is stated, or are no phase.
    """
    refuse(echoes, "phase")
    restored = [signed(echo) for echo in echoes]
    echoes = [echo for echo, _ in restored]
    signal, fill = find_signal(echoes)
    spans = [_affine_span(_span(e.raw, signal), e) for e in echoes]
    images = Images(
        echoes, magnitude, signal, spans, [find_turn(e.scaled, signal) for e in echoes]
    )
    rule = decide(images, None if units is None else parse_units(units))
    phase = np.empty((*echoes[0].raw.shape, len(echoes)), np.float32, order="F")
    for e, echo in enumerate(echoes):
        values = echo.raw.astype(np.float32) if rule.use_raw else echo.scaled
        values = (values - np.float32(rule.unit.zero)) * np.float32(TWO_PI / rule.unit.turn)
        turned = wrap(np.where(signal, values, 0))
        phase[..., e] = np.where(signal, np.clip(turned, -math.pi, math.pi), 0)
    stored = [_span(e.raw, signal) for e in echoes]
    record = {
        "units_in_sidecar": sorted({stated(e) or "none" for e in echoes}),
        "slope": sorted({float(e.slope) for e in echoes}),
        "intercept": sorted({float(e.intercept) for e in echoes}),
        "stored_range": [[float(a), float(b)] for a, b in stored],
        "scaled_range": [[float(a), float(b)] for a, b in spans],
        "decision": rule.name or rule.unit.name,
        "reason": rule.reason,
        "fill_value": fill,
        "voxels_without_signal": int(signal.size - np.count_nonzero(signal)),
        "notes": [*sorted({note for _, note in restored if note}), *rule.notes],
        "warnings": list(rule.warnings),
    }
    return PhaseReading(phase, signal, record)


def in_radians(phase: Tensor) -> Tensor:
    """`phase` `(X, Y, Z, E)` in rad, brought back into one turn where it was unwrapped.

    Raises DataError for values beyond a turn that are no radians: whole numbers, or neighbours of
    which many differ by over half a turn.
    """
    values = phase.detach().cpu().numpy()
    reach = float(np.abs(values).max())
    if reach <= 1.01 * TWO_PI:
        return phase
    measured = np.abs(values).sum(axis=3) > 0
    share = min(share_smooth(v, measured, math.pi) for v in np.moveaxis(values, 3, 0))
    if share < SMOOTH or np.array_equal(values, np.rint(values)):
        raise DataError(
            f"phase: values up to {reach:.4g} are no radians; multiply by 2π and divide by the "
            "length of one turn"
        )
    return wrap(phase)


def _span(raw: np.ndarray, signal: np.ndarray) -> tuple[float, float]:
    values = raw[signal]
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(values.min()), float(values.max())


def _affine_span(span: tuple[float, float], echo: StoredEcho) -> tuple[float, float]:
    ends = sorted(v * echo.slope + echo.intercept for v in span)
    return ends[0], ends[1]
