"""A group run: the participants' tables joined, and an overview page of their quality."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_nipype import __version__
from qsm_nipype.errors import UsageError
from qsm_nipype.interfaces.bids import QC_COLUMNS
from qsm_nipype.interfaces.files import write_text
from qsm_nipype.settings import Settings

#: Tables of the participants by the ending of their names.
KINDS = ("desc-qc_metrics", "desc-regions_stats")


def run(settings: Settings) -> int:
    """Join the participants' tables in the output folder. Returns 0.

    Raises UsageError when there is none, or when another run holds the group's files.
    """
    out = settings.output_dir.absolute()
    found = {kind: participant_tables(out, kind) for kind in KINDS}
    if not any(found.values()):
        raise UsageError(f"{out}: no participant has results here; run 'participant' first")
    if settings.dry_run:
        for kind, paths in found.items():
            print(f"{len(paths)} tables would become {out / f'group_{kind}.tsv'}")
        return 0
    from qsm_nipype.execution import lock

    with lock.output_lock(out, ["group"]):
        for kind, paths in ((k, p) for k, p in found.items() if p):
            rows, dictionary = join(paths)
            write_text(out / f"group_{kind}.tsv", to_tsv(rows))
            text = json.dumps(dictionary, indent=2, ensure_ascii=False)
            write_text(out / f"group_{kind}.json", text + "\n")
            print(out / f"group_{kind}.tsv")
            if kind == "desc-qc_metrics":
                print(write_overview(out, rows, dictionary))
    return 0


def participant_tables(out: Path, kind: str) -> list[Path]:
    """The tables of one kind, by subject."""
    return sorted(out.glob(f"sub-*/**/*_{kind}.tsv"))


def join(paths: Sequence[Path]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Rows of all tables, and the data dictionary of their columns."""
    rows: list[dict[str, str]] = []
    dictionary: dict[str, Any] = dict(QC_COLUMNS)
    for path in paths:
        with path.open(encoding="utf-8", newline="") as stream:
            rows += list(csv.DictReader(stream, delimiter="\t"))
        words = path.with_suffix(".json")
        if words.exists():
            dictionary |= json.loads(words.read_text(encoding="utf-8"))
    return rows, dictionary


def to_tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the columns of all rows; what a row lacks is n/a."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="n/a", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def write_overview(
    out: Path, rows: Sequence[Mapping[str, Any]], dictionary: Mapping[str, Any]
) -> Path:
    """The page group.html: every measure as a strip of dots, outliers marked, a sortable table."""
    from qsm_nipype.report.group import group_html, group_report

    page = group_html(group_report(rows, version=__version__, dictionary=dictionary))
    write_text(out / "group.html", page)
    return out / "group.html"
