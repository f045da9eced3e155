"""Field maps as input: a phase difference, or two phases, with their magnitudes (folder fmap/).

BIDS names them `sub-01_phasediff`, or `sub-01_phase1` and `sub-01_phase2`, next to
`sub-01_magnitude1` and `sub-01_magnitude2` (Siemens gre_field_mapping and its like).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qsm_nipype.errors import DataError

#: Suffixes of the image that stands for a field map, and of all its phase images.
SUFFIXES = {"phasediff": ("phasediff",), "phase1": ("phase1", "phase2")}
NOTE = "no gradient-echo acquisition with phase: the field map's images are used"


def files_of(path: Path) -> dict[str, list[Path]]:
    """Phase and magnitude images of the field map `path` (…_phasediff or …_phase1).

    One magnitude is enough for a phase difference. Raises DataError naming what is missing.
    """
    suffix = _suffix(path)
    phase = [_sibling(path, suffix, other) for other in SUFFIXES[suffix]]
    magnitude = [_sibling(path, suffix, f"magnitude{n}") for n in (1, 2)]
    found = [p for p in magnitude if p is not None]
    enough = found if suffix == "phasediff" else len(found) == 2
    if None in phase or not enough:
        missing = "phase2" if None in phase else f"magnitude{1 if magnitude[0] is None else 2}"
        raise DataError(f"{path.name}: there is no {missing} image beside it; add it")
    return {
        "phase": [p for p in phase if p is not None],
        "magnitude": found,
        "real": [],
        "imaginary": [],
    }


def difference_sidecar(
    path: Path, own: Mapping[str, Any], sidecar: Callable[[Path], Mapping[str, Any]]
) -> dict[str, Any]:
    """The sidecar of a phase difference with `EchoTime1` and `EchoTime2` (s).

    Where it lacks them, the EchoTime of the two magnitudes is taken. Raises DataError naming the
    file where neither helps, or where they make no sense.
    """
    merged = dict(own)
    for n in (1, 2):
        magnitude = _sibling(path, "phasediff", f"magnitude{n}")
        if f"EchoTime{n}" not in merged and magnitude is not None:
            time = sidecar(magnitude).get("EchoTime")
            if time is not None:
                merged[f"EchoTime{n}"] = time
    name = path.name.split(".")[0] + ".json"
    first, second = _echo_time(merged, 1, name), _echo_time(merged, 2, name)
    if not 0 < second - first < 0.1:
        raise DataError(
            f"{name}: EchoTime1 {first:g} and EchoTime2 {second:g} are not two increasing "
            f"times in seconds; correct them"
        )
    return merged


def _echo_time(merged: Mapping[str, Any], number: int, name: str) -> float:
    """EchoTime1 or EchoTime2 in seconds. Raises DataError."""
    time = merged.get(f"EchoTime{number}")
    if time is None:
        raise DataError(f"{name}: EchoTime{number} is missing; add it (in seconds)")
    if not (isinstance(time, (int, float)) and math.isfinite(time) and time > 0):
        raise DataError(f"{name}: EchoTime1 and EchoTime2 must be positive numbers of seconds")
    return time


def _suffix(path: Path) -> str:
    return path.name.split(".")[0].rsplit("_", 1)[-1]


def _sibling(path: Path, suffix: str, other: str) -> Path | None:
    """The image of the same name but another suffix; None where there is none."""
    stem = path.name.split(".")[0].removesuffix(suffix) + other
    for extension in (".nii.gz", ".nii"):
        candidate = path.with_name(stem + extension)
        if candidate.exists():
            return candidate
    return None
