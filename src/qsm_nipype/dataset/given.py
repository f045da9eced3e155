"""Maps that the user brings for the pipeline to start at: found by name, checked by their values.

`-d chi=`, `-d localfield=` and `-d totalfield=` are files or folders of BIDS derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.core import given
from qsm_nipype.core.given import KINDS, Unit
from qsm_nipype.dataset.layout import SUFFIXES, Selection, shared_entities
from qsm_nipype.dataset.metadata import sidecar
from qsm_nipype.dataset.names import canonical, parse_name, stem
from qsm_nipype.dataset.own_arrays import read_mask_on
from qsm_nipype.dataset.own_checks import LARGEST_BRAIN
from qsm_nipype.dataset.own_files import folder_of
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.volume import Volume, load_one, open_image, same_space

#: Suffixes of such maps, in small letters.
_SUFFIXES = {
    "chi": ("chimap", "chi", "qsm", "qsmmap"),
    "localfield": ("localfield", "localfieldmap"),
    "totalfield": ("totalfield", "totalfieldmap"),
}
#: desc- of a `*_fieldmap` that is of the kind.
_DESCRIBED = {"localfield": ("local", "localfield"), "totalfield": ("total", "totalfield")}
#: Entities of a derivative that are not its acquisition's.
_WITHIN = ("desc", "part", "echo", "label", "res", "den")
#: What names the unit where a sidecar does not.
UNIT_OPTION = "--map-units"


@dataclass(frozen=True)
class GivenMap:
    """A map of `kind` (`core.given.KINDS`) to start at, its BIDS URI and its unit.

    `beyond` says in words that it has values outside of the brain; empty where nothing says so.
    """

    kind: str
    file: Path
    uri: str
    unit: Unit = Unit()
    beyond: str = ""


def kind_of(own: Mapping[str, Any]) -> str:
    """The kind of map that a run starts at, by the names of `-d`; empty where by images."""
    return next((kind for kind in KINDS if kind in own), "")


def find_maps(bids_dir: Path, selection: Selection) -> list[tuple[dict[str, str], list[Path]]]:
    """The selected maps: entities of an acquisition, and the files that are said to be its map.

    More than one file is a fault. Raises UsageError where there is none at all, or none of a
    participant or session that was asked for.
    """
    kind = kind_of(selection.own)
    place = selection.own[kind]
    found: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    if place.is_file():
        found[_of_file(bids_dir, place, kind, selection)] = [place]
    for path in sorted(place.rglob("sub-*.nii*")) if place.is_dir() else ():
        if _fits(path, kind):
            found.setdefault(_entities(path), []).append(path)
    if not found:
        raise UsageError(
            f"-d {kind}={place}: there is no map named sub-LABEL_{_example(kind)}; name one so"
        )
    chosen = {key: _best(paths) for key, paths in found.items() if _wanted(dict(key), selection)}
    have = {dict(key)["sub"] for key in chosen}
    missing = {label.removeprefix("sub-") for label in selection.participants} - have
    if missing or not chosen:
        who = ", ".join(f"sub-{label}" for label in sorted(missing)) or "the chosen sessions"
        raise UsageError(f"-d {kind}={place}: there is no map of {who}; choose others")
    return [(dict(key), paths) for key, paths in sorted(chosen.items())]


def check_map(
    kind: str,
    place: Path,
    file: Path,
    metadata: Mapping[str, Any],
    named: str,
    mask_file: Path | None = None,
) -> GivenMap:
    """The map `file` below `place`, after a look at its values in the mask.

    `metadata` is its sidecar, over that of the acquisition's magnitude; `named` is the unit that
    the user names, or empty. Raises DataError where values and unit do not fit.
    """
    volume = load_one(file)
    inside = _inside(volume, mask_file)
    try:
        unit = given.unit_of(
            kind, named or _stated(metadata), b0=field_of(metadata), echo_time=echo_of(metadata)
        )
        given.check_spread(kind, volume.data * np.float32(unit.factor), inside, UNIT_OPTION)
    except DataError as exc:
        raise DataError(f"{file.name}: {exc}") from exc
    uri = f"bids:{kind}:{file.relative_to(folder_of(place)).as_posix()}"
    return GivenMap(kind, file, uri, unit, _beyond(metadata, inside, volume.voxel_size))


def _beyond(metadata: Mapping[str, Any], inside: np.ndarray, voxel_size: Sequence[float]) -> str:
    """What says that a map has values outside of the brain; empty where nothing does."""
    volume = float(inside.sum()) * math.prod(voxel_size) / 1000
    if metadata.get("SkullStripped") is False:
        return "its sidecar says that the skull is in it"
    if given.is_full(inside):
        return "every voxel has a value"
    if volume > LARGEST_BRAIN:
        return f"it has values in {volume:.0f} cm³, and no brain has over {LARGEST_BRAIN:.0f}"
    return ""


def read_map(file: str | Path, factor: float, mask_file: str | Path | None = None) -> Volume:
    """A given map in ppm, zero where there is no value (or outside the mask). Raises DataError."""
    volume = load_one(file)
    inside = _inside(volume, mask_file)
    data = np.where(inside, volume.data, 0).astype(np.float32)
    data = data if factor == 1 else (data * np.float32(factor)).astype(np.float32)
    return Volume(data, volume.affine, volume.path)


def _inside(volume: Volume, mask_file: str | Path | None) -> np.ndarray:
    """Where a map has a value, in the mask if there is one. Raises DataError."""
    inside = given.known(volume.data)
    name = Path(volume.path).name
    if not inside.any():
        raise DataError(f"{name}: no voxel has a value other than 0; give another map")
    if mask_file is None:
        return inside
    inside &= read_mask_on(mask_file, volume.affine, volume.data.shape, name).data
    if not inside.any():
        raise DataError(f"{Path(mask_file).name}: {name} has no value in it; give its own mask")
    return inside


def magnitudes_of(bids_dir: Path, entities: Mapping[str, str], file: Path) -> list[Path]:
    """The raw magnitudes of a map's acquisition on the map's grid, by echo; none where unlike."""
    folder = bids_dir / f"sub-{entities['sub']}"
    if "ses" in entities:
        folder = folder / f"ses-{entities['ses']}"
    found = []
    for path in sorted(folder.glob("anat/sub-*.nii*")):
        theirs, suffix = parse_name(path)
        own = suffix in SUFFIXES and theirs.get("part", "mag") == "mag"
        if own and canonical(shared_entities(path)) == canonical(entities):
            found.append((int(theirs.get("echo", "0")), path))
    like = open_image(file)
    for _, path in found:
        image = open_image(path)
        shape = tuple(image.shape[:3])
        if shape != tuple(like.shape[:3]) or not same_space(image.affine, like.affine, shape):
            return []
    return [path for _, path in sorted(found)]


def metadata_of(
    bids_dir: Path, place: Path, file: Path, magnitudes: Sequence[Path]
) -> dict[str, Any]:
    """The map's sidecar over that of the first magnitude. Raises DataError."""
    raw = [sidecar(bids_dir, path) for path in magnitudes]
    times = [one.get("EchoTime") for one in raw]
    first = {k: v for k, v in raw[0].items() if k != "Units"} if raw else {}
    if times and all(_positive(t) for t in times):
        first["EchoTime"] = times
    return {**first, **sidecar(folder_of(place), file)}


