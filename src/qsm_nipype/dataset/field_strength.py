"""B0 of an acquisition: what its sidecars state against the frequency of its protons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.errors import DataError

#: Largest deviation of a stated field from the protons': the rounding of a 2.89 T scanner to 3 T.
TOLERANCE = 0.04
#: Fields (tesla) that a human or animal scanner may have.
SMALLEST, LARGEST = 0.01, 25.0
#: Factors by which a field in tesla, and a frequency in MHz, are wrong when given in another unit.
_FIELD_UNITS = {"millitesla": 1e3, "gauss": 1e4, "microtesla": 1e6}
_FREQUENCY_UNITS = {"kHz": 1e3, "Hz": 1e6, "GHz": 1e-3}
#: Fields (tesla) of scanners that there are, for guessing a unit.
_USUAL = (0.064, 0.2, 0.3, 0.35, 0.5, 0.55, 1.0, 1.2, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4, 10.5, 11.7,
          14.1, 15.2, 16.4, 17.2, 18.0, 21.1)  # fmt: skip


def field_strength(name: str, metadata: Mapping[str, Any], notes: list[str]) -> float:
    """B0 in tesla by the sidecar `name`: from the protons' frequency, else as stated.

    The stated field is often rounded, and must agree within `TOLERANCE`. Adds to `notes` where
    only the frequency is given. Raises DataError for fields and frequencies in another unit, for
    those that contradict each other, and for nuclei other than the proton.
    """
    stated: Any = metadata.get("MagneticFieldStrength")
    frequency: Any = metadata.get("ImagingFrequency")
    nucleus = str(metadata.get("ImagedNucleus", "1H")).upper().replace("^", "")
    if nucleus not in ("1H", "H1", "H", "PROTON", ""):
        raise DataError(
            f"{name}: ImagedNucleus is {metadata['ImagedNucleus']}; susceptibility is mapped from "
            f"the phase of protons (1H), so leave this image out or correct the entry"
        )
    measured = frequency / GYROMAGNETIC_RATIO if _number(frequency) and frequency > 0 else None
    if stated is None and measured is None:
        raise DataError(f"{name}: MagneticFieldStrength is missing; add it (in tesla)")
    if stated is None:
        assert measured is not None
        if not SMALLEST <= measured <= LARGEST:
            raise DataError(
                f"{name}: ImagingFrequency is {frequency:g}; give it in MHz"
                f"{_fitting_frequency(frequency, None)}, or add MagneticFieldStrength (in tesla)"
            )
        notes.append(
            f"MagneticFieldStrength is missing; {measured:.3f} T follows from ImagingFrequency"
        )
        return measured
    if not _number(stated) or not SMALLEST <= stated <= LARGEST:
        raise DataError(
            f"{name}: MagneticFieldStrength is {stated!r}; give it in tesla, "
            + (_fitting_field(stated, measured) if _number(stated) else "for instance 3")
        )
    if measured is None:
        return float(stated)
    if abs(measured - stated) <= TOLERANCE * stated:
        return float(measured)
    assert frequency is not None
    raise DataError(
        f"{name}: MagneticFieldStrength {stated:g} T contradicts ImagingFrequency {frequency:g} "
        f"MHz{_cure(stated, frequency, measured)}"
    )


def _number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _cure(stated: float, frequency: float, measured: float) -> str:
    """What the two would be if the other were right."""
    if text := _fitting_frequency(frequency, stated):
        return f"; give the frequency in MHz{text}"
    named = f", at which protons are at {measured:.3g} T" if measured <= LARGEST else ""
    fits = f"{stated * GYROMAGNETIC_RATIO:.4g} MHz would fit the field"
    if SMALLEST <= measured <= LARGEST:
        fits = f"{measured:.3g} T would fit the frequency, {fits}"
    return f"{named}; correct the wrong one ({fits})"


def _fitting_field(stated: float, measured: float | None) -> str:
    """`3 for 30 000 gauss`: the value in tesla that a field in another unit stands for."""
    known = _USUAL if measured is None else (measured,)
    off = {
        unit: min(abs(stated / factor / field - 1) for field in known)
        for unit, factor in _FIELD_UNITS.items()
    }
    unit = min(off, key=off.__getitem__)  # of equals the first
    if off[unit] <= TOLERANCE:
        return f"which is {stated / _FIELD_UNITS[unit]:g} if these are {unit}"
    return "for instance 3" if measured is None else f"which is {measured:.3g} by ImagingFrequency"


def _fitting_frequency(frequency: float, stated: float | None) -> str:
    """`, which is 127.7 if this is Hz`; empty where no unit makes it fit."""
    for unit, factor in _FREQUENCY_UNITS.items():
        field = frequency / factor / GYROMAGNETIC_RATIO
        known = _USUAL if stated is None else (stated,)
        if any(abs(field - other) <= TOLERANCE * other for other in known):
            return f", which is {frequency / factor:.7g} if this is {unit}"
    return ""
