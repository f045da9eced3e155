"""What the user brings for an acquisition: masks, reference region, segmentations, lesions.

All of it is looked up and checked once, by `find_own_files`, before anything runs; the acquisition
carries the result. An acquisition is known here by its `entities`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsm_nipype.dataset.grids import shape_of
from qsm_nipype.dataset.lesion_files import LesionFiles, find_lesion_files
from qsm_nipype.dataset.names import canonical, parse_name, stem
from qsm_nipype.dataset.r2_files import R2Files, find_given_r2, find_spin_echoes
from qsm_nipype.errors import DataError

#: Kinds of own files, as `-d KIND=PATH` names them; the last three are `dataset.given`'s.
KINDS = ("masks", "reference", "segmentation", "lesions", "r2",
         "chi", "localfield", "totalfield")  # fmt: skip
#: Entities by which the name of a single file says whose it is; what lies on the grid of the
#: gradient echoes is of one acquisition, what does not is of one head.
_OF_GRID, _OF_HEAD = ("sub", "ses", "acq", "run"), ("sub", "ses")
#: Spaces in which a head's own T1w image lies; other spaces are templates.
_OWN_SPACES = ("T1w", "orig", "scanner", "individual", "native", "GRE", "MEGRE")
#: What FreeSurfer and FastSurfer leave in `mri/`, best first, and the image that it lies on.
_SURFER = ("aparc+aseg.mgz", "aparc.DKTatlas+aseg.deep.mgz", "aseg.mgz", "aseg.auto.mgz")
_SURFER_T1 = ("T1.mgz", "orig.mgz", "nu.mgz")
#: Segmentations that a run itself writes as `desc-NAME_dseg`.
_RESULTS = ("dentate", "deepgrey", "lesions")

Entities = Mapping[str, str]


@dataclass(frozen=True)
class Atlas:
    """A segmentation `name` with its file, its look-up table and an image in the same space."""

    name: str
    file: Path
    table: Path | None = None
    anatomical: Path | None = None


@dataclass(frozen=True)
class OwnFiles:
    """What was found for one acquisition; None or empty where the user brings nothing.

    `mask_uri` is the BIDS URI of `mask`; `r2_fault` says why spin echoes that there are give no
    R2; `notes` are sentences about what was promised and could
    not be used although the acquisition can be processed without it.
    """

    mask: Path | None = None
    mask_uri: str = ""
    region: Path | None = None
    atlases: tuple[Atlas, ...] = ()
    lesions: LesionFiles | None = None
    r2: R2Files | None = None
    r2_fault: str = ""
    notes: tuple[str, ...] = ()


def find_own_files(
    places: Mapping[str, Path], bids_dir: Path, entities: Entities, shape: Sequence[int]
) -> OwnFiles:
    """The user's files for the acquisition of `entities` on a grid of `shape`.

    `places` are files or folders by kind (`KINDS`). Without its lesion mask or its FLAIR an
    acquisition is still processed, with a note. Raises DataError where anything else that was
    promised is missing, belongs to another acquisition, or does not fit.
    """
    masks = {kind: _find_mask_on_grid(places[kind], entities, shape, kind)
             for kind in ("masks", "reference") if kind in places}  # fmt: skip
    for kind in ("segmentation", "lesions"):
        if kind in places and places[kind].is_file():
            check_owner(places[kind], entities, kind)
    mask = masks.get("masks")
    lesions, notes = None, []
    if "lesions" in places:
        try:
            lesions = find_lesion_files(places["lesions"], bids_dir, entities)
        except DataError as exc:
            notes.append(f"Lesions were not looked at: {exc}")
    r2, fault = _find_r2(places, bids_dir, entities)
    return OwnFiles(
        mask=mask,
        mask_uri=_uri("masks", mask, places["masks"]) if mask is not None else "",
        region=masks.get("reference"),
        atlases=tuple(find_atlases(places["segmentation"], entities, bids_dir))
        if "segmentation" in places
        else (),
        lesions=lesions,
        r2=r2,
        r2_fault=fault,
        notes=tuple(notes),
    )


def _find_r2(
    places: Mapping[str, Path], bids_dir: Path, entities: Entities
) -> tuple[R2Files | None, str]:
    """R2 by `-d r2`, else from spin echoes that there are; and what is wrong with those.

    Raises DataError for a map that was promised.
    """
    if "r2" in places:
        return find_given_r2(places["r2"], entities), ""
    try:
        return find_spin_echoes(bids_dir, entities), ""
    except DataError as exc:
        return None, str(exc)


def folder_of(place: Path) -> Path:
    """The folder that BIDS URIs of the user's files start from."""
    return place if place.is_dir() else place.parent


