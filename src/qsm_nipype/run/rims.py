"""Rims of lesions over a group: counts by the network and by readers, and how they agree.

Readers' marks are the tables that the pages of lesions save, put beside the group's page:
`sub-01_rater-NAME_rims.tsv`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from qsm_nipype.errors import UsageError
from qsm_nipype.system.files import write_text

#: The tables of readers, of the network, and those written here.
READ, LESIONS = "*_rims*.tsv", "desc-lesions_dseg.tsv"
COUNTS, AGREEMENT = "group_desc-rims_counts", "group_desc-rims_agreement"
#: What a table's `rim` may be: decided, and not.
_DECIDED, _OPEN = ("0", "1"), ("unsure", "n/a", "")
_RATER = re.compile(r"_rater-([A-Za-z0-9]+)")
NETWORK, UNNAMED = "network", "unnamed"
_SHOWN = 5

_WORDS = {
    "participant_id": "participant",
    "acquisition": "acquisition",
    "lesions": "lesions in the mask; for agreement: those that both decided on",
    "reader_1": "the network, or a reader",
    "reader_2": "another reader",
    "both_rim": "lesions with a rim for both",
    "only_1": "lesions with a rim for the first only",
    "only_2": "lesions with a rim for the second only",
    "neither": "lesions without a rim for both",
    "kappa": "Cohen's kappa; n/a where both say the same of every lesion, or share none",
}

#: acquisition and index of a lesion → 0, 1, unsure, or what the network's table holds
Marks = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Agreement:
    """Two readers over the lesions that both decided on."""

    readers: tuple[str, str]
    both: int
    only_1: int
    only_2: int
    neither: int

    @property
    def lesions(self) -> int:
        """How many both decided on."""
        return self.both + self.only_1 + self.only_2 + self.neither

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (Educ Psychol Meas 1960;20:37); None where it is not defined."""
        n = self.lesions
        if n == 0:
            return None
        seen = (self.both + self.neither) / n
        first, second = (self.both + self.only_1) / n, (self.both + self.only_2) / n
        chance = first * second + (1 - first) * (1 - second)
        return None if chance == 1 else (seen - chance) / (1 - chance)

    def sentence(self) -> str:
        """For the terminal."""
        known = "n/a" if self.kappa is None else f"{self.kappa:.2f}"
        lesions = "1 lesion" if self.lesions == 1 else f"{self.lesions} lesions"
        return f"rims: kappa of {' and '.join(self.readers)} is {known} over {lesions}"


def compare(name_1: str, first: Marks, name_2: str, second: Marks) -> Agreement:
    """Two readers' marks, lesion by lesion."""
    pairs = [(first[key], second[key]) for key in first.keys() & second.keys()]
    count = {(a, b): pairs.count((a, b)) for a in _DECIDED for b in _DECIDED}
    return Agreement((name_1, name_2), count["1", "1"], count["1", "0"], count["0", "1"],
                     count["0", "0"])  # fmt: skip


def write_rims(out: Path) -> list[str]:
    """Write counts and agreement into `out`, where there are lesions; what is to be said of them.

    Raises UsageError for a reader's table that is none.
    """
    tables = sorted(out.glob(f"sub-*/**/*_{LESIONS}"))
    if not tables:
        return []
    rows = {path.name.removesuffix(f"_{LESIONS}"): _read(path) for path in tables}
    found = {(name, row["index"]): row for name, lines in rows.items() for row in lines}
    network = {key: row["rim"] for key, row in found.items()}
    unclear = {key for key, row in found.items() if row.get("certainty") == "indeterminate"}
    readers = read_readers(out)
    pairs = [
        compare(a, marks_a, b, marks_b)
        for (a, marks_a), (b, marks_b) in combinations({NETWORK: network, **readers}.items(), 2)
    ]
    counts = [_counts(name, network, unclear, readers) for name in rows]
    said = [str(_write(out / COUNTS, counts))]
    if pairs:
        said.append(str(_write(out / AGREEMENT, [_row(pair) for pair in pairs])))
    else:
        for ending in (".tsv", ".json"):
            (out / f"{AGREEMENT}{ending}").unlink(missing_ok=True)
    strangers = sorted({key for marks in readers.values() for key in marks} - set(found))
    if strangers:
        some = ", ".join(f"lesion {index} of {name}" for name, index in strangers[:_SHOWN])
        more = " …" if len(strangers) > _SHOWN else ""
        said.append(f"rims: readers marked what is not here: {some}{more}")
    return said + [pair.sentence() for pair in pairs]


