"""A group run: the participants' tables joined, and an overview page of their quality."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_nipype import __version__
from qsm_nipype.dataset.derivatives import QC_COLUMNS, VERDICT_COLUMNS
from qsm_nipype.dataset.names import parse_name
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.execution.status import Report, survey
from qsm_nipype.report.group import OUTLIERS, GroupReport, group_html, group_report
from qsm_nipype.report.stored import entities_of, place_of_thumbnail
from qsm_nipype.report.words import without_folders
from qsm_nipype.run.ratings import RATINGS, WORDS, read_ratings, unknown, with_ratings
from qsm_nipype.run.rims import write_rims
from qsm_nipype.settings import Settings
from qsm_nipype.system.files import UnreadableError, read_text, write_text

#: Tables of the participants by the ending of their names.
KINDS = ("desc-qc_metrics", "desc-regions_stats")
#: The kind that has a row for each acquisition, those without results among them.
QUALITY = KINDS[0]
#: What `qsm-nipype status` calls a participant without the results of its last run.
FAILED = ("failed", "lost")
_LIGHTS = ("red", "yellow")
#: Columns that this command adds to those of the participants' tables.
ADDED = {
    "session_id": {"Description": "session"},
    "run": {"Description": "run"},
    "status": {
        "Description": "how the last run ended; results beside 'failed' are of an earlier one"
    },
    "error": {"Description": "why it failed"},
    OUTLIERS: {
        "Description": "measures far from those of the other acquisitions, by robust z: see "
        "docs/report.md"
    },
    **WORDS,
}
_DAMAGED = "no table of ours any more; process this participant again"
#: Names that a line of this command holds.
_NAMED = 5


def run(settings: Settings) -> int:
    """Join the participants' tables in the output folder; says who needs a look.

    Returns 0, or 1 when a table had to be left out. Raises UsageError when there is neither a
    table nor a failure, or when another run holds the group's files.
    """
    out = settings.output_dir
    found = {kind: participant_tables(out, kind) for kind in KINDS}
    reports = [report for report in survey(out) if report.label.startswith("sub-")]
    failed = [report.label for report in reports if report.status in FAILED]
    if not any(found.values()) and not failed:
        raise UsageError(f"{out}: no participant has results here; run 'participant' first")
    if settings.dry_run:
        for kind, paths in found.items():
            print(f"{len(paths)} tables would become {out / f'group_{kind}.tsv'}")
        _tell(out, failed)
        return 0
    from qsm_nipype.execution import lock

    lacking: list[str] = []
    with lock.output_lock(out, ["group"]):
        for kind, paths in found.items():
            rows, dictionary, faults = join(paths)
            for fault in faults:
                print(f"qsm-nipype: left out: {fault}", file=sys.stderr)
            lacking += faults
            rows = with_states(rows, reports, add=kind == QUALITY)
            if not rows:
                continue
            if kind == QUALITY:
                rows = _with_page(out, rows, dictionary, reports)
            dictionary = _of_columns(dictionary, rows)
            write_text(out / f"group_{kind}.tsv", to_tsv(rows))
            text = json.dumps(dictionary, indent=2, ensure_ascii=False)
            write_text(out / f"group_{kind}.json", text + "\n")
            print(out / f"group_{kind}.tsv")
        for line in write_rims(out):
            print(line)
    _tell(out, failed)
    return 1 if lacking else 0


def _with_page(
    out: Path,
    rows: Sequence[Mapping[str, str]],
    dictionary: Mapping[str, Any],
    reports: Sequence[Report],
) -> list[dict[str, str]]:
    """Write and announce the page; `rows` with the marks and the measures that stand out."""
    ratings = read_ratings(out / RATINGS)
    rows = with_ratings(rows, ratings)
    page = group_report(
        rows,
        version=__version__,
        dictionary=dictionary,
        reasons=_reasons(reports),
        thumbs=thumbnails(out, rows),
    )
    write_text(out / "group.html", group_html(page))
    print(out / "group.html")
    _tell_maps(page)
    if strangers := unknown(rows, ratings):
        print(f"{RATINGS} marks what is not here: {_some(strangers)}")
    return with_outliers(rows, page)


def _tell(out: Path, failed: Sequence[str]) -> None:
    if failed:
        who = "1 participant" if len(failed) == 1 else f"{len(failed)} participants"
        print(f"{who} failed: {_some(failed)}; see qsm-nipype status {out}")


def _tell_maps(page: GroupReport) -> None:
    """Which maps are red, which yellow, and which have a measure far from the others."""
    kinds = {f"{light}": [r.name for r in page.rows if r.state == light] for light in _LIGHTS}
    kinds["with a measure far from the others"] = [row.name for row in page.rows if row.outlying]
    for kind, names in kinds.items():
        if names:
            print(f"{len(names)} map{'' if len(names) == 1 else 's'} {kind}: {_some(names)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def with_outliers(rows: Sequence[Mapping[str, str]], page: GroupReport) -> list[dict[str, str]]:
    """Rows with the names of the measures that stand out, as the `page` of the rows shows them."""
    named = {row.name: ", ".join(row.outlying) for row in page.rows}
    return [{**row, OUTLIERS: named.get(row["acquisition"]) or "n/a"} for row in rows]


def _reasons(reports: Sequence[Report]) -> dict[str, tuple[str, ...]]:
    """Why the light of an acquisition is not green, by its name, as the last run wrote it."""
    verdicts = [verdict for report in reports for verdict in report.state.verdicts]
    return {
        str(v.get("acquisition", "")): (*v.get("errors", ()), *v.get("warnings", ()))
        for v in verdicts
    }


def thumbnails(out: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Small pictures of the maps that there are, by acquisition; paths below `out`."""
    places = {
        row["acquisition"]: place_of_thumbnail(entities_of(row["acquisition"])) for row in rows
    }
    return {label: path.as_posix() for label, path in places.items() if (out / path).is_file()}