def _uri(kind: str, file: Path, place: Path) -> str:
    return f"bids:{kind}:{file.relative_to(folder_of(place)).as_posix()}"


def _find_mask_on_grid(place: Path, entities: Entities, shape: Sequence[int], kind: str) -> Path:
    found = find_mask(place, entities, kind)
    check_size(found, entities, shape)
    return found


def find_mask(place: Path, entities: Entities, kind: str = "masks") -> Path:
    """The user's mask of an acquisition: a file, or one of a folder of BIDS derivatives.

    In a folder it is the `*_mask.nii[.gz]` of the subject whose entities do not contradict the
    acquisition's. Of a brain (`kind` "masks") `desc-brain` is preferred; of a "reference" region
    `desc-reference` and `desc-csf` (or `label-`) are, and masks of the brain don't count. Raises
    DataError when there is none, or two, or when the name of a file says that it is another's.
    """
    best = ("brain",) if kind == "masks" else ("reference", "csf")
    if place.is_file():
        check_owner(place, entities, kind)
        return place
    known = canonical(entities)
    found: list[tuple[bool, int, Path]] = []
    for path in sorted(place.rglob(f"sub-{entities['sub']}*_mask.nii*")):
        theirs, _ = parse_name(path)
        if theirs.get("label", "").lower() in best:  # any other label is another region
            theirs["desc"] = theirs.pop("label")
        desc = theirs.pop("desc", "brain" if kind == "masks" else "").lower()
        if kind != "masks" and desc in ("brain", "chi"):
            continue
        if canonical(theirs).items() <= known.items():
            found.append((desc not in best, -len(theirs), path))
    found.sort()
    if not found:
        raise DataError(
            f"{place}: no *_mask.nii.gz for {stem(entities)}"
            + ("" if kind == "masks" else f" that is a {kind} region")
            + f"; add it, or leave out -d {kind}"
        )
    if len(found) > 1 and found[0][:2] == found[1][:2]:
        raise DataError(
            f"{place}: {found[0][2].name} and {found[1][2].name} both fit {stem(entities)}; "
            f"keep one, or name it desc-{best[0]}"
        )
    return found[0][2]


def check_owner(file: Path, entities: Entities, kind: str) -> None:
    """Refuse a single file whose name says that it belongs to another acquisition.

    A name without `sub-` and `ses-` (of masks: `acq-` and `run-`) serves all. Raises DataError.
    """
    keys = _OF_GRID if kind in ("masks", "reference") else _OF_HEAD
    words = (word.partition("-") for word in file.name.split(".")[0].split("_"))
    named = {key: value for key, dash, value in words if dash and key in keys}
    if not canonical(named).items() <= canonical(entities).items():
        raise DataError(
            f"{file.name}: it belongs to {stem(named)} and not to {stem(entities)}; give the "
            f"folder of all by -d {kind}=FOLDER, or select by --participant-label"
        )


def check_size(file: Path, entities: Entities, shape: Sequence[int]) -> None:
    """Refuse a mask with other numbers of voxels than the acquisition's. Raises DataError.

    Along which axes they lie is looked at where the image is read.
    """
    given = shape_of(file)
    if sorted(given[:3]) != sorted(shape):
        own, theirs = ("×".join(str(n) for n in s) for s in (given, shape))
        raise DataError(
            f"{file.name}: its size is {own}, that of {stem(entities)} is {theirs}; resample "
            f"it to the grid of the gradient echoes"
        )


