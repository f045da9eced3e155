"""One acquisition as stored → phase in radians and magnitude of all echoes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core.offsets import combine_coils
from qsm_nipype.core.reading.agreement import check_agreement
from qsm_nipype.core.reading.checks import (
    check_echoes_differ,
    check_filter,
    check_magnitude,
    check_shapes,
    check_slices,
)
from qsm_nipype.core.reading.parts import read_parts
from qsm_nipype.core.reading.phase import read_phase
from qsm_nipype.core.reading.polarity import shows_sign, sign_agreement, undo_alternations
from qsm_nipype.core.reading.stored import StoredEcho, refuse_copies, refuse_kind
from qsm_nipype.errors import DataError

#: Correlation below which an inverted sign is believed (see `sign_agreement`).
INVERTED_SCORE = -0.3


@dataclass(frozen=True)
class Acquisition:
    """`phase` (rad, wrapped) and `magnitude`, both `(X, Y, Z, E)`, and the decisions' record."""

    phase: Tensor
    magnitude: Tensor
    echo_times: tuple[float, ...]
    record: dict[str, Any]


def read_acquisition(
    parts: Mapping[str, Sequence[StoredEcho]],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    coils: int = 1,
    sign: str = "auto",
    units: str | None = None,
) -> Acquisition:
    """Phase and magnitude from the stored `parts` ("phase", "magnitude", "real", "imaginary").

    With `coils` > 1 the files run over the coils of the first echo, then of the second, and are
    combined. `sign` "auto" inverts the phase if the field it shows is clearly that of a
    paramagnetic head (`sign_agreement` < −0.3) that is in view (`shows_sign`). `units` states the
    unit of the phase (`units`). Raises DataError for what cannot be read, and for what
    is not what its part says: copies, exchanged parts, filtered phase.
    """
    refuse_copies(parts)
    phase, magnitude, record = _decode(parts, units)
    record["errors"] = []
    source = list(parts.get("phase", parts.get("real", ())))
    check_slices(source, record)
    times = _echo_times(source, coils)
    if _is_difference(source, parts):
        pair = [float(source[0].metadata[f"EchoTime{n}"]) for n in (1, 2)]
        times = (pair[1] - pair[0],)
        magnitude = magnitude.log().mean(dim=-1, keepdim=True).exp()  # geometric mean
        record["kind"] = "phase difference of two echoes: used as one echo at TE2 − TE1"
    if phase.shape != magnitude.shape:
        raise DataError(
            f"{source[0].name}: {phase.shape[3]} phase volumes for {magnitude.shape[3]} "
            "magnitude volumes; give one of each per echo"
        )
    if coils == 1:
        check_echoes_differ(phase, source)
    if coils == 1 and times and len(times) != phase.shape[3]:
        raise DataError(
            f"{source[0].name}: {phase.shape[3]} phase volumes for {len(times)} echo times; give "
            "one volume and one EchoTime per echo"
        )
    if coils > 1:
        phase, magnitude = _combine(phase, magnitude, times, voxel_size, coils)
        record["coils"] = coils
    check_filter(phase, magnitude, times, voxel_size, source[0], units, record)
    phase, axes = undo_alternations(phase, magnitude)
    record["notes"] += [f"every other slice along axis {a} was turned by π: undone" for a in axes]
    record["alternating_slices_axis"] = axes
    check_agreement(phase, magnitude, times, voxel_size, record)
    phase = _signed(phase, magnitude, voxel_size, b0_dir, sign, record)
    record["echo_times"] = list(times)
    return Acquisition(phase, magnitude, times, record)


