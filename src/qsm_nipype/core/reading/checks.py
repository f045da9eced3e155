"""Refusals of images that are not what their name says: parts exchanged, copies, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.phase import TWO_PI, wrap
from qsm_nipype.core.reading.proof import find_turn, large_scale_phase
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.errors import DataError

#: Field (ppm) by which parts of a head differ at least, of which a phase (rad) shows no more than
#: this: what has less was high-pass filtered; up to the doubtful field it may have been
#: (docs/field-mapping.md has the figures).
FILTERED_FIELD, DOUBTFUL_FIELD, FILTERED_PHASE = 0.016, 0.025, 0.4


def check_magnitude(echo: StoredEcho, volume: np.ndarray, partner: StoredEcho | None) -> None:
    """Refuse a magnitude that is phase, alone or exchanged with its `partner`, or is nothing."""
    finite = np.isfinite(volume)
    if not finite.any() or float(volume[finite].max()) <= 0:
        raise DataError(f"{echo.name}: the magnitude is nowhere above zero; export it again")
    if find_turn(volume, finite) is None:
        values = volume[finite]
        if -float(values[values < 0].sum()) > 0.1 * float(values[values > 0].sum()):
            raise DataError(
                f"{echo.name}: it has many negative values, which no magnitude has; give the "
                "magnitude of this echo, or exchange the names if it is the phase"
            )
        return
    raw = None if partner is None or partner.raw.ndim != 3 else partner.scaled
    if partner is not None and raw is not None and find_turn(raw, np.isfinite(raw)) is None:
        raise DataError(
            f"{partner.name} and {echo.name}: the one named magnitude holds the phase; exchange "
            "the names of the two images (and of their sidecars)"
        )
    raise DataError(f"{echo.name}: it holds phase, not magnitude; give the magnitude of this echo")


def check_echoes_differ(phase: Tensor, source: Sequence[StoredEcho]) -> None:
    """Refuse two echoes of the same phase, however they are stored: noise alone differs."""
    sample = phase[::2, ::2, ::2]
    for e in range(1, phase.shape[3]):
        first, second = sample[..., e - 1], sample[..., e]
        measured = (first != 0) | (second != 0)
        same = wrap(second - first)[measured].abs() < 2e-3
        if bool(measured.any()) and float(same.float().mean()) > 0.999:
            raise DataError(
                f"{source[min(e, len(source) - 1)].name}: its phase is that of the echo before, "
                "voxel by voxel; give each echo its own image"
            )


def check_slices(source: Sequence[StoredEcho], record: Mapping[str, Any]) -> None:
    """Refuse an image of which slices are copies of those before: noise alone differs.

    Where fewer than a tenth are (an image that was padded), there is a warning; where all are, it
    is made without noise and the same along that axis.
    """
    echo = source[0]
    raw = np.nan_to_num(echo.raw) if echo.raw.dtype.kind == "f" else echo.raw
    for axis in range(3):
        rows = np.moveaxis(raw, axis, 0)
        varied = [bool((row != row.flat[0]).any()) for row in rows]
        copies = sum(
            varied[i] and np.array_equal(rows[i - 1], rows[i]) for i in range(1, len(rows))
        )
        if not copies or copies >= sum(varied) - 1:
            continue
        found = f"{copies} of {sum(varied)} slices along axis {axis + 1} are copies of the ones"
        if copies > 0.1 * sum(varied):
            raise DataError(
                f"{echo.name}: {found} before; give the images as acquired, without slices that "
                "were repeated to fill a grid"
            )
        record["warnings"].append(f"{found} before: χ is wrong there")


def check_filter(
    phase: Tensor,
    magnitude: Tensor,
    times: Sequence[float],
    voxel_size: Sequence[float],
    source: StoredEcho,
    units: str | None,
    record: dict[str, Any],
) -> None:
    """Refuse phase without a head's field at large: a filter for SWI took it, and much of χ.

    With the user's `units` there is a warning instead.
    """
    if not times:
        return
    last = max(range(len(times)), key=lambda e: times[e])
    apart = large_scale_phase(phase[..., last].numpy(), magnitude[..., last].numpy(), voxel_size)
    b0 = source.metadata.get("MagneticFieldStrength")
    tesla = float(b0) if isinstance(b0, int | float) and b0 > 0 else 1.5
    unit = TWO_PI * GYROMAGNETIC_RATIO * tesla * times[last]  # rad per ppm
    if apart is None or apart > min(DOUBTFUL_FIELD * unit, 1.5 * FILTERED_PHASE):
        return
    found = (
        f"the phase differs by {apart:.2g} rad only between parts of the head at "
        f"{1000 * times[last]:.3g} ms"
    )
    if units is not None or apart > min(FILTERED_FIELD * unit, FILTERED_PHASE):
        record["warnings"].append(
            f"{found}: it may have been high-pass filtered as for SWI, which takes much of χ away"
        )
        return
    raise DataError(
        f"{source.name}: {found}, as after a high-pass filter for SWI or the removal of the "
        "background field; export the unfiltered phase, or confirm that it is unfiltered by "
        "--phase-units rad (or its unit)"
    )


def check_shapes(first: StoredEcho, others: Sequence[StoredEcho]) -> None:
    for other in others:
        if other.raw.shape != first.raw.shape:
            raise DataError(
                f"{other.name}: shape {other.raw.shape} differs from {first.raw.shape} of "
                f"{first.name}; give images of one acquisition"
            )
