"""A reader's marks on maps: the table that the group's page saves, read back by `group`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from qsm_nipype.errors import UsageError

#: The table, beside the group's page.
RATINGS = "group_ratings.tsv"
#: What a map may be marked as.
MARKS = {
    "pass": "the map can be used",
    "fail": "the map must not be used",
    "unsure": "somebody else should look",
}
#: Columns of the group's table.
WORDS = {
    "rating": {"Description": "a reader's mark, from group.html", "Levels": MARKS},
    "comment": {"Description": "a reader's comment, from group.html"},
}
_NOTHING = ("", "n/a")


def read_ratings(path: Path) -> dict[str, dict[str, str]]:
    """Rating and comment by acquisition; nothing where there is no table.

    Raises UsageError for a table without the columns, an unknown mark, or two marks on one map.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeError, csv.Error) as exc:
        raise UsageError(f"{path}: cannot be read ({exc}); save it again from group.html") from exc
    found: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        label, mark, comment = (_cell(line, name) for name in ("acquisition", *WORDS))
        if not label:
            raise UsageError(
                f"{path}: line {number} names no acquisition; the columns are acquisition, rating "
                "and comment, separated by tabs"
            )
        if mark not in (*MARKS, ""):
            raise UsageError(
                f"{path}: line {number}: {mark!r} is no mark; write {', '.join(MARKS)} or n/a"
            )
        if label in found:
            raise UsageError(f"{path}: line {number}: {label} is there twice; remove one")
        found[label] = {"rating": mark or "n/a", "comment": comment or "n/a"}
    return found


def with_ratings(
    rows: Sequence[Mapping[str, str]], ratings: Mapping[str, Mapping[str, str]]
) -> list[dict[str, str]]:
    """Rows with their marks, where there are any."""
    return [{**row, **ratings.get(row["acquisition"], {})} for row in rows]


def unknown(rows: Sequence[Mapping[str, str]], ratings: Mapping[str, object]) -> list[str]:
    """Marked acquisitions that the group does not have."""
    return sorted(set(ratings) - {row["acquisition"] for row in rows})


def _cell(line: Mapping[str, str | None], name: str) -> str:
    text = (line.get(name) or "").strip()
    return "" if text in _NOTHING else text
