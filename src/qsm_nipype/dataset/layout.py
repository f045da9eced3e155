"""Which images of a BIDS dataset may be gradient echoes or field maps, and which are misnamed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype.dataset import phasediff, walk
from qsm_nipype.dataset.names import ORDER, canonical, parse_name, stem
from qsm_nipype.errors import UsageError

#: Suffixes of gradient-echo acquisitions.
SUFFIXES = ("MEGRE", "GRE", "T2starw")
#: Entities that tell files of one acquisition apart, not acquisitions.
WITHIN = ("echo", "part", "coil", "ch")
#: Longest name (bytes) of an acquisition: those of its results and of their temporary files are
#: longer, and a file system takes 255.
LONGEST_LABEL = 170
#: What converters append to a name, and the `part-` that it stands for.
_APPENDED = {
    **dict.fromkeys(("ph", "pha", "phase"), "phase"),
    **dict.fromkeys(("mag", "magnitude"), "mag"),
    "real": "real",
    **dict.fromkeys(("imag", "imaginary"), "imag"),
}


@dataclass(frozen=True)
class Selection:
    """Which part of a dataset to look at; `own` names the user's files by kind (`own_files`).

    `units` is the unit of a given map, where the user names it.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    database: Path | None = None
    own: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    units: str = ""


@dataclass(frozen=True)
class Contents:
    """The selected `participants`, and their `images` of gradient echoes and field maps.

    `unreadable` says of participants whose folder cannot be read why.
    """

    participants: tuple[str, ...]
    images: tuple[Path, ...]
    unreadable: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def contents(bids_dir: Path, selection: Selection) -> Contents:
    """What a selection finds. Raises UsageError when the dataset or the selection is unusable."""
    if not bids_dir.is_dir():
        raise UsageError(f"{bids_dir}: no such folder; give the BIDS dataset's root")
    try:
        present = walk.participants(bids_dir)
    except OSError as exc:
        raise UsageError(f"{bids_dir}: cannot be read ({exc.strerror}); check the folder") from exc
    wanted = [label.removeprefix("sub-") for label in selection.participants]
    missing = [label for label in wanted if label not in present]
    if missing:
        raise UsageError(
            f"{bids_dir}: no participant {_some(missing)}; there are {_some(sorted(present))}"
        )
    chosen = {label: present[label] for label in sorted(wanted or present)}
    suffixes = [*SUFFIXES, *phasediff.SUFFIXES, *phasediff.OTHERS]
    query: dict[str, Any] = {"suffix": suffixes, "extension": [".nii", ".nii.gz"]}
    if selection.sessions:
        query["session"] = _known_sessions(bids_dir, chosen, present, selection.sessions)
    query.update(_filter(selection.filters))
    if not walk.understood(query):
        asked = indexed(bids_dir, selection.database, {**query, "subject": list(chosen)})
        return Contents(tuple(chosen), tuple(p for p in asked if not fault(p)))
    images, unreadable = [], {}
    for label, places in chosen.items():
        try:
            found = [p for place in places for p in walk.images(place) if walk.fits(p, query)]
            images += [p for p in found if not fault(p, label)]
        except OSError as exc:
            unreadable[label] = (
                f"{exc.filename}: cannot be read ({exc.strerror}); check the folder"
            )
    return Contents(tuple(chosen), tuple(images), MappingProxyType(unreadable))


def _some(labels: Sequence[str]) -> str:
    """At most ten labels."""
    shown = ", ".join(labels[:10]) or "none"
    return shown + (f" … ({len(labels)} in all)" if len(labels) > 10 else "")


def misnamed(
    bids_dir: Path, selection: Selection, participants: Sequence[str]
) -> list[tuple[dict[str, str], str]]:
    """Acquisitions whose names are not of BIDS: their entities, and a sentence with the right one.

    Only names that are nearly those of gradient echoes count. With a BIDS filter file nobody asks
    for others than it names, so there are none.
    """
    if selection.filters:
        return []
    sessions = {label.removeprefix("ses-") for label in selection.sessions}
    found: dict[tuple[Any, ...], tuple[dict[str, str], str]] = {}
    for participant in participants:
        for path in _images(bids_dir / f"sub-{participant}"):
            said = fault(path, participant)
            entities = {k: v for k, v in entities_of(path).items() if v and k not in WITHIN}
            entities = {k: _printable(v) for k, v in {**entities, "sub": participant}.items()}
            if said and (not sessions or entities.get("ses") in sessions):
                key = (path.parent, *entities.items())
                found.setdefault(key, (entities, f"{_printable(path.name)}: {said}"))
    return list(found.values())


def _printable(text: str) -> str:
    """A name as it can be printed and stored: what no text can hold is spelled out."""
    return "".join(c if c.isprintable() else f"{ord(c):04x}" for c in text)


def _images(root: Path) -> list[Path]:
    """The images of a participant; none where the folder cannot be read."""
    try:
        return walk.images(root) if root.is_dir() else []
    except OSError:
        return []


def other_phase(bids_dir: Path, participant: str) -> str:
    """What is said of a phase image of another suffix; empty where the participant has none."""
    root = bids_dir / f"sub-{participant}"
    found = [path for path in _images(root) if "_part-phase_" in path.name]
    if not found:
        return ""
    suffix = parse_name(found[0])[1]
    return (
        f"no gradient-echo images, but {found[0].name}; if it is one, name its suffix in a "
        f'--bids-filter-file: {{"gre": {{"suffix": "{suffix}"}}}}'
    )


def entities_of(path: Path) -> dict[str, str]:
    """Entities of a name, labels with a dot included."""
    words = re.sub(r"\.nii(\.gz)?$", "", path.name).split("_")
    return dict(word.split("-", 1) for word in words if "-" in word)