def read_readers(out: Path) -> dict[str, Marks]:
    """Marks by reader, of all tables in `out`. Raises UsageError."""
    found: dict[str, Marks] = {}
    where: dict[tuple[str, str, str], Path] = {}
    for path in sorted(out.glob(READ)):
        name = _RATER.search(path.name)
        rater = name[1] if name else UNNAMED
        for line, row in enumerate(_read(path), start=2):
            known = {key: (row.get(key) or "").strip() for key in ("acquisition", "index", "rim")}
            key, mark = (known["acquisition"], known["index"]), known["rim"]
            if not key[0] or not key[1].isdecimal() or mark not in (*_DECIDED, *_OPEN):
                raise UsageError(
                    f"{path}: line {line}: needs acquisition, index and rim (0, 1, unsure or "
                    "n/a), separated by tabs; save it again from the page of lesions"
                )
            if mark in ("n/a", ""):
                continue
            before = where.setdefault((rater, *key), path)
            if found.setdefault(rater, {}).setdefault(key, mark) != mark:
                raise UsageError(
                    f"{path.name} and {before.name}: {rater} marked lesion {key[1]} of {key[0]} "
                    "in two ways; keep the right table, or name the readers by rater-NAME"
                )
    return found


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeError, csv.Error) as exc:
        raise UsageError(f"{path}: cannot be read ({exc}); write it again as a table") from exc


def _counts(
    name: str, network: Marks, unclear: set[tuple[str, str]], readers: Mapping[str, Marks]
) -> dict[str, str]:
    """The row of an acquisition; n/a for a reader who did not look at it."""
    row = {
        "participant_id": name.split("_")[0],
        "acquisition": name,
        "lesions": str(sum(key[0] == name for key in network)),
        f"rims_{NETWORK}": str(sum(k[0] == name and m == "1" for k, m in network.items())),
        f"indeterminate_{NETWORK}": str(sum(key[0] == name for key in unclear)),
    }
    for rater, marks in readers.items():
        own = [mark for key, mark in marks.items() if key[0] == name]
        row |= {
            f"read_{rater}": str(len(own)),
            f"rims_{rater}": str(own.count("1")) if own else "n/a",
            f"unsure_{rater}": str(own.count("unsure")) if own else "n/a",
        }
    return row


def _row(pair: Agreement) -> dict[str, str]:
    return {
        "reader_1": pair.readers[0],
        "reader_2": pair.readers[1],
        "lesions": str(pair.lesions),
        "both_rim": str(pair.both),
        "only_1": str(pair.only_1),
        "only_2": str(pair.only_2),
        "neither": str(pair.neither),
        "kappa": "n/a" if pair.kappa is None else f"{pair.kappa:.4f}",
    }


def _write(place: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A table and its data dictionary; the table's path."""
    table = place.with_name(f"{place.name}.tsv")
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    write_text(table, "\n".join(lines) + "\n")
    words = {name: {"Description": _WORDS.get(name) or _describe(name)} for name in rows[0]}
    text = json.dumps(words, indent=2, ensure_ascii=False)
    write_text(place.with_name(f"{place.name}.json"), text + "\n")
    return table


def _describe(column: str) -> str:
    """What a column of one reader holds."""
    kind, _, who = column.partition("_")
    reader = "the network" if who == NETWORK else f"reader {who}"
    return {
        "rims": f"lesions with a paramagnetic rim for {reader}",
        "indeterminate": f"lesions whose rim is indeterminate for {reader}",
        "read": f"lesions that {reader} marked",
        "unsure": f"lesions that {reader} is unsure of",
    }[kind]
