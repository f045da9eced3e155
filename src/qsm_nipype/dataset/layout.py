"""Which images of a BIDS dataset may be gradient echoes or field maps, and which are misnamed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype.dataset import phasediff
from qsm_nipype.dataset.names import ORDER, canonical, parse_name
from qsm_nipype.errors import UsageError

#: Suffixes of gradient-echo acquisitions.
SUFFIXES = ("MEGRE", "GRE", "T2starw")
#: Entities that tell files of one acquisition apart, not acquisitions.
WITHIN = ("echo", "part", "coil", "ch")
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
    """The selected `participants`, and their `images` of gradient echoes and field maps."""

    participants: tuple[str, ...]
    images: tuple[Path, ...]


def contents(bids_dir: Path, selection: Selection) -> Contents:
    """What a selection finds. Raises UsageError when the dataset or the selection is unusable."""
    if not bids_dir.is_dir():
        raise UsageError(f"{bids_dir}: no such folder; give the BIDS dataset's root")
    layout = _layout(bids_dir, selection.database)
    present = set(layout.get_subjects())
    wanted = [label.removeprefix("sub-") for label in selection.participants]
    missing = [label for label in wanted if label not in present]
    if missing:
        raise UsageError(
            f"{bids_dir}: no participant {', '.join(missing)}; there are "
            f"{', '.join(sorted(present)) or 'none'}"
        )
    wanted_suffixes = [*SUFFIXES, *phasediff.SUFFIXES, *phasediff.OTHERS]
    query: dict[str, Any] = {"suffix": wanted_suffixes, "extension": [".nii", ".nii.gz"]}
    if wanted:
        query["subject"] = wanted
    if selection.sessions:
        query["session"] = _known_sessions(bids_dir, layout, selection.sessions)
    query.update(_filter(selection.filters))
    images = tuple(Path(file.path) for file in layout.get(**query))
    return Contents(tuple(sorted(wanted or present)), tuple(p for p in images if not fault(p)))


def misnamed(bids_dir: Path, selection: Selection, participants: Sequence[str]) -> dict[Path, str]:
    """The first image of each acquisition whose name is not of BIDS, and how to spell it.

    Only names that are nearly those of gradient echoes count. With a BIDS filter file nobody asks
    for others than it names, so there are none.
    """
    if selection.filters:
        return {}
    sessions = {label.removeprefix("ses-") for label in selection.sessions}
    found: dict[tuple[Any, ...], tuple[Path, str]] = {}
    for participant in participants:
        root = bids_dir / f"sub-{participant}"
        for path in sorted([*root.glob("*/*.nii*"), *root.glob("ses-*/*/*.nii*")]):
            said = fault(path)
            entities = entities_of(path)
            if said and (not sessions or entities.get("ses") in sessions):
                known = {k: v for k, v in entities.items() if k not in WITHIN}
                found.setdefault((path.parent, *known.items()), (path, said))
    return dict(found.values())


def other_phase(bids_dir: Path, participant: str) -> str:
    """What is said of a phase image of another suffix; empty where the participant has none."""
    root = bids_dir / f"sub-{participant}"
    found = sorted(
        [*root.glob("*/*_part-phase_*.nii*"), *root.glob("ses-*/*/*_part-phase_*.nii*")]
    )
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


def fault(path: Path) -> str:
    """What is wrong with the name of an image that is nearly that of a gradient echo's."""
    name = re.sub(r"\.nii(\.gz)?$", "", path.name)
    ending = path.name[len(name) :]
    *words, last = name.split("_")
    suffixes = {s.lower(): s for s in SUFFIXES}
    if "." in name and last.split(".")[0].lower() in suffixes:
        right = ".".join(name.rsplit(".", 1)).replace(".", "p") + ending
        return f"a label may not have a dot; rename this acquisition's files, this one to {right}"
    if last in suffixes.values() or not words:
        return ""
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


def _entity(word: str) -> str:
    """The entity that a word after the suffix stands for: part-phase for ph, echo-2 for e2."""
    if word.lower() in _APPENDED:
        return f"part-{_APPENDED[word.lower()]}"
    if number := re.fullmatch(r"[eE](\d+)", word):
        return f"echo-{int(number[1])}"
    return word if re.fullmatch(r"[a-z]+-[A-Za-z0-9]+", word) else ""


def _known_sessions(bids_dir: Path, layout: Any, labels: Sequence[str]) -> list[str]:
    """`labels` without `ses-`. Raises UsageError naming those that no participant has."""
    wanted = [label.removeprefix("ses-") for label in labels]
    present = {str(label) for label in layout.get_sessions()}
    missing = [label for label in wanted if label not in present]
    if missing:
        raise UsageError(
            f"{bids_dir}: no session {', '.join(missing)}; there are "
            f"{', '.join(sorted(present)) or 'none'}"
        )
    return wanted


def _layout(bids_dir: Path, database: Path | None) -> Any:
    from bids import BIDSLayout, BIDSLayoutIndexer

    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    return BIDSLayout(
        bids_dir,
        validate=False,
        indexer=indexer,
        database_path=database,
        reset_database=False,
    )


def _filter(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The `gre` entry of a BIDS filter file, with pybids' queries spelled as in fMRIPrep."""
    from bids.layout import Query

    unknown = set(filters) - {"gre"}
    if unknown:
        raise UsageError(
            f"the BIDS filter file has an entry {sorted(unknown)[0]!r}; the one known is 'gre'"
        )
    words = {"Query.NONE": Query.NONE, "Query.ANY": Query.ANY, None: Query.NONE, "*": Query.ANY}
    chosen = {}
    for key, value in filters.get("gre", {}).items():
        hashable = value is None or isinstance(value, str)
        chosen[key] = words.get(value, value) if hashable else value
    return chosen


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
