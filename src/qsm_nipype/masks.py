"""The user's own masks: which belongs to an acquisition."""

from __future__ import annotations

from pathlib import Path

from qsm_nipype.bids import Acquisition, parse_name, stem
from qsm_nipype.errors import DataError

#: Entities by which the name of a single file says whose it is; what lies on the grid of the
#: gradient echoes is of one acquisition, what does not is of one head.
_OF_GRID, _OF_HEAD = ("sub", "ses", "acq", "run"), ("sub", "ses")


def find_mask(place: Path, acquisition: Acquisition, kind: str = "masks") -> Path:
    """The user's mask of an acquisition: a file, or one of a folder of BIDS derivatives.

    In a folder it is the `*_mask.nii[.gz]` of the subject whose entities do not contradict the
    acquisition's. Of a brain (`kind` "masks") `desc-brain` is preferred; of a "reference" region
    `desc-reference` and `desc-csf` (or `label-`) are, and masks of the brain don't count. Raises
    DataError when there is none, or two, or when the name of a file says that it is another's.
    """
    best = ("brain",) if kind == "masks" else ("reference", "csf")
    if place.is_file():
        check_owner(place, acquisition, kind)
        return place
    found: list[tuple[bool, int, Path]] = []
    for path in sorted(place.rglob(f"sub-{acquisition.subject}*_mask.nii*")):
        entities, _ = parse_name(path)
        if entities.get("label", "").lower() in best:  # any other label is another region
            entities["desc"] = entities.pop("label")
        desc = entities.pop("desc", "brain" if kind == "masks" else "").lower()
        if kind != "masks" and desc in ("brain", "chi"):
            continue
        if all(acquisition.entities.get(key) == value for key, value in entities.items()):
            found.append((desc not in best, -len(entities), path))
    found.sort()
    if not found:
        raise DataError(
            f"{place}: no *_mask.nii.gz for {acquisition.label}"
            + ("" if kind == "masks" else f" that is a {kind} region")
            + f"; add it, or leave out -d {kind}"
        )
    if len(found) > 1 and found[0][:2] == found[1][:2]:
        raise DataError(
            f"{place}: {found[0][2].name} and {found[1][2].name} both fit {acquisition.label}; "
            f"keep one, or name it desc-{best[0]}"
        )
    return found[0][2]


def check_owner(file: Path, acquisition: Acquisition, kind: str) -> None:
    """Refuse a single file whose name says that it belongs to another acquisition.

    A name without `sub-` and `ses-` (of masks: `acq-` and `run-`) serves all. Raises DataError.
    """
    keys = _OF_GRID if kind in ("masks", "reference") else _OF_HEAD
    words = (word.partition("-") for word in file.name.split(".")[0].split("_"))
    told = {key: value for key, dash, value in words if dash and key in keys}
    if any(acquisition.entities.get(key) != value for key, value in told.items()):
        raise DataError(
            f"{file.name}: it belongs to {stem(told)} and not to {acquisition.label}; give the "
            f"folder of all by -d {kind}=FOLDER, or select by --participant-label"
        )


def check_size(file: Path, acquisition: Acquisition) -> None:
    """Refuse a mask with other numbers of voxels than the acquisition's. Raises DataError."""
    from qsm_nipype.interfaces.volume import open_image

    shape = tuple(open_image(file).shape)
    if shape[:3] != acquisition.shape:
        own, theirs = ("×".join(str(n) for n in s) for s in (shape, acquisition.shape))
        raise DataError(
            f"{file.name}: its size is {own}, that of {acquisition.label} is {theirs}; resample "
            f"it to the grid of the gradient echoes"
        )
