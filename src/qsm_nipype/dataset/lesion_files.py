"""Which lesion mask and which FLAIR belong to an acquisition, whatever tool made the mask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.core.geometry import voxel_size
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.errors import DataError
from qsm_nipype.volume import open_image, same_space

_LESION = "(?:lesions?|wmh)"
#: What lesion maps are called, the most trusted first; names in lower case, without endings.
_NAMES = (
    re.compile(r"sub-.*lesion.*_(?:mask|dseg)"),  # BIDS
    re.compile(rf"(?:.*_)?seg-lst(?:ai)?|(?:.*[_-])?{_LESION}(?:[_-]?(?:mask|seg|bin|index))?"),
    re.compile(
        rf"(?:.*_)?seg-lst(?:ai)?_?prob.*|.*{_LESION}.*_probseg|(?:.*[_-])?{_LESION}[_-]?prob\w*"
        r"|ples_.*|(?:.*_)?bianca(?:_output)?"  # LST-AI, BIDS, SAMSEG, LST, BIANCA
    ),
    re.compile(r"(?:.*_)?seg"),  # SAMSEG's whole brain with its lesions
)
_SAMSEG = len(_NAMES) - 1
_OWNER = re.compile(r"(?:^|_)(sub|ses)-([A-Za-z0-9]+)")

Entities = Mapping[str, str]


@dataclass(frozen=True)
class LesionFiles:
    """A lesion mask and the FLAIR that the lesions are classified with.

    `notes` are sentences about what else there was to choose.
    """

    mask: Path
    flair: Path
    notes: tuple[str, ...] = ()


def find_lesion_files(place: Path, bids_dir: Path, entities: Entities) -> LesionFiles:
    """Mask and FLAIR of the participant and session. Raises DataError where one is missing."""
    mask, passed = find_lesion_mask(place, entities)
    flair, why = find_flair(bids_dir, entities, mask)
    notes = [f"{mask.name} was taken as the lesions, not {_names(passed)}."] if passed else []
    return LesionFiles(mask, flair, (*notes, *([why] if why else [])))


def find_lesion_mask(place: Path, entities: Entities) -> tuple[Path, list[Path]]:
    """A file, or the lesion map of the participant and session in a folder; and those passed over.

    In a folder: a `*lesion*_mask` or `_dseg` by BIDS, else a binary map of another tool, else
    probabilities, else SAMSEG's `seg.mgz`, owned by the `sub-` and `ses-` of folders and name.
    Raises DataError when there is none, or several of the best kind.
    """
    if place.is_file():
        return place, []
    found: list[list[Path]] = [[] for _ in _NAMES]
    for path in sorted([*place.rglob("*.nii"), *place.rglob("*.nii.gz"), *place.rglob("*.mgz")]):
        if _owner(path, place) == (entities["sub"], entities.get("ses")):
            kind = _kind(path)
            if kind is not None:
                found[kind].append(path)
    missing = f"{place}: no *lesion*_mask.nii.gz or _dseg for {stem(entities)}"
    best = next((paths for paths in found if paths), [])
    mask = _only(best, f"{missing}, nor a lesion map of LST-AI, LST, SAMSEG or BIANCA")
    return mask, [path for paths in found[:_SAMSEG] for path in paths if path != mask]


def _kind(path: Path) -> int | None:
    """The place of its name among `_NAMES`; None for what is no lesion map."""
    name = path.name.split(".")[0].lower()
    if "annotated" in name:
        return None  # LST-AI's classes of places, which are no lesions of their own
    kind = next((n for n, pattern in enumerate(_NAMES) if pattern.fullmatch(name)), None)
    if path.suffix == ".mgz":
        if path.parent.name == "posteriors" and "lesion" in name:
            return 2  # SAMSEG's probabilities
        return kind
    return None if kind == _SAMSEG else kind


def _owner(path: Path, place: Path) -> tuple[str | None, str | None]:
    """Participant and session by the names of the file and the folders that it lies in."""
    found: dict[str, str] = {}
    for part in (place.name, *path.relative_to(place).parts):
        found |= dict(_OWNER.findall(part.split(".")[0]))
    return found.get("sub"), found.get("ses")


def find_flair(bids_dir: Path, entities: Entities, mask: Path) -> tuple[Path, str]:
    """The FLAIR of the acquisition's session, and why it where there are several.

    It is the one on whose grid `mask` lies, else of the first run a 3-D one, else that of the
    smallest voxels, else the first by name. Raises DataError where there is none.
    """
    folder = bids_dir / f"sub-{entities['sub']}"
    if "ses" in entities:
        folder = folder / f"ses-{entities['ses']}"
    own = {key: entities.get(key) for key in ("sub", "ses")}
    found = [
        path
        for path in folder.glob("anat/*_FLAIR.nii*")
        if {key: parse_name(path)[0].get(key) for key in own} == own
    ]
    if len(found) < 2:
        return _only(found, f"{folder / 'anat'}: no *_FLAIR.nii.gz for {stem(entities)}"), ""
    grid = _grid(mask)
    ranked = sorted((_rank(path, grid), path.name, path) for path in found)
    (first, _, chosen), (second, *_) = ranked[:2]
    differ = next((n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), -1)
    why = ("the lesion mask lies on its grid", "it is of the first run", "it is 3-D",
           "its voxels are the smallest", "it is the first by name")[differ]  # fmt: skip
    others = _names([path for *_, path in ranked[1:]])
    return chosen, f"Of several FLAIRs {chosen.name} was taken, not {others}: {why}."


def _rank(path: Path, mask: tuple[tuple[int, ...], np.ndarray] | None) -> tuple[float, ...]:
    """The smaller the better: on the mask's grid, run, 3-D, volume of a voxel (mm³)."""
    own = _grid(path)
    on_grid = (
        own is not None
        and mask is not None
        and own[0] == mask[0]
        and same_space(own[1], mask[1], own[0])
    )
    run = parse_name(path)[0].get("run", "1")
    size = float("inf") if own is None else round(float(np.prod(voxel_size(own[1]))), 3)
    return (not on_grid, float(run) if run.isdecimal() else 1.0, not _is_3d(path), size)


def _grid(path: Path) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape and affine; None for what cannot be read, which is said where it is used."""
    try:
        image: Any = open_image(path)
    except DataError:
        return None
    return tuple(image.shape[:3]), np.asarray(image.affine)


def _is_3d(path: Path) -> bool:
    try:
        sidecar = path.with_name(path.name.split(".")[0] + ".json").read_text(encoding="utf-8")
        known = json.loads(sidecar)
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("MRAcquisitionType") == "3D"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _only(found: Sequence[Path], missing: str) -> Path:
    """The one file. Raises DataError."""
    found = sorted(found)
    if not found:
        raise DataError(f"{missing}; add it, or leave out -d lesions")
    if len(found) > 1:
        raise DataError(f"{found[0].name} and {found[1].name} both fit; keep one of them")
    return found[0]
