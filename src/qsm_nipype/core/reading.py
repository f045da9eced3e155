"""One acquisition as stored → phase in radians and magnitude of all echoes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core.offsets import combine_coils
from qsm_nipype.core.phase import StoredEcho, from_parts, read_phase
from qsm_nipype.core.polarity import shows_sign, sign_agreement, undo_alternations
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
) -> Acquisition:
    """Phase and magnitude from the stored `parts` ("phase", "magnitude", "real", "imaginary").

    With `coils` > 1 the files run over the coils of the first echo, then of the second, and are
    combined. `sign` "auto" inverts the phase if the field it shows is clearly that of a
    paramagnetic head (`sign_agreement` < −0.3) that is in view (`shows_sign`). Raises DataError
    for what cannot be read.
    """
    phase, magnitude, record = _decode(parts)
    source = list(parts.get("phase", parts.get("real", ())))
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
    if coils > 1:
        phase, magnitude = _combine(phase, magnitude, times, voxel_size, coils)
        record["coils"] = coils
    phase, axes = undo_alternations(phase, magnitude)
    record["warnings"] += [
        f"every other slice along axis {a} was turned by π: undone" for a in axes
    ]
    record["alternating_slices_axis"] = axes
    phase = _signed(phase, magnitude, voxel_size, b0_dir, sign, record)
    record["echo_times"] = list(times)
    return Acquisition(phase, magnitude, times, record)


def _decode(
    parts: Mapping[str, Sequence[StoredEcho]],
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    if "phase" in parts:
        if not parts.get("magnitude"):
            raise DataError(
                f"{parts['phase'][0].name}: there is no magnitude for this phase; the fit is "
                "weighted by it, so give the magnitude of the same echoes"
            )
        reading = read_phase(parts["phase"])
        magnitude = _stack([e.scaled for e in parts["magnitude"]])
        _same_shape(parts["phase"][0], parts["magnitude"])
        signal = torch.from_numpy(reading.signal).unsqueeze(-1)
        magnitude = torch.where(signal, magnitude, 0.0)
        return torch.from_numpy(reading.phase), _clean(magnitude), reading.record
    if not parts.get("real") or not parts.get("imaginary"):
        raise DataError("no phase was given; name phase files, or real and imaginary files")
    _same_shape(parts["real"][0], parts["imaginary"])
    if len(parts["real"]) != len(parts["imaginary"]):
        raise DataError(
            f"{parts['real'][0].name}: {len(parts['real'])} real for "
            f"{len(parts['imaginary'])} imaginary volumes; give one of each per echo"
        )
    pairs = [
        from_parts(r.scaled, i.scaled)
        for r, i in zip(parts["real"], parts["imaginary"], strict=True)
    ]
    record: dict[str, Any] = {
        "decision": "real and imaginary parts",
        "reason": "such files were given",
        "warnings": [],
    }
    phase = torch.nan_to_num(_stack([p for p, _ in pairs]))
    return phase, _clean(_stack([m for _, m in pairs])), record


def _stack(volumes: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack([v.astype(np.float32, copy=False) for v in volumes], axis=-1))


def _clean(magnitude: Tensor) -> Tensor:
    return torch.nan_to_num(magnitude, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)


def _same_shape(first: StoredEcho, others: Sequence[StoredEcho]) -> None:
    for other in others:
        if other.raw.shape != first.raw.shape:
            raise DataError(
                f"{other.name}: shape {other.raw.shape} differs from {first.raw.shape} of "
                f"{first.name}; give images of one acquisition"
            )


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
    decidable = sign == "auto" and shows_sign(magnitude, voxel_size, b0_dir)
    invert = sign == "negative" or (decidable and score < INVERTED_SCORE)
    record["sign_inverted"] = invert
    if sign == "auto" and (not decidable or score < -INVERTED_SCORE):
        record["warnings"].append(_sign_warning(score, decidable))
    return -phase if invert else phase


def _sign_warning(score: float, decidable: bool) -> str:
    """What a reader should know about a sign that was not simply confirmed."""
    if decidable and score < INVERTED_SCORE:
        return f"the phase was stored with inverted sign (agreement {score:.2f}): turned around"
    why = (
        "the field of view may cut the head, the phase be high-pass filtered as for SWI, or the "
        "orientation in the header wrong"
        if decidable
        else "the slab is too thin for that"
    )
    return (
        f"the sign of the phase could not be confirmed (agreement {score:.2f}; {why}): it is left "
        "as stored; veins and the globus pallidus must be bright on the map, if they are dark use "
        "--phase-sign negative"
    )
