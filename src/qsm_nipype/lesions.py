"""Which lesion mask and which FLAIR belong to an acquisition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qsm_nipype.bids import Acquisition, parse_name
from qsm_nipype.errors import DataError
from qsm_nipype.settings import Settings


@dataclass(frozen=True)
class LesionInputs:
    """Paths of both; empty, with the reason in `note`, where one is missing."""

    flair: str = ""
    mask: str = ""
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether the lesions can be looked at."""
        return bool(self.flair and self.mask)


def find_inputs(settings: Settings, acquisition: Acquisition) -> LesionInputs | None:
    """Lesion mask (`-d lesions=PATH`) and FLAIR of an acquisition; None when not asked for.

    The acquisition is processed without its lesions where one of them is missing.
    """
    place = settings.derivatives.get("lesions")
    if place is None:
        return None
    try:
        mask = find_lesion_mask(Path(place).absolute(), acquisition)
        flair = find_flair(settings.bids_dir.absolute(), acquisition)
    except DataError as exc:
        return LesionInputs(note=f"Lesions were not looked at: {exc}")
    return LesionInputs(str(flair), str(mask))


def find_lesion_mask(place: Path, acquisition: Acquisition) -> Path:
    """A file, or a folder's `*lesion*_mask.nii[.gz]` or `_dseg` of the participant and session.

    Raises DataError when there is none, or several.
    """
    if place.is_file():
        return place
    found = []
    for suffix in ("mask", "dseg"):
        for path in place.rglob(f"sub-{acquisition.subject}_*lesion*_{suffix}.nii*"):
            if _same_session(path, acquisition):
                found.append(path)
    return _only(found, f"{place}: no *lesion*_mask.nii.gz or _dseg for {acquisition.label}")


def find_flair(bids_dir: Path, acquisition: Acquisition) -> Path:
    """The FLAIR of the acquisition's session; of several runs the first. Raises DataError."""
    folder = bids_dir / f"sub-{acquisition.subject}"
    if acquisition.session is not None:
        folder = folder / f"ses-{acquisition.session}"
    found = [p for p in folder.glob("anat/*_FLAIR.nii*") if _same_session(p, acquisition)]
    found = [p for p in found if parse_name(p)[0].get("run", "1").lstrip("0") in ("", "1")]
    return _only(found, f"{folder / 'anat'}: no *_FLAIR.nii.gz for {acquisition.label}")


def _same_session(path: Path, acquisition: Acquisition) -> bool:
    entities, _ = parse_name(path)
    here = entities.get("sub"), entities.get("ses")
    return here == (acquisition.subject, acquisition.session)


def _only(found: list[Path], missing: str) -> Path:
    """The one file. Raises DataError."""
    found = sorted(found)
    if not found:
        raise DataError(f"{missing}; add it, or leave out -d lesions")
    if len(found) > 1:
        raise DataError(f"{found[0].name} and {found[1].name} both fit; keep one of them")
    return found[0]
