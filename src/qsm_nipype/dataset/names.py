"""BIDS file names: entities, suffix, and the stem that derivatives share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Order of entities in a derivative's name (BIDS 1.10, the ones an anatomical image can have).
ORDER = ("sub", "ses", "sample", "task", "acq", "ce", "rec", "dir", "run", "flip", "inv", "mt")

#: Entities whose labels are numbers.
INDICES = ("run", "echo", "flip", "inv", "split", "chunk", "coil", "ch")


def parse_name(path: Path) -> tuple[dict[str, str], str]:
    """Entities and suffix of a BIDS file name."""
    parts = path.name.split(".")[0].split("_")
    entities = dict(part.split("-", 1) for part in parts[:-1] if "-" in part)
    return entities, parts[-1]


def canonical(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities in BIDS order, their indices without leading zeros: run-01 is run-1."""
    place = {key: n for n, key in enumerate(ORDER)}
    ordered = sorted(entities, key=lambda key: (place.get(key, len(ORDER)), key))
    return {key: _index(entities[key]) if key in INDICES else entities[key] for key in ordered}


def _index(label: str) -> str:
    return str(int(label)) if label.isdecimal() else label


def stem(entities: Mapping[str, str]) -> str:
    """`sub-01_acq-x_run-1` from entities, in BIDS order."""
    known = [key for key in ORDER if key in entities]
    rest = [key for key in entities if key not in ORDER]
    return "_".join(f"{key}-{entities[key]}" for key in known + rest)
