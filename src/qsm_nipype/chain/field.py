"""From phase to the total field: offset, unwrapping, fit over the echoes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qsm_nipype.chain.choices import NONE, Parameters, call
from qsm_nipype.chain.data import ScanParameters, as_echoes
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.core.offsets import Offsets
from qsm_nipype.core.reading.phase import in_radians
from qsm_nipype.core.unwrapping import Unwrapped, quality_map, signal_mask
from qsm_nipype.settings import Settings


def map_field(
    phase: Tensor,
    magnitude: Tensor,
    scan: ScanParameters,
    *,
    offset: str = Settings.offset,
    unwrapping: str = Settings.unwrapping,
    fit: str = Settings.fit,
    parameters: Parameters = NONE,
) -> tuple[Offsets, Unwrapped, FieldMap]:
    """`remove_offset`, `unwrap` and `fit_field`, one after the other, and what each found."""
    common = {"parameters": parameters}
    removed = remove_offset(phase, magnitude, scan, method=offset, **common)
    unwrapped = unwrap(removed.phase, magnitude, scan, method=unwrapping, **common)
    return removed, unwrapped, fit_field(unwrapped.phase, magnitude, scan, method=fit, **common)


def remove_offset(
    phase: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.offset,
    parameters: Parameters = NONE,
) -> Offsets:
    """Take the part of the `phase` away that does not change with echo time.

    `phase` (rad) and `magnitude` `(X, Y, Z, E)`. Raises DataError, UsageError.
    """
    phase, magnitude = as_echoes(phase, magnitude, scan)
    phase = in_radians(phase)
    data = phase, magnitude, scan.echo_times, scan.voxel_size
    return call("offset", method, parameters, *data)


def unwrap(
    phase: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.unwrapping,
    parameters: Parameters = NONE,
) -> Unwrapped:
    """Unwrap the `phase` of every echo where there is signal.

    `phase` (rad) and `magnitude` `(X, Y, Z, E)`; the quality is ROMEO's for every method. Raises
    DataError, UsageError.
    """
    phase, magnitude = as_echoes(phase, magnitude, scan)
    phase = in_radians(phase)
    keep, times = signal_mask(magnitude), scan.echo_times
    known = {"echo_times": times, "magnitude": magnitude, "mask": keep}
    found = call("unwrapping", method, parameters, phase, **known)
    if isinstance(found, Unwrapped):
        return found
    quality = quality_map(phase, times, magnitude=magnitude, mask=keep)
    return Unwrapped(found, quality, keep, "individual", 0, {}, 0)


def fit_field(
    unwrapped: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.fit,
    parameters: Parameters = NONE,
) -> FieldMap:
    """The total field (ppm) and its noise from the `unwrapped` phase of all echoes.

    `unwrapped` (rad) and `magnitude` `(X, Y, Z, E)`. Raises DataError, UsageError.
    """
    unwrapped, magnitude = as_echoes(unwrapped, magnitude, scan)
    return call("fit", method, parameters, unwrapped, magnitude, scan.echo_times, scan.b0)
