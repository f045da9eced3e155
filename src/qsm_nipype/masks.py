"""The user's own masks: which belongs to an acquisition."""

from __future__ import annotations

from pathlib import Path

from qsm_nipype.bids import Acquisition, parse_name
from qsm_nipype.errors import DataError


def find_mask(place: Path, acquisition: Acquisition, kind: str = "masks") -> Path:
    """The user's mask of an acquisition: a file, or one of a folder of BIDS derivatives.

    In a folder it is the `*_mask.nii[.gz]` of the subject whose entities do not contradict the
    acquisition's. Of a brain (`kind` "masks") `desc-brain` is preferred; of a "reference" region
    `desc-reference` and `desc-csf` (or `label-`) are, and masks of the brain don't count. Raises
    DataError when there is none, or two.
    """
    best = ("brain",) if kind == "masks" else ("reference", "csf")
    if place.is_file():
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
