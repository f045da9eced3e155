"""The images of a dataset by a look into its participants' folders, and filters on their names.

pybids indexes the whole dataset before it answers; a job of one participant of a thousand then
waits for the others' files. Names alone tell what is needed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qsm_nipype.dataset.names import INDICES, parse_name

#: Deepest folder below a participant's that images are looked for in: ses-1/anat, and one more.
_DEPTH = 3
#: pybids' names of entities, and how file names spell them.
ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    **{name: name for name in ("sample", "task", "run", "echo", "flip", "inv", "mt", "part")},
    **{name: name for name in ("chunk", "space", "proc")},
}
_OTHERS = ("suffix", "extension", "datatype")
#: What a filter says of an entity that must be absent, or may have any label.
ABSENT, ANY = ("Query.NONE", None), ("Query.ANY", "*")


def participants(bids_dir: Path) -> dict[str, list[Path]]:
    """Label → folders (and images at the root) of each participant. Raises OSError."""
    found: dict[str, list[Path]] = {}
    with os.scandir(bids_dir) as entries:
        for entry in entries:
            if not entry.name.startswith("sub-"):
                continue
            if _is_image(entry.name):
                label = parse_name(Path(entry.name))[0].get("sub", "")
            elif entry.is_symlink() or entry.is_dir():
                label = entry.name.removeprefix("sub-")
            else:
                continue
            if label:
                found.setdefault(label, []).append(Path(entry.path))
    return found


def images(place: Path) -> list[Path]:
    """The NIfTI images in a participant's folder, sorted. Raises OSError."""
    return sorted(_walk(place, _DEPTH)) if not _is_image(place.name) else [place]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_image(entry.name):
                yield Path(entry.path)
            elif depth > 0 and _is_below(entry, folder):
                yield from _walk(Path(entry.path), depth - 1)


def _is_below(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether an entry of a folder is a folder, and no link to one that it lies in."""
    if not entry.is_symlink():
        return entry.is_dir()
    target, here = os.path.realpath(entry.path), os.path.realpath(folder)
    return os.path.isdir(target) and not f"{here}/".startswith(f"{target}/")


def sessions(place: Path) -> list[str]:
    """Labels of the sessions that have a folder below a participant's. Raises OSError."""
    return [p.name.removeprefix("ses-") for p in place.glob("ses-*") if p.is_dir()]


def _is_image(name: str) -> bool:
    return name.endswith((".nii", ".nii.gz"))


def understood(query: Mapping[str, Any]) -> bool:
    """Whether `fits` can answer a query: known names, and plain values or lists of them."""
    names = all(name in ENTITIES or name in _OTHERS for name in query)
    return names and all(_is_plain(value) for value in query.values())


def _is_plain(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(v is None or isinstance(v, (str, int)) and not isinstance(v, bool) for v in several)


def fits(path: Path, query: Mapping[str, Any]) -> bool:
    """Whether an image's name and folder are what a query asks for, which is `understood`."""
    entities, suffix = parse_name(path)
    own = {
        **{long: entities[short] for long, short in ENTITIES.items() if short in entities},
        "suffix": suffix,
        "extension": ".nii.gz" if path.name.endswith(".nii.gz") else ".nii",
        "datatype": path.parent.name,
    }
    return all(_agrees(name, own.get(name), wanted) for name, wanted in query.items())


def _agrees(name: str, label: str | None, wanted: Any) -> bool:
    several = wanted if isinstance(wanted, list) else [wanted]
    return any(_is_wanted(name, label, one) for one in several)


def _is_wanted(name: str, label: str | None, wanted: Any) -> bool:
    if wanted in ABSENT:
        return label is None
    if wanted in ANY:
        return label is not None
    if label is None:
        return False
    if name in INDICES:
        return _number(label) == _number(str(wanted))
    if name == "extension":
        return label == f".{str(wanted).lstrip('.')}"
    return label == str(wanted)


def _number(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label