def participant_tables(out: Path, kind: str) -> list[Path]:
    """The tables of one kind, by subject."""
    return sorted(out.glob(f"sub-*/**/*_{kind}.tsv"))


def join(paths: Sequence[Path]) -> tuple[list[dict[str, str]], dict[str, Any], list[str]]:
    """Rows of all tables, the data dictionary of their columns, and a sentence for each fault.

    A table that cannot be read is left out, and costs the others nothing.
    """
    rows: list[dict[str, str]] = []
    dictionary: dict[str, Any] = {**QC_COLUMNS, **ADDED, **VERDICT_COLUMNS}
    faults: list[str] = []
    for path in paths:
        try:
            own, words = _read_table(path), _read_words(path.with_suffix(".json"))
        except DataError as exc:
            faults.append(str(exc))
            continue
        rows += own
        dictionary |= words
    return rows, dictionary, faults


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a participant's table. Raises DataError."""
    try:
        text = read_text(path)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", restval="n/a"))
        for row in rows:
            row.pop(None, None)  # type: ignore[call-overload]  # fields beyond the columns
            who, name = (row.get(key) or "" for key in ("participant_id", "acquisition"))
            if not who.startswith("sub-") or f"{name}_".partition("_")[0] != who:
                raise DataError(f"{path}: {_DAMAGED}")
    except (UnreadableError, csv.Error) as exc:
        raise DataError(f"{path}: {exc}; process this participant again") from exc
    if not rows:
        raise DataError(f"{path}: {_DAMAGED}")
    return rows


def _read_words(path: Path) -> dict[str, Any]:
    """The data dictionary of a table; empty where there is none. Raises DataError."""
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path))
    except (UnreadableError, ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not valid JSON; process this participant again") from exc
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise DataError(f"{path}: no data dictionary; process this participant again")
    return content


def with_states(
    rows: Sequence[Mapping[str, str]], reports: Sequence[Report], *, add: bool
) -> list[dict[str, str]]:
    """Rows with session, run and how the last run ended; `add` those that have no results.

    A failure that names no acquisition counts for all of its participant.
    """
    shown: list[dict[str, str]] = []
    states = {report.label: report for report in reports}
    for row in rows:
        report = states.get(row["participant_id"])
        errors = failures(report) if report else {}
        error = errors.get(row["acquisition"], errors.get(row["participant_id"]))
        status = "n/a" if report is None else report.status
        if status in FAILED and error is None:
            status = "done"  # another of the participant's acquisitions failed
        shown.append({**row, "status": status, **({"error": error} if error else {})})
    known = {name for row in rows for name in (row["acquisition"], row["participant_id"])}
    for report in reports if add else ():
        for label, error in failures(report).items():
            if label not in known:
                who = {"participant_id": report.label, "acquisition": label}
                shown.append({**who, "status": report.status, "error": error})
    shown.sort(key=lambda row: row["participant_id"])
    return [_identified(row) for row in shown]


def _of_columns(
    dictionary: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The data dictionary without the columns that this command could add and has not."""
    used = {name for row in rows for name in row}
    ours = {*ADDED, *VERDICT_COLUMNS}
    return {k: v for k, v in dictionary.items() if k not in ours or k in used}


def failures(report: Report) -> dict[str, str]:
    """Why the last run failed, by acquisition (`sub-01_run-2`), or by participant (`sub-01`).

    Files are named without their folders: the group's table is made to be shared.
    """
    if report.status not in FAILED:
        return {}
    failed = report.state.failures if report.state.status == "failed" else ()
    found = {f.get("acquisition") or report.label: f["reason"] for f in failed}
    found = found or {report.label: report.why}
    return {label: without_folders(why) for label, why in found.items()}


def _identified(row: Mapping[str, str]) -> dict[str, str]:
    """The row with what distinguishes acquisitions in front, session and run in their columns."""
    entities, _ = parse_name(Path(f"{row['acquisition']}_x"))
    own = {"participant_id": row["participant_id"]}
    own |= {"session_id": f"ses-{entities['ses']}"} if "ses" in entities else {}
    own |= {"run": entities["run"]} if "run" in entities else {}
    rest = {key: value for key, value in row.items() if key not in ("status", "error")}
    state = {key: row[key] for key in ("status", "error") if key in row}
    return {**own, "acquisition": row["acquisition"], **state, **rest}


def to_tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the columns of all rows; what a row lacks is n/a."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=_place)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="n/a", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _place(column: str) -> int:
    """First what distinguishes rows, as BIDS wants it, then the state, then all others."""
    identifiers = ("participant_id", "session_id", "run", "acquisition")
    first = (*identifiers, "status", "error", *VERDICT_COLUMNS, OUTLIERS, *WORDS)
    return first.index(column) if column in first else len(first)
