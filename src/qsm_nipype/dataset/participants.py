"""How old a participant was, as the dataset's tables say."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
#: Nobody is older (years); such a number is a code for what is not known.
_OLDEST = 125.0


def age_of(bids_dir: Path, entities: Mapping[str, str]) -> float | None:
    """Years by the column `age` of the sessions' table, else of participants.tsv; None if unknown.

    "89+" and ">89", as ages are made anonymous, count as 89.
    """
    subject = f"sub-{entities.get('sub', '')}"
    places = [(bids_dir / "participants.tsv", "participant_id", subject)]
    if "ses" in entities:
        file = bids_dir / subject / f"{subject}_sessions.tsv"
        places.insert(0, (file, "session_id", f"ses-{entities['ses']}"))
    for path, column, wanted in places:
        age = _age_in(path, column, wanted)
        if age is not None:
            return age
    return None


def _age_in(path: Path, column: str, wanted: str) -> float | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        if (row.get(column) or "").strip() == wanted:
            found = _NUMBER.search(row.get("age") or "")
            age = float(found[0]) if found else _OLDEST
            return age if age < _OLDEST else None
    return None