def fault(path: Path, participant: str = "") -> str:
    """What is wrong with the name of an image that is, or nearly is, that of a gradient echo.

    `participant` is the label of the folder that it lies in, where that is known.
    """
    name = re.sub(r"\.nii(\.gz)?$", "", path.name)
    ending = path.name[len(name) :]
    *words, last = name.split("_")
    suffixes = {s.lower(): s for s in SUFFIXES}
    if "." in name and last.split(".")[0].lower() in suffixes:
        right = ".".join(name.rsplit(".", 1)).replace(".", "p") + ending
        return f"a label may not have a dot; rename this acquisition's files, this one to {right}"
    if last in suffixes.values() or not words:
        return _fault_of_labels(path, participant) if last in suffixes.values() else ""
    if last.lower() in suffixes:
        right = "_".join([*words, suffixes[last.lower()]]) + ending
        return f"the suffix {last} is not one of BIDS; rename the files, this one to {right}"
    place = next((n for n, word in enumerate(words) if word in suffixes.values()), None)
    if place is None:
        return ""
    after = [_entity(word) for word in [*words, last][place + 1 :]]
    if not all(after):
        return ""
    right = "_".join([*words[:place], *after, words[place]]) + ending
    return f"BIDS has the suffix {words[place]} at the end; rename the files, this one to {right}"


def _fault_of_labels(path: Path, participant: str) -> str:
    """What is wrong with the entities of a gradient echo's name."""
    entities = parse_name(path)[0]
    if not entities.get("sub"):
        return "a name of BIDS begins with sub-LABEL_; rename this acquisition's files"
    if participant not in ("", entities["sub"]):
        return (
            f"it lies in the folder of sub-{participant}; move or rename this acquisition's files"
        )
    over = len(os.fsencode(stem(shared_entities(path)))) - LONGEST_LABEL
    if over > 0:
        return f"its labels are {over} letters too long for the names of results; shorten them"
    if not path.name.isprintable():
        return "its name holds characters that cannot be printed; rename this acquisition's files"
    if any(not label for label in entities.values()):
        return "one of its entities has no label; rename this acquisition's files"
    return ""


def _entity(word: str) -> str:
    """The entity that a word after the suffix stands for: part-phase for ph, echo-2 for e2."""
    if word.lower() in _APPENDED:
        return f"part-{_APPENDED[word.lower()]}"
    if number := re.fullmatch(r"[eE](\d+)", word):
        return f"echo-{int(number[1])}"
    return word if re.fullmatch(r"[a-z]+-[A-Za-z0-9]+", word) else ""


def _known_sessions(
    bids_dir: Path,
    chosen: Mapping[str, Sequence[Path]],
    present: Mapping[str, Sequence[Path]],
    labels: Sequence[str],
) -> list[str]:
    """`labels` without `ses-`. Raises UsageError naming those that no participant has."""
    wanted = [label.removeprefix("ses-") for label in labels]
    for group in (chosen, present):  # all others are looked at only where a session is missing
        found = {s for places in group.values() for place in places for s in _sessions(place)}
        missing = [label for label in wanted if label not in found]
        if not missing:
            return wanted
    raise UsageError(f"{bids_dir}: no session {_some(missing)}; there are {_some(sorted(found))}")


def _sessions(place: Path) -> list[str]:
    try:
        return walk.sessions(place)
    except OSError:
        return []


def indexed(bids_dir: Path, database: Path | None, query: Mapping[str, Any]) -> list[Path]:
    """The images that pybids finds, for filters that only it understands. Raises UsageError."""
    from bids import BIDSLayout, BIDSLayoutIndexer
    from bids.layout import Query

    words = {"Query.NONE": Query.NONE, "Query.ANY": Query.ANY, None: Query.NONE, "*": Query.ANY}
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    try:
        layout = BIDSLayout(
            bids_dir,
            validate=False,
            indexer=indexer,
            database_path=database,
            reset_database=False,
        )
        plain = {k: v for k, v in query.items() if v is None or isinstance(v, str)}
        asked = {**query, **{name: words.get(value, value) for name, value in plain.items()}}
        return sorted(Path(file.path) for file in layout.get(**asked))
    except Exception as exc:  # pybids has errors of its own, and those of SQLAlchemy
        said = " ".join(str(exc).split())[:200]
        raise UsageError(
            f"{bids_dir}: pybids cannot look for what --bids-filter-file asks ({said}); correct "
            f"the filter, or remove the database of --bids-database-dir"
        ) from exc


def _filter(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The `gre` entry of a BIDS filter file, with pybids' queries spelled as in fMRIPrep."""
    unknown = set(filters) - {"gre"}
    if unknown:
        raise UsageError(
            f"the BIDS filter file has an entry {sorted(unknown)[0]!r}; the one known is 'gre'"
        )
    chosen = filters.get("gre", {})
    if not isinstance(chosen, Mapping):
        raise UsageError("the BIDS filter file's entry 'gre' must hold entities and their labels")
    return dict(chosen)


def key_of(path: Path) -> tuple[tuple[tuple[str, str], ...], str, Path]:
    """What the files of one acquisition have in common: entities, suffix, folder.

    The order of entities in a name and leading zeros of indices tell nothing apart.
    """
    entities, suffix = parse_name(path)
    own = tuple((k, v) for k, v in canonical(entities).items() if k not in WITHIN)
    return own, suffix, path.parent


def shared_entities(path: Path) -> dict[str, str]:
    """Entities of the acquisition that an image belongs to, in BIDS order, as spelled."""
    entities = {k: v for k, v in parse_name(path)[0].items() if k not in WITHIN}
    known = [key for key in ORDER if key in entities]
    return {key: entities[key] for key in [*known, *sorted(set(entities) - set(known))]}