def field_of(metadata: Mapping[str, Any]) -> float | None:
    """B0 in tesla as stated; None where it is not."""
    value: Any = metadata.get("MagneticFieldStrength")
    return float(value) if _positive(value) else None


def echo_of(metadata: Mapping[str, Any]) -> float | None:
    """The echo time in s, of several their mean; None where it is not stated."""
    value = metadata.get("EchoTime")
    values: list[Any] = list(value) if isinstance(value, list) else [value]
    if not values or not all(_positive(v) for v in values):
        return None
    return float(sum(values)) / len(values)


def _positive(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value) and value > 0


def _stated(metadata: Mapping[str, Any]) -> str:
    """The unit of a sidecar; ppm where it names none. Raises DataError for an unknown one."""
    text = metadata.get("Units")
    if text is None or text == "":
        return "ppm"
    name = given.spelled(str(text))
    if not name:
        raise DataError(
            f"its sidecar's Units are {text!r}; give {', '.join(given.UNITS)}, or name the unit "
            f"by {UNIT_OPTION}"
        )
    return name


def _example(kind: str) -> str:
    return "Chimap.nii.gz" if kind == "chi" else f"desc-{_DESCRIBED[kind][0]}_fieldmap.nii.gz"


def _fits(path: Path, kind: str) -> bool:
    theirs, suffix = parse_name(path)
    if suffix == "fieldmap":
        return theirs.get("desc", "").lower() in _DESCRIBED.get(kind, ())
    return suffix.lower() in _SUFFIXES[kind] and theirs.get("desc") != "agreement"


def _entities(path: Path) -> tuple[tuple[str, str], ...]:
    theirs = canonical(parse_name(path)[0])
    return tuple((k, v) for k, v in theirs.items() if k not in _WITHIN)


def _best(paths: Sequence[Path]) -> list[Path]:
    """Of several maps of an acquisition the one without desc-, where there is one such."""
    plain = [path for path in paths if "desc" not in parse_name(path)[0]]
    return plain or list(paths)


def _wanted(entities: Mapping[str, str], selection: Selection) -> bool:
    labels = {label.removeprefix("sub-") for label in selection.participants}
    sessions = {label.removeprefix("ses-") for label in selection.sessions}
    here = not labels or entities["sub"] in labels
    return here and (not sessions or entities.get("ses") in sessions)


def _of_file(
    bids_dir: Path, file: Path, kind: str, selection: Selection
) -> tuple[tuple[str, str], ...]:
    """Entities of a single file: by its name, else of the one participant. Raises UsageError."""
    named = _entities(file)
    if "sub" in dict(named):
        return named
    labels = {label.removeprefix("sub-") for label in selection.participants}
    there = {p.name.removeprefix("sub-") for p in bids_dir.glob("sub-*") if p.is_dir()}
    labels = labels or there
    if len(labels) != 1:
        raise UsageError(
            f"-d {kind}={file}: its name does not tell whose it is; name it "
            f"sub-LABEL_{_example(kind)}, or choose one by --participant-label"
        )
    return (("sub", labels.pop()),)


def ambiguous(entities: Mapping[str, str], paths: Sequence[Path]) -> str:
    """What is wrong with several maps of one acquisition; empty for one."""
    if len(paths) < 2:
        return ""
    return (
        f"{paths[0].name} and {paths[1].name} both are a map of {stem(entities)}; give one of "
        "them by -d as a file"
    )
