"""Maps that were made elsewhere: their unit, their mask, and whether they can be what is said."""

from __future__ import annotations

from dataclasses import dataclass
from math import tau

import numpy as np

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.errors import DataError

#: What a given map is, by its kind.
KINDS = {
    "chi": "susceptibility",
    "localfield": "the local field",
    "totalfield": "the total field",
}
#: Units of a given map; those in `_OF_TIME` say how fast, or how far, phase turns.
UNITS = ("ppm", "ppb", "Hz", "rad/s", "rad")
_OF_TIME = ("Hz", "rad/s", "rad")
#: Spellings of units in sidecars, by their lower-case letters.
_SPELLED = {"ppm": "ppm", "ppb": "ppb", "hz": "Hz", "hertz": "Hz", "1/s": "Hz", "rad/s": "rad/s",
            "rad": "rad", "radian": "rad", "radians": "rad"}  # fmt: skip
#: Least and largest spread (ppm) of a map in a brain. A local field's standard deviation is 0.005
#: to 0.05 at any field strength; heads that were simulated or measured lie well inside.
SPREAD = {"chi": (0.002, 2.0), "localfield": (0.0005, 0.1), "totalfield": (0.002, 3.0)}
#: Share of neighbours with the same value from which a map is painted and not measured.
_PAINTED = 0.5
#: Width of the middle half over that of the middle 99 % below which a map is one value with
#: inclusions; in brains it is above 0.1.
_UNIFORM = 0.04
#: Share of the voxels with a value from which it is not known where the brain ends.
_FULL = 0.98


@dataclass(frozen=True)
class Unit:
    """The `name` of a map's unit, and what makes ppm of it."""

    name: str = "ppm"
    factor: float = 1.0


def spelled(text: str) -> str:
    """The unit of `UNITS` that a sidecar's `text` names; empty where it is none of them."""
    return _SPELLED.get(text.strip().lower(), "")


def unit_of(
    kind: str, name: str, *, b0: float | None = None, echo_time: float | None = None
) -> Unit:
    """The unit `name` of a map of `kind`; `b0` in tesla and `echo_time` in s where phase turns.

    Raises DataError for a susceptibility that is said to be a frequency, and where B0 or the echo
    time is needed and not known.
    """
    if name == "ppm":
        return Unit()
    if name == "ppb":
        return Unit(name, 1e-3)
    if name not in _OF_TIME:
        raise DataError(f"{name} is no unit of such a map; give {', '.join(UNITS)}")
    if kind == "chi":
        raise DataError(f"susceptibility is not given in {name}; give it in ppm or ppb")
    if b0 is None:
        raise DataError(
            f"its unit is {name}, and B0 is not known; add MagneticFieldStrength (in tesla) to "
            "its sidecar"
        )
    hertz = GYROMAGNETIC_RATIO * b0  # of one ppm
    if name == "rad" and echo_time is None:
        raise DataError(
            "its unit is rad, and the echo time is not known; add EchoTime (in s) to its sidecar"
        )
    turns = {"Hz": 1.0, "rad/s": 1 / tau, "rad": 1 / (tau * (echo_time or 1.0))}
    return Unit(name, turns[name] / hertz)


def known(values: np.ndarray) -> np.ndarray:
    """Where a map `(X, Y, Z)` has a value: finite, and not exactly zero."""
    return np.isfinite(values) & (values != 0)


def is_full(mask: np.ndarray) -> bool:
    """Whether a mask holds the whole image, so that it says nothing about the brain."""
    return bool(mask.mean() > _FULL)


def spread(values: np.ndarray, mask: np.ndarray) -> float:
    """Half the width of the middle 68 % of a map's values in `mask`, in the map's unit."""
    inside = values[mask & np.isfinite(values)]
    return float(np.percentile(np.abs(inside - np.median(inside)), 68)) if inside.size else 0.0


def check_spread(kind: str, values: np.ndarray, mask: np.ndarray, option: str) -> None:
    """Refuse a map whose values `(X, Y, Z)`, by now in ppm, cannot be ppm in a brain.

    `option` names the unit where the sidecar does not. Raises DataError with the unit that the
    values look like.
    """
    if not mask.any():
        raise DataError("no voxel has a value; give another map")
    found, (least, most) = spread(values, mask), SPREAD[kind]
    if least <= found <= most:
        return
    if found < least and is_painted(values, mask):
        raise DataError(
            "most neighbours have exactly the same value, as in a drawn phantom; give the map of "
            "a head"
        )
    what = f"its values spread by {found:.3g} in the brain, and {KINDS[kind]} in ppm spreads"
    if found > most:
        guess = "ppb" if kind == "chi" else "Hz (or rad, or ppb)"
        raise DataError(
            f"{what} by less than {most:g}: it looks like {guess}; name the unit by {option}"
        )
    raise DataError(
        f"{what} by more than {least:g}: nothing is seen in it, or it is in another unit; give "
        "the map in ppm"
    )


def is_painted(values: np.ndarray, mask: np.ndarray) -> bool:
    """Whether most neighbours in a map `(X, Y, Z)` have the same value, as in a drawn phantom."""
    both = mask[1:] & mask[:-1]
    same = values[1:] == values[:-1]
    return bool(both.any() and same[both].mean() > _PAINTED)


def is_uniform(values: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a map `(X, Y, Z)` is one value with inclusions, as a measured phantom."""
    inside = values[mask & np.isfinite(values)]
    if not inside.size:
        return False
    low, quarter, three, high = np.percentile(inside, (0.5, 25, 75, 99.5))
    return bool(three - quarter < _UNIFORM * (high - low))
