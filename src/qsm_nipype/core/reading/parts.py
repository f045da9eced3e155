"""Real and imaginary parts → phase and magnitude, after they proved to be such."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsm_nipype.core.reading.proof import find_turn
from qsm_nipype.core.reading.stored import StoredEcho, refuse, signed
from qsm_nipype.errors import DataError


def from_parts(real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase (rad) and magnitude from real and imaginary part of the same shape.

    Raises DataError when neither part is ever negative: then they hold an unknown zero level.
    """
    if min(np.nanmin(real), np.nanmin(imaginary)) >= 0 and np.nanmax(real) > 0:
        raise DataError(
            "the real and imaginary parts have no negative values; export them as signed numbers"
        )
    return np.arctan2(imaginary, real), np.hypot(real, imaginary)


def read_parts(
    real: Sequence[StoredEcho], imaginary: Sequence[StoredEcho]
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Phase (rad) and magnitude of every echo, each `(X, Y, Z)`, and notes.

    Raises DataError, naming the file, where the parts do not pair, where a part shows the seam of
    phase or is never negative in noise, and where the noise of both differs: the parts of one
    signal have the same.
    """
    if len(real) != len(imaginary):
        raise DataError(
            f"{real[0].name}: {len(real)} real for {len(imaginary)} imaginary volumes; give one "
            "of each per echo"
        )
    refuse([*real, *imaginary], "signal")
    phases, magnitudes, notes = [], [], []
    for stored in zip(real, imaginary, strict=True):
        pair = []
        for echo in stored:
            restored, note = signed(echo)
            pair.append(restored)
            notes += [note] if note else []
        for echo, part in zip(pair, ("real", "imaginary"), strict=True):
            if find_turn(echo.scaled, np.isfinite(echo.scaled)) is not None:
                raise DataError(
                    f"{echo.name}: it holds phase, not the {part} part; give the {part} part, or "
                    "name the files part-phase and part-mag"
                )
        _check_noise(*pair)
        try:
            phase, magnitude = from_parts(*(echo.scaled for echo in pair))
        except DataError as exc:
            raise DataError(f"{pair[0].name}: {exc}") from exc
        phases.append(phase)
        magnitudes.append(magnitude)
    return phases, magnitudes, sorted(set(notes))


def _check_noise(real: StoredEcho, imaginary: StoredEcho) -> None:
    """Refuse parts that are not of one signal, by the quietest tenth of the image (air).

    Blocks of 4³ voxels are chosen by the sum of both parts' power, each in units of its own.
    """
    parts = real.scaled, imaginary.scaled
    if min(parts[0].shape) < 16 or not all(np.isfinite(part).all() for part in parts):
        return
    a, b = (_blocks(part) for part in parts)
    power = sum((x**2).mean(axis=1) / (x**2).mean() for x in (a, b))
    noisy = [np.count_nonzero(x, axis=1) > 0.9 * x.shape[1] for x in (a, b)]
    measured = noisy[0] & noisy[1]
    if np.count_nonzero(measured) < 100:
        return
    air = measured & (power <= np.quantile(power[measured], 0.1))
    if min(_levels(a[air]), _levels(b[air])) < 16:
        return
    below = [float((part[air] < 0).mean()) for part in (a, b)]
    if min(below) < 0.02 and max(below) > 0.2:
        part = (real, imaginary)[int(np.argmin(below))]
        raise DataError(
            f"{part.name}: it is never negative where the other part is noise, as a magnitude is; "
            "give the real and imaginary parts as signed numbers"
        )
    spread = sorted(float(np.sqrt((part[air] ** 2).mean())) for part in (a, b))
    if spread[1] > 1.7 * spread[0]:
        raise DataError(
            f"{real.name}: the noise of the real and the imaginary part differs "
            f"{spread[1] / spread[0]:.2g}-fold, so that their scaling differs; export both with "
            "the same slope"
        )


def _blocks(values: np.ndarray) -> np.ndarray:
    """`values` `(X, Y, Z)` as `(N, 64)`: blocks of 4³ voxels."""
    count = [n // 4 for n in values.shape]
    cut = values[tuple(slice(0, 4 * n) for n in count)].astype(np.float64)
    split = cut.reshape(count[0], 4, count[1], 4, count[2], 4)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 64)


def _levels(values: np.ndarray) -> int:
    return int(np.unique(values[:500]).size)