def find_atlases(place: Path, entities: Entities, bids_dir: Path) -> list[Atlas]:
    """Segmentations of an acquisition's head at `place`, a file or a folder of derivatives.

    In a folder: every `*_dseg.nii[.gz]` of the subject in a space of its own whose entities don't
    contradict the acquisition's, else FreeSurfer's or FastSurfer's `mri/` below the subject. The
    image to register by is a T1w beside it, else one of the raw dataset. Raises DataError when
    nothing fits.
    """
    raw = _first(_by_session(bids_dir.glob(f"sub-{entities['sub']}/**/*_T1w.nii*"), entities))
    if place.is_file():
        return [Atlas(_name(place), place, _table(place, place.parent), raw)]
    files = [p for p in sorted(place.rglob(f"sub-{entities['sub']}*_dseg.nii*"))]
    found = []
    for path in files:
        theirs, _ = parse_name(path)
        space = theirs.get("space", _OWN_SPACES[0])
        known = canonical({k: v for k, v in theirs.items() if k in entities})
        if space in _OWN_SPACES and known.items() <= canonical(entities).items():
            beside = [
                p
                for p in sorted(path.parent.glob(f"sub-{entities['sub']}*_T1w.nii*"))
                if parse_name(p)[0].get("space", "T1w") in _OWN_SPACES
            ]
            found.append(Atlas(_name(path), path, _table(path, place), _first(beside) or raw))
    found = found or _surfer(place, entities, raw)
    if not found:
        raise DataError(
            f"{place}: no *_dseg.nii.gz for {stem(entities)} in the space of its head; add it, "
            "or leave out -d segmentation"
        )
    names = [atlas.name for atlas in found]
    if len(set(names)) < len(names):
        raise DataError(
            f"{place}: several segmentations for {stem(entities)} are called {names[0]}; give "
            "them different desc- entities"
        )
    return found


def _surfer(place: Path, entities: Entities, raw: Path | None) -> list[Atlas]:
    for folder in _surfer_folders(place, entities):
        for name in _SURFER:
            if (folder / name).is_file():
                own = _first(folder / t for t in _SURFER_T1 if (folder / t).is_file())
                return [Atlas(name.removesuffix(".mgz"), folder / name, None, own or raw)]
    return []


def _surfer_folders(place: Path, entities: Entities) -> list[Path]:
    """`mri/` of sub-01, or sub-01_ses-1 (that of the session first), and of nobody else."""
    found = []
    for folder in sorted(place.glob(f"sub-{entities['sub']}*/mri")):
        words = folder.parent.name.split(".")[0].split("_")
        theirs = dict(word.split("-", 1) for word in words if "-" in word)
        session = theirs.get("ses", entities.get("ses"))
        if theirs.get("sub") == entities["sub"] and entities.get("ses") in (None, session):
            found.append((theirs.get("ses") != entities.get("ses"), folder))
    return [folder for _, folder in sorted(found)]


def _name(path: Path) -> str:
    """desc-, atlas- or seg- entity, else the file's own name; `own…` for a name of our results."""
    theirs, _ = parse_name(path)
    for key in ("desc", "atlas", "seg"):
        if key in theirs:
            name = str(theirs[key])
            return f"own{name}" if name in _RESULTS else name
    return "dseg" if theirs.get("sub") else path.name.split(".")[0]


def _table(path: Path, root: Path) -> Path | None:
    """`…_dseg.tsv` beside the file, or fMRIPrep's `desc-…_dseg.tsv` at the root."""
    own = path.with_name(path.name.split(".")[0] + ".tsv")
    desc = parse_name(path)[0].get("desc")
    return _first(p for p in (own, root / f"desc-{desc}_dseg.tsv") if p.is_file())


def _by_session(paths: Iterable[Path], entities: Entities) -> Sequence[Path]:
    session = entities.get("ses")
    return sorted(paths, key=lambda p: (parse_name(p)[0].get("ses") != session, p.name))


def _first(paths: Iterable[Path]) -> Path | None:
    return next(iter(paths), None)