def _decode(
    parts: Mapping[str, Sequence[StoredEcho]], units: str | None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    if "phase" in parts:
        return _decode_phase(parts["phase"], parts.get("magnitude", ()), units)
    if not parts.get("real") or not parts.get("imaginary"):
        raise DataError("no phase was given; name phase files, or real and imaginary files")
    check_shapes(parts["real"][0], parts["imaginary"])
    phases, magnitudes, notes = read_parts(parts["real"], parts["imaginary"])
    record: dict[str, Any] = {
        "decision": "real and imaginary parts",
        "reason": "such files were given",
        "notes": notes,
        "warnings": [],
    }
    return torch.nan_to_num(_stack(phases)), _clean(_stack(magnitudes)), record


def _decode_phase(
    stored: Sequence[StoredEcho], partners: Sequence[StoredEcho], units: str | None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Phase with its magnitude, which must not be phase itself. Raises DataError."""
    if not partners:
        raise DataError(
            f"{stored[0].name}: there is no magnitude for this phase; the fit is weighted by it, "
            "so give the magnitude of the same echoes"
        )
    check_shapes(stored[0], partners)
    for echo in partners:
        refuse_kind(echo)
    volumes = [echo.scaled for echo in partners]
    for number, (echo, volume) in enumerate(zip(partners, volumes, strict=True)):
        check_magnitude(echo, volume, stored[number] if number < len(stored) else None)
    reading = read_phase(stored, volumes, units=units)
    signal = torch.from_numpy(reading.signal).unsqueeze(-1)
    magnitude = torch.where(signal, _stack(volumes), 0.0)
    return torch.from_numpy(reading.phase), _clean(magnitude), reading.record


def _stack(volumes: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack([v.astype(np.float32, copy=False) for v in volumes], axis=-1))


def _clean(magnitude: Tensor) -> Tensor:
    return torch.nan_to_num(magnitude, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)


def _is_difference(source: Sequence[StoredEcho], parts: Mapping[str, Any]) -> bool:
    sidecar = source[0].metadata
    return (
        len(source) == 1
        and len(parts.get("magnitude", ())) in (1, 2)
        and "EchoTime1" in sidecar
        and "EchoTime2" in sidecar
    )


def _echo_times(source: Sequence[StoredEcho], coils: int) -> tuple[float, ...]:
    """Echo times (s) from the sidecars; empty where they do not say."""
    found = [e.metadata.get("EchoTime") for e in source[::coils]]
    flat: list[float] = []
    for value in found:
        if value is None:
            return ()
        flat = [float(v) for v in value] if isinstance(value, list | tuple) else [*flat, value]
    return tuple(float(t) for t in flat)


def _combine(
    phase: Tensor,
    magnitude: Tensor,
    times: Sequence[float],
    voxel_size: Sequence[float],
    coils: int,
) -> tuple[Tensor, Tensor]:
    echoes = phase.shape[3] // coils
    if echoes * coils != phase.shape[3] or len(times) != echoes:
        raise DataError(
            f"{phase.shape[3]} volumes do not make {coils} coils for {len(times)} echo times; "
            "give every coil of every echo, with its echo time"
        )
    grid = (*phase.shape[:3], echoes, coils)
    return combine_coils(phase.reshape(grid), magnitude.reshape(grid), times, voxel_size)


def _signed(
    phase: Tensor,
    magnitude: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    sign: str,
    record: dict[str, Any],
) -> Tensor:
    """Positive phase for a positive field shift, as asked or as estimated from the head."""
    score = sign_agreement(phase, magnitude, voxel_size, b0_dir)
    record["sign_agreement"] = round(score, 3)
    shown = shows_sign(magnitude, voxel_size, b0_dir)
    inverted = shown and score < INVERTED_SCORE
    invert = sign == "negative" or (sign == "auto" and inverted)
    record["sign_inverted"] = invert
    if sign == "auto" and inverted:
        record["notes"].append(
            f"the phase was stored with inverted sign (agreement {score:.2f}): turned around"
        )
    elif sign == "auto" and (not shown or score < -INVERTED_SCORE):
        record["warnings"].append(_sign_warning(score, shown))
    elif sign != "auto" and shown and (-score if invert else score) < INVERTED_SCORE:
        record["errors"].append(
            f"with --phase-sign {sign} the head is diamagnetic (agreement {score:.2f}): χ is "
            "upside down; leave the option out, or check the orientation in the header"
        )
    return -phase if invert else phase


def _sign_warning(score: float, shown: bool) -> str:
    """What a reader should know about a sign that was not simply confirmed."""
    why = (
        "the field of view may cut the head, the phase be high-pass filtered as for SWI, or the "
        "orientation in the header wrong"
        if shown
        else "the slab is too thin for that"
    )
    return (
        f"the sign of the phase could not be confirmed (agreement {score:.2f}; {why}): it is left "
        "as stored; veins and the globus pallidus must be bright on the map, if they are dark use "
        "--phase-sign negative"
    )
