"""Where R2 comes from: a map of the user's, or multi-echo spin echoes of the raw dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.dataset.metadata import sidecar
from qsm_nipype.dataset.names import canonical, parse_name, stem
from qsm_nipype.errors import DataError
from qsm_nipype.volume import Volume, load, load_one, open_image, same_space

#: Suffixes of maps of R2 (1/s) and T2 (s).
_MAPS = ("R2map", "T2map")
#: Spellings of units in sidecars → what makes 1/s (of R2) or s (of T2).
_UNITS = {"1/s": 1.0, "s-1": 1.0, "hz": 1.0, "1/ms": 1e3, "s": 1.0, "ms": 1e-3,
          "seconds": 1.0, "milliseconds": 1e-3}  # fmt: skip
#: Median R2 (1/s) that tissue of a head can have.
_TISSUE = (3.0, 60.0)


@dataclass(frozen=True)
class R2Files:
    """`method` is that of the registry, "given" or "epg"; one map, or the echoes in order.

    `echo_times` (s) and `refocusing` (degrees) are those of spin echoes.
    """

    method: str
    files: tuple[Path, ...]
    echo_times: tuple[float, ...] = ()
    refocusing: float = 180.0


def find_given_r2(place: Path, entities: Mapping[str, str]) -> R2Files:
    """The user's map: a file, or the `*_R2map` (else `*_T2map`) of the session in a folder.

    Raises DataError where there is none, or two, or its values are not those of R2.
    """
    found = [place] if place.is_file() else []
    for suffix in _MAPS if not found else ():
        found = found or [
            path
            for path in sorted(place.rglob(f"sub-{entities['sub']}*_{suffix}.nii*"))
            if _of_session(path, entities)
        ]
    if not found:
        raise DataError(f"{place}: no *_R2map.nii.gz or *_T2map.nii.gz for {stem(entities)}; "
                        "add it, or leave out -d r2")  # fmt: skip
    if len(found) > 1:
        raise DataError(
            f"{place}: {found[0].name} and {found[1].name} both fit {stem(entities)}; keep one"
        )
    read_r2(found[0])
    return R2Files("given", (found[0],))


def find_spin_echoes(bids_dir: Path, entities: Mapping[str, str]) -> R2Files | None:
    """The first `MESE` acquisition of the session in the raw dataset; None where there is none.

    Raises DataError for echoes whose times cannot be used.
    """
    folder = bids_dir / f"sub-{entities['sub']}"
    if "ses" in entities:
        folder = folder / f"ses-{entities['ses']}"
    sets: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path in sorted(folder.glob("anat/*_MESE.nii*")):
        theirs = canonical(parse_name(path)[0])
        if theirs.pop("part", "mag") == "mag":
            theirs.pop("echo", None)
            sets.setdefault(tuple(theirs.items()), []).append(path)
    if not sets:
        return None
    files = next(iter(sets.values()))
    metadata = [sidecar(bids_dir, path) for path in files]
    times: list[Any] = [m.get("EchoTime") for m in metadata]
    name = files[0].name
    if len(files) == 1 and isinstance(times[0], list):
        times = list(times[0])
    if not all(isinstance(t, (int, float)) and 0 < t < 1 for t in times) or len(times) < 3:
        raise DataError(
            f"{name}: R2 needs the EchoTime (s) of three or more echoes; add it to the sidecars"
        )
    order = np.argsort(times) if len(files) == len(times) else range(len(times))
    chosen = tuple(files[i] for i in order) if len(files) == len(times) else (files[0],)
    seconds = tuple(sorted(float(t) for t in times if isinstance(t, (int, float))))
    gaps = np.diff([0.0, *seconds])
    if np.abs(gaps - gaps[0]).max() > 0.02 * gaps[0]:
        raise DataError(
            f"{name}: its echoes are not at equal steps from the excitation on, which R2 by "
            f"echo trains needs; give a map of R2 by -d r2=PATH"
        )
    angle = metadata[0].get("RefocusingFlipAngle", 180.0)
    return R2Files(
        "epg", chosen, seconds, float(angle) if isinstance(angle, (int, float)) else 180.0
    )


def read_spin_echoes(files: Sequence[str | Path], count: int) -> Volume:
    """`count` echoes of one grid, the last axis. Raises DataError for other shapes."""
    volumes = [load(path) for path in files]
    first = volumes[0]
    if len(volumes) == 1:
        data = first.data
    else:
        for other in volumes[1:]:
            if other.data.shape != first.data.shape or not same_space(
                first.affine, other.affine, first.data.shape[:3]
            ):
                raise DataError(f"{other.path}: its grid is not that of {first.path}; export "
                                "all echoes on one grid")  # fmt: skip
        data = np.stack([v.data.reshape(v.data.shape[:3]) for v in volumes], -1)
    if data.ndim != 4 or data.shape[3] != count:
        raise DataError(
            f"{first.path}: {data.shape[-1] if data.ndim == 4 else 1} echoes for {count} echo "
            f"times; give one EchoTime for each echo"
        )
    return replace(first, data=data)


def read_r2(file: str | Path) -> Volume:
    """A map of R2 in 1/s, from one of R2 or T2 by its suffix and the `Units` of its sidecar.

    Zero where it is not known. Raises DataError for values that are not those of tissue.
    """
    path = Path(file)
    volume = load_one(path)
    stated = str(sidecar(path.parent, path).get("Units", "")).strip().lower()
    if stated and stated not in _UNITS:
        raise DataError(f"{path.name}: its Units are {stated!r}; give 1/s (of R2) or s (of T2)")
    inverse = parse_name(path)[1] == "T2map" or stated in ("s", "ms", "seconds", "milliseconds")
    known = np.isfinite(volume.data) & (volume.data > 0)
    values = np.where(known, volume.data, 0).astype(np.float32) * np.float32(
        _UNITS.get(stated, 1.0)
    )
    rate = np.divide(1, values, out=np.zeros_like(values), where=known) if inverse else values
    middle = float(np.median(rate[known])) if known.any() else 0.0
    if not _TISSUE[0] <= middle <= _TISSUE[1]:
        raise DataError(
            f"{path.name}: its median R2 is {middle:.3g} 1/s, and that of a head is "
            f"{_TISSUE[0]:g} to {_TISSUE[1]:g}; give R2 in 1/s or T2 in s, and Units in its "
            f"sidecar"
        )
    return replace(volume, data=rate)


def on_grid_of(volume: Volume, file: str | Path) -> bool:
    """Whether a volume lies on the voxels of the image `file`."""
    image = open_image(file)
    shape = tuple(image.shape[:3])
    return volume.data.shape[:3] == shape and same_space(volume.affine, image.affine, shape)


def _of_session(path: Path, entities: Mapping[str, str]) -> bool:
    theirs = canonical(parse_name(path)[0])
    own = canonical(entities)
    return all(theirs.get(k, own.get(k)) == own.get(k) for k in ("sub", "ses"))
