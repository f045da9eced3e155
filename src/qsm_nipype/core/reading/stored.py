"""Images as stored: what one is, what of it was measured, and what no image may be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qsm_nipype.errors import DataError


@dataclass(frozen=True)
class StoredEcho:
    """One echo's image as stored: `raw` `(X, Y, Z)`, the header's slope and intercept, sidecar."""

    name: str
    raw: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scaled(self) -> np.ndarray:
        """The values with slope and intercept applied, float32."""
        return self.raw.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def refuse(echoes: Sequence[StoredEcho], what: str) -> None:
    """Raise DataError for images that hold no signed `what` ("phase", "real part") at all.

    That is: complex numbers or colours, no 3-D volume, differing shapes, infinite values, no
    finite one, all the same.
    """
    for echo in echoes:
        refuse_kind(echo)
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
        _refuse_values(echo, what)


def refuse_kind(echo: StoredEcho) -> None:
    """Raise DataError for complex numbers and colours."""
    if echo.raw.dtype.kind == "c":
        raise DataError(
            f"{echo.name}: it holds complex numbers; write their angle as part-phase and their "
            "absolute value as part-mag"
        )
    if echo.raw.dtype.kind not in "iufb":
        raise DataError(
            f"{echo.name}: it holds colours, not numbers; export phase and magnitude again"
        )


def _refuse_values(echo: StoredEcho, what: str) -> None:
    values = echo.raw
    if values.dtype.kind == "f":
        infinite = int(np.isinf(values).sum())
        if infinite:
            raise DataError(
                f"{echo.name}: {infinite} voxels are infinite; convert the image again, or set "
                "them to NaN if nothing was measured there"
            )
        values = values[~np.isnan(values)]
    if values.size == 0:
        raise DataError(f"{echo.name}: no voxel has a finite {what}; convert the image again")
    if values.min() == values.max():
        raise DataError(
            f"{echo.name}: the {what} is {values.flat[0]:g} everywhere; export it again"
        )


def refuse_copies(parts: Mapping[str, Sequence[StoredEcho]]) -> None:
    """Raise DataError where two images are voxel by voxel the same, of one part or of two.

    Magnitudes of two levels (a mask for every echo) are let through.
    """
    seen: dict[str, list[tuple[str, StoredEcho]]] = {}
    for part, echoes in parts.items():
        for echo in echoes:
            for other_part, other in seen.setdefault(_fingerprint(echo.raw), []):
                if not np.array_equal(echo.raw, other.raw, equal_nan=echo.raw.dtype.kind == "f"):
                    continue
                if part != other_part:
                    raise DataError(
                        f"{echo.name}: as the {part} it is the same image as the {other_part}, "
                        f"{other.name}; export both parts again"
                    )
                if part != "magnitude" or np.unique(echo.raw).size > 2:
                    raise DataError(
                        f"{echo.name}: it is the same image as {other.name}, which cannot be at "
                        "two echoes; give each echo its own image"
                    )
            seen[_fingerprint(echo.raw)].append((part, echo))


def _fingerprint(raw: np.ndarray) -> str:
    sample = np.ascontiguousarray(raw.reshape(-1)[:: max(1, raw.size // 5000)])
    same = sample.astype(np.float64) if raw.dtype.kind in "iufb" else sample  # whatever the type
    return f"{raw.shape} {hashlib.blake2b(same.tobytes()).hexdigest()}"


def signed(echo: StoredEcho) -> tuple[StoredEcho, str]:
    """The echo with the negative numbers that were stored as unsigned ones, and a note.

    Of 8, 12, 13, 14 or 16 bits, negative numbers are the upper half: where the middle quarter of
    such a range is empty and both of its ends are in use, they are brought back. The note is
    empty where nothing was done.
    """
    raw = echo.raw
    if raw.dtype.kind == "f":
        finite = np.isfinite(raw)
        sample = raw[finite]
        if not np.array_equal(sample[:5000], np.rint(sample[:5000])):
            return echo, ""
    else:
        finite, sample = np.ones(raw.shape, bool), raw
    if sample.size == 0 or sample.min() < 0:
        return echo, ""
    top = int(sample.max())
    bits = next((b for b in (8, 12, 13, 14, 16) if 0.75 * 2**b < top < 2**b), 0)
    if not bits:
        return echo, ""
    whole = 2**bits
    upper, lower = sample[sample > 0.625 * whole], sample[(sample > 0) & (sample < 0.375 * whole)]
    middle = sample.size - np.count_nonzero(sample == 0) - upper.size - lower.size
    if middle or not 0.05 < upper.size / max(upper.size + lower.size, 1) < 0.95:
        return echo, ""
    # the smallest negative numbers lie at the top
    near_zero = np.count_nonzero(upper > 0.98 * whole) > 0.001 * upper.size
    if not near_zero or min(np.unique(part).size for part in (upper, lower)) < 8:
        return echo, ""
    fixed = raw.astype(np.float32)
    fixed = np.where(finite & (fixed > whole / 2), fixed - whole, fixed)
    note = f"negative values were stored as unsigned {bits}-bit numbers: they were restored"
    return replace(echo, raw=fixed), note


def find_signal(echoes: Sequence[StoredEcho]) -> tuple[np.ndarray, float | None]:
    """Where a phase was measured, and the fill value (as stored) of the rest, if there is one."""
    signal = np.ones(echoes[0].raw.shape, bool)
    for echo in echoes:
        if echo.raw.dtype.kind == "f":
            signal &= np.isfinite(echo.raw)
    first = echoes[0].raw
    for fill in _frequent_values(first[signal]):
        filled = signal.copy()
        for echo in echoes:
            filled &= echo.raw == fill
        # by chance, values at every echo agree in few voxels: a fill covers many
        rest = signal & ~filled
        if np.count_nonzero(filled) >= 0.02 * filled.size and rest.any():
            return rest, fill
    return signal, None


def _frequent_values(values: np.ndarray) -> list[float]:
    """Those of the extremes and zero that 2 % of `values` or more are exactly equal to.

    They must outnumber what lies beside them: coarse levels of phase are frequent, too.
    """
    if values.size == 0:
        return []
    low, high = values.min(), values.max()
    near = 0.01 * (float(high) - float(low))
    found = []
    for candidate in dict.fromkeys((low, values.dtype.type(0), high)):
        equal = np.count_nonzero(values == candidate)
        if equal < 0.02 * values.size:
            continue
        beside = np.abs(values.astype(np.float32) - np.float32(candidate)) <= near
        if equal > np.count_nonzero(beside) - equal:
            found.append(float(candidate))
    return found
