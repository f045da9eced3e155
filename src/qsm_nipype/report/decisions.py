"""How the phase was read, in sentences: each decision with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qsm_nipype.record import PhaseReading


@dataclass(frozen=True)
class Decision:
    """What was decided on reading the phase, and why."""

    what: str
    why: str = ""


def describe_reading(reading: PhaseReading) -> tuple[Decision, ...]:
    """The decisions in `reading`, in the order in which they were made."""
    return tuple(_decisions(reading))


def _decisions(reading: PhaseReading) -> Iterator[Decision]:
    yield Decision(f"Unit: {reading.decision}", reading.reason)
    if reading.kind:
        yield Decision(reading.kind[:1].upper() + reading.kind[1:])
    if reading.stored_range:
        low = min(ends[0] for ends in reading.stored_range)
        high = max(ends[-1] for ends in reading.stored_range)
        yield Decision(f"Stored values {_number(low)} to {_number(high)}", _header(reading))
    if reading.voxels_without_signal:
        fill = reading.fill_value
        why = "" if fill is None else f"they hold the value {_number(fill)} in every echo"
        yield Decision(f"{reading.voxels_without_signal} voxels left out", why)
    if reading.coils > 1:
        yield Decision("Coils combined", f"{reading.coils} coils were stored one by one")
    if reading.alternating_slices_axis:
        axes = ", ".join(str(axis) for axis in reading.alternating_slices_axis)
        yield Decision("Alternating sign undone", f"slices along axis {axes} alternate")
    if reading.sign_agreement is not None:
        yield Decision(
            "Sign inverted" if reading.sign_inverted else "Sign as stored",
            f"agreement of the field with a head in air: {_number(reading.sign_agreement)} "
            "(−1 to 1)",
        )


def _header(reading: PhaseReading) -> str:
    """Units, slope and intercept as headers and sidecars have them."""
    parts = {
        "Units in the sidecar:": reading.units_in_sidecar,
        "slope": _numbers(reading.slope),
        "intercept": _numbers(reading.intercept),
    }
    return "; ".join(f"{word} {', '.join(values)}" for word, values in parts.items() if values)


def _numbers(values: Sequence[float]) -> list[str]:
    return [_number(value) for value in values]


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
