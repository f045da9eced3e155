"""Field maps as input: a phase difference, or two phases, with their magnitudes (folder fmap/).

BIDS names them `sub-01_phasediff`, or `sub-01_phase1` and `sub-01_phase2`, next to
`sub-01_magnitude1` and `sub-01_magnitude2` (Siemens gre_field_mapping and its like).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qsm_nipype.dataset.grids import shape_of
from qsm_nipype.errors import DataError

#: Suffixes of the image that stands for a field map, and of all its phase images.
SUFFIXES = {"phasediff": ("phasediff",), "phase1": ("phase1", "phase2")}
#: What else a field map may come as: the second phase alone, and the field itself in Hz.
OTHERS = ("phase2", "fieldmap")
NOTE = "no gradient-echo acquisition with phase: the field map's images are used"


def files_of(path: Path) -> dict[str, list[Path]]:
    """Phase and magnitude images of the field map `path` (…_phasediff, …_phase1 or …_phase2).

    One magnitude is enough for a phase difference, and one 4-D image may hold both. Raises
    DataError naming what is missing, and what is there instead.
    """
    suffix = _suffix(path)
    wanted = ("phasediff",) if suffix == "phasediff" else ("phase1", "phase2")
    phase = [_sibling(path, suffix, other) for other in wanted]
    magnitude = _magnitudes(path, suffix)
    missing = [name for name, found in zip(wanted, phase, strict=True) if found is None]
    enough = 1 if suffix == "phasediff" else 2
    if len(magnitude) < enough and not _holds_both(magnitude):
        first = _sibling(path, suffix, "magnitude1")
        missing.append("magnitude1" if first is None else "magnitude2")
    if missing:
        there = sorted(p.name for p in path.parent.glob("*.nii*") if p not in (path, *phase))
        beside = f" (there is {', '.join(there[:4])})" if there else ""
        raise DataError(f"{path.name}: there is no {missing[0]} image beside it; add it{beside}")
    return {
        "phase": [p for p in phase if p is not None],
        "magnitude": magnitude,
        "real": [],
        "imaginary": [],
    }


def _magnitudes(path: Path, suffix: str) -> list[Path]:
    """magnitude1 and magnitude2, or magnitude."""
    names = [_sibling(path, suffix, name) for name in ("magnitude1", "magnitude2", "magnitude")]
    numbered = [p for p in names[:2] if p is not None]
    return numbered or [p for p in names[2:] if p is not None]


def _holds_both(magnitude: list[Path]) -> bool:
    """Whether one image holds the magnitudes of both echoes."""
    return len(magnitude) == 1 and shape_of(magnitude[0])[3:] == (2,)


def difference_sidecar(
    path: Path, own: Mapping[str, Any], sidecar: Callable[[Path], Mapping[str, Any]]
) -> dict[str, Any]:
    """The sidecar of a phase difference with `EchoTime1` and `EchoTime2` (s).

    Where it lacks them, the EchoTime of the two magnitudes is taken. Raises DataError naming the
    file where neither helps, or where they make no sense.
    """
    theirs: dict[str, Any] = {}
    for n in (1, 2):
        magnitude = _sibling(path, "phasediff", f"magnitude{n}")
        time = None if magnitude is None else sidecar(magnitude).get("EchoTime")
        if time is not None and not isinstance(time, list):
            theirs[f"EchoTime{n}"] = time
    if len(both := _magnitudes(path, "phasediff")) == 1:  # one image for both echoes
        times = sidecar(both[0]).get("EchoTime")
        if isinstance(times, list) and len(times) == 2:
            theirs = {"EchoTime1": times[0], "EchoTime2": times[1]}
    merged = {**theirs, **own}
    name = path.name.split(".")[0] + ".json"
    first, second = _echo_time(merged, 1, name), _echo_time(merged, 2, name)
    if not 0 < second - first < 0.1:
        raise DataError(
            f"{name}: EchoTime1 {first:g} and EchoTime2 {second:g} are not two increasing "
            f"times in seconds; correct them"
        )
    for key, time in (("EchoTime1", first), ("EchoTime2", second)):
        other = theirs.get(key, time)
        if not (isinstance(other, (int, float)) and math.isclose(other, time, rel_tol=0.01)):
            raise DataError(
                f"{name}: {key} is {time:g} s and EchoTime of magnitude{key[-1]} {other} s; "
                f"correct the wrong one"
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
        if candidate.exists() or candidate.is_symlink():
            return candidate
    return None
