"""Echo times of an acquisition, and what else its sidecars say of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_nipype.errors import DataError

#: Longest echo time (s), and the longest echo that is too short for any phase to evolve.
_LONGEST, _SHORTEST = 0.5, 1e-4
#: Longest time (s) of an echo that a scanner makes, for guessing a unit.
_USUAL = 0.12
#: Thickness (mm) from which it is a slab's and not a slice's.
_SLAB = 20.0

Sidecar = Mapping[str, Any]


def json_name(path: Path) -> str:
    """Name of the sidecar beside an image."""
    return path.name.split(".")[0] + ".json"


def echo_times(
    paths: Sequence[Path], sidecars: Sequence[Sidecar], n_echoes: int
) -> tuple[float, ...]:
    """Echo times (s) of the images of an acquisition, or of the volumes of its one image.

    In the order of the images, which need not be that of the times. Raises DataError.
    """
    times: list[float] = []
    for path, metadata in zip(paths, sidecars, strict=True):
        values = _times_of(path, metadata)
        if len(paths) > 1 and len(values) > 1:
            raise DataError(
                f"{json_name(path)}: EchoTime lists {len(values)} times, but each echo has its "
                f"own file; give that echo's time"
            )
        times.extend(values)
    if max(times) < _SHORTEST:
        raise DataError(
            f"{json_name(paths[0])}: EchoTime is {max(times):g} s, too short for an echo; give it "
            f"in seconds ({1000 * max(times):g} if it was divided by 1000 twice)"
        )
    if len(paths) == 1 and len(times) != n_echoes:
        raise DataError(
            f"{paths[0].name}: {n_echoes} echoes in the image but {len(times)} in EchoTime; give "
            f"EchoTime as a list of {n_echoes} numbers"
        )
    if len(paths) == 1 and sorted(times) != times:
        raise DataError(
            f"{paths[0].name}: the echo times {_listed(times)} s of its volumes do not increase; "
            f"put the volumes in the order of their times, or correct EchoTime"
        )
    if len(set(times)) < len(times):
        raise DataError(
            f"{paths[0].name}: two of the echo times {_listed(times)} s are the same, so they do "
            f"not increase; correct EchoTime of the echo that has another's"
        )
    return tuple(times)


def _times_of(path: Path, metadata: Sidecar) -> list[float]:
    name = json_name(path)
    if "EchoTime" not in metadata:
        raise DataError(f"{name}: EchoTime is missing; add it (in seconds)")
    value = metadata["EchoTime"]
    values = value if isinstance(value, list) else [value]
    if not values or not all(_positive(v) for v in values):
        raise DataError(f"{name}: EchoTime is {value!r}; it must be a positive number of seconds")
    longest = max(values)
    if longest > _LONGEST:
        unit, factor = ("milliseconds", 1e3) if longest / 1e3 <= _USUAL else ("microseconds", 1e6)
        raise DataError(
            f"{name}: EchoTime is {longest}, which cannot be seconds; divide {unit} by "
            f"{factor:.0f} ({longest / factor:g})"
        )
    return [float(v) for v in values]


def _positive(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value) and value > 0


def _listed(times: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in times)


def check_partners(
    paths: Sequence[Path],
    sidecars: Sequence[Sidecar],
    partners: Sequence[Path],
    theirs: Sequence[Sidecar],
) -> None:
    """Refuse echoes whose two images tell different echo times: every map scales with them."""
    for path, metadata, partner, other in zip(paths, sidecars, partners, theirs, strict=False):
        for key, unit in (("EchoTime", " s"), ("EchoNumber", "")):
            one, two = metadata.get(key), other.get(key)
            known = _positive(one) and _positive(two)
            if known and not math.isclose(float(one), float(two), rel_tol=0.01):  # type: ignore[arg-type]
                raise DataError(
                    f"{json_name(path)}: {key} is {one:g}{unit} and that of {partner.name} "
                    f"{two:g}{unit}; correct the wrong one"
                )


def check_volumes(path: Path, times: Sequence[float], partner: Path, metadata: Sidecar) -> None:
    """Refuse a 4-D `partner` whose own EchoTime list contradicts the `times` of the echoes."""
    own = metadata.get("EchoTime")
    if not isinstance(own, list) or len(own) != len(times) or not all(_positive(v) for v in own):
        return
    if not all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(own, times, strict=True)):
        raise DataError(
            f"{path.name}: the echo times are {_listed(times)} s and those of {partner.name} "
            f"{_listed(own)} s; correct the wrong ones"
        )


def check_sidecars(
    paths: Sequence[Path], sidecars: Sequence[Sidecar], times: Sequence[float]
) -> None:
    """Refuse sidecars that contradict themselves or each other. Raises DataError.

    `paths` in the order of `times`, one `sidecar` each; of a 4-D image there is one for all.
    """
    _check_numbers(paths, sidecars)
    first = sidecars[0]
    repetition = first.get("RepetitionTime")
    if _positive(repetition) and float(repetition) < max(times) - 1e-6:  # type: ignore[arg-type]
        raise DataError(
            f"{json_name(paths[0])}: RepetitionTime {repetition:g} is shorter than the last "
            f"EchoTime {max(times):g} s; correct the wrong one (both in seconds), or leave out "
            f"RepetitionTime if the sequence shifts its echoes"
        )
    sequence = {word for key in ("ScanningSequence", "PulseSequenceType")
                for word in _words(first.get(key))}  # fmt: skip
    if sequence & {"SE", "SPIN ECHO", "TSE", "FSE"} and not sequence & {"GR", "GRADIENT ECHO"}:
        raise DataError(
            f"{json_name(paths[0])}: ScanningSequence {first.get('ScanningSequence')!r} is a spin "
            f"echo, which refocuses the phase that susceptibility makes; give a gradient echo"
        )


def _check_numbers(paths: Sequence[Path], sidecars: Sequence[Sidecar]) -> None:
    """Refuse EchoNumber that runs against EchoTime."""
    numbers = [s.get("EchoNumber") for s in sidecars]
    if not all(_positive(n) for n in numbers) or len(set(numbers)) < 2:
        return
    pairs = zip(paths, numbers, paths[1:], numbers[1:], strict=False)
    for path, number, following, later in pairs:
        if later < number:  # type: ignore[operator]
            raise DataError(
                f"{json_name(following)}: EchoNumber {later} has a later EchoTime than EchoNumber "
                f"{number} ({json_name(path)}); correct the wrong one of the two entries"
            )


def _words(value: Any) -> set[str]:
    values = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return {w.strip().upper() for v in values for w in str(v).replace("/", "\\").split("\\")}


def check_same(name: str, key: str, values: Mapping[str, Any], tolerance: float) -> None:
    """Refuse images of one acquisition that state different numbers. Raises DataError.

    `values` by the names of the files; what is no positive number does not count.
    """
    known = [(file, value) for file, value in values.items() if _positive(value)]
    for file, value in known[1:]:
        if not math.isclose(value, known[0][1], rel_tol=tolerance):
            raise DataError(
                f"{name}: {key} is {known[0][1]:g} for {known[0][0]} and {value:g} for {file}; "
                f"correct the wrong one"
            )


def thickness_warnings(path: Path, metadata: Sidecar, voxel_size: Sequence[float]) -> list[str]:
    """A warning where no voxel edge (mm) is near the sidecar's thickness or spacing of slices.

    Raises DataError where they are off by a factor that only another unit can make.
    """
    given: dict[str, Any] = {
        k: metadata.get(k) for k in ("SliceThickness", "SpacingBetweenSlices")
    }
    known = {k: float(v) for k, v in given.items() if _positive(v) and v < _SLAB}
    if not known:
        return []
    factors = [max(v / edge, edge / v) for v in known.values() for edge in voxel_size]
    shown = " × ".join(f"{v:.3g}" for v in voxel_size)
    said = ", ".join(f"{k} {v:g}" for k, v in known.items())
    if min(factors) >= 8:
        raise DataError(
            f"{path.name}: its voxels of {shown} mm contradict {said} mm of the sidecar; correct "
            f"the wrong one (the header of the image in mm, the sidecar in mm)"
        )
    spacing = known.get("SpacingBetweenSlices", 0.0)
    if spacing > 1.25 * max(voxel_size):
        return [
            f"{path.name}: its voxels of {shown} mm are smaller than SpacingBetweenSlices "
            f"{spacing:g} mm: the header may leave out gaps, and χ would be wrong; correct the "
            "affine, or the sidecar if the image was resampled"
        ]
    if min(factors) > 2.2:
        return [
            f"{path.name}: its voxels of {shown} mm contradict {said} mm of the sidecar; if the "
            "image was resampled, give it as acquired"
        ]
    return []
