"""The user's own segmentations: which belong to an acquisition, and what they come with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsm_nipype.bids import Acquisition, parse_name
from qsm_nipype.errors import DataError

#: Spaces in which a head's own T1w image lies; other spaces are templates.
_OWN_SPACES = ("T1w", "orig", "scanner", "individual", "native", "GRE", "MEGRE")
#: What FreeSurfer and FastSurfer leave in `mri/`, best first, and the image that it lies on.
_SURFER = ("aparc+aseg.mgz", "aparc.DKTatlas+aseg.deep.mgz", "aseg.mgz", "aseg.auto.mgz")
_SURFER_T1 = ("T1.mgz", "orig.mgz", "nu.mgz")
#: Segmentations that a run itself writes as `desc-NAME_dseg`.
_RESULTS = ("dentate", "lesions")


@dataclass(frozen=True)
class Atlas:
    """A segmentation `name` with its file, its look-up table and an image in the same space."""

    name: str
    file: Path
    table: Path | None = None
    anatomical: Path | None = None


def find_atlases(place: Path, acquisition: Acquisition, bids_dir: Path) -> list[Atlas]:
    """Segmentations of an acquisition's head at `place`, a file or a folder of derivatives.

    In a folder: every `*_dseg.nii[.gz]` of the subject in a space of its own whose entities don't
    contradict the acquisition's, else FreeSurfer's or FastSurfer's `mri/` below the subject. The
    image to register by is a T1w beside it, else one of the raw dataset. Raises DataError when
    nothing fits.
    """
    raw = _first(
        _by_session(bids_dir.glob(f"sub-{acquisition.subject}/**/*_T1w.nii*"), acquisition)
    )
    if place.is_file():
        return [Atlas(_name(place), place, _table(place, place.parent), raw)]
    files = [p for p in sorted(place.rglob(f"sub-{acquisition.subject}*_dseg.nii*"))]
    found = []
    for path in files:
        entities, _ = parse_name(path)
        space = entities.get("space", _OWN_SPACES[0])
        known = {k: v for k, v in entities.items() if k in acquisition.entities}
        if space in _OWN_SPACES and all(acquisition.entities[k] == v for k, v in known.items()):
            beside = [
                p
                for p in sorted(path.parent.glob(f"sub-{acquisition.subject}*_T1w.nii*"))
                if parse_name(p)[0].get("space", "T1w") in _OWN_SPACES
            ]
            found.append(Atlas(_name(path), path, _table(path, place), _first(beside) or raw))
    found = found or _surfer(place, acquisition, raw)
    if not found:
        raise DataError(
            f"{place}: no *_dseg.nii.gz for {acquisition.label} in the space of its head; add it, "
            "or leave out -d segmentation"
        )
    names = [atlas.name for atlas in found]
    if len(set(names)) < len(names):
        raise DataError(
            f"{place}: several segmentations for {acquisition.label} are called {names[0]}; give "
            "them different desc- entities"
        )
    return found


def _surfer(place: Path, acquisition: Acquisition, raw: Path | None) -> list[Atlas]:
    for folder in _subject_folders(place, acquisition):
        for name in _SURFER:
            if (folder / name).is_file():
                own = _first(folder / t for t in _SURFER_T1 if (folder / t).is_file())
                return [Atlas(name.removesuffix(".mgz"), folder / name, None, own or raw)]
    return []


def _subject_folders(place: Path, acquisition: Acquisition) -> list[Path]:
    """`mri/` of sub-01, or sub-01_ses-1 (that of the session first), and of nobody else."""
    found = []
    for folder in sorted(place.glob(f"sub-{acquisition.subject}*/mri")):
        words = folder.parent.name.split(".")[0].split("_")
        told = dict(word.split("-", 1) for word in words if "-" in word)
        session = told.get("ses", acquisition.session)
        if told.get("sub") == acquisition.subject and acquisition.session in (None, session):
            found.append((told.get("ses") != acquisition.session, folder))
    return [folder for _, folder in sorted(found)]


def _name(path: Path) -> str:
    """desc-, atlas- or seg- entity, else the file's own name; `own…` for a name of our results."""
    entities, _ = parse_name(path)
    for key in ("desc", "atlas", "seg"):
        if key in entities:
            name = str(entities[key])
            return f"own{name}" if name in _RESULTS else name
    return "dseg" if entities.get("sub") else path.name.split(".")[0]


def _table(path: Path, root: Path) -> Path | None:
    """`…_dseg.tsv` beside the file, or fMRIPrep's `desc-…_dseg.tsv` at the root."""
    own = path.with_name(path.name.split(".")[0] + ".tsv")
    desc = parse_name(path)[0].get("desc")
    return _first(p for p in (own, root / f"desc-{desc}_dseg.tsv") if p.is_file())


def _by_session(paths: Iterable[Path], acquisition: Acquisition) -> Sequence[Path]:
    session = acquisition.entities.get("ses")
    return sorted(paths, key=lambda p: (parse_name(p)[0].get("ses") != session, p.name))


def _first(paths: Iterable[Path]) -> Path | None:
    return next(iter(paths), None)
