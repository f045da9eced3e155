"""The group level: who failed is in its tables, visits have columns, rows lead to their pages."""

import csv
import json
from pathlib import Path

import pytest

from qsm_nipype import cli
from qsm_nipype.execution import state

LABELS = ("sub-01_ses-post_run-1", "sub-01_ses-pre_run-1", "sub-02_ses-pre_run-1")


@pytest.fixture
def out(tmp_path) -> Path:
    """Tables of three acquisitions, all well; a fourth participant has none."""
    for label in LABELS:
        subject, session, _ = label.split("_")
        anat = tmp_path / subject / session / "anat"
        anat.mkdir(parents=True, exist_ok=True)
        rows = [("participant_id", "acquisition", "chi_sd"), (subject, label, "0.02")]
        text = "".join("\t".join(row) + "\n" for row in rows)
        for kind in ("qc_metrics", "regions_stats"):
            (anat / f"{label}_desc-{kind}.tsv").write_text(text)
    for label in ("sub-01", "sub-02"):
        state.write(tmp_path, label, "done")
    return tmp_path


def fail(out: Path, subject: str, acquisition: str = "") -> None:
    fault = {**state.failure("graph.tkd", "no phase image"), "acquisition": acquisition}
    state.write(out, subject, "failed", failures=[fault])


def joined(out: Path, kind: str = "qc_metrics") -> list[dict[str, str]]:
    """Rows of the group's table after the command."""
    assert cli.main(["bids", str(out), "group"]) == 0
    with (out / f"group_desc-{kind}.tsv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_sessions_and_runs_have_columns_and_a_dictionary(out):
    rows = joined(out)
    first = ["participant_id", "session_id", "run", "acquisition", "status", "outliers", "chi_sd"]
    assert list(rows[0]) == first
    assert [(r["session_id"], r["run"]) for r in rows] == [("ses-post", "1"), ("ses-pre", "1")] + [
        ("ses-pre", "1")
    ]
    assert {row["status"] for row in rows} == {"done"}
    words = json.loads((out / "group_desc-qc_metrics.json").read_text())
    assert {"session_id", "run", "status"} <= set(words) and "error" not in words


def test_without_sessions_there_are_no_such_columns(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    table = "participant_id\tacquisition\nsub-01\tsub-01\n"
    (anat / "sub-01_desc-qc_metrics.tsv").write_text(table)
    row = {"participant_id": "sub-01", "acquisition": "sub-01", "status": "n/a"}
    assert joined(tmp_path) == [{**row, "outliers": "n/a"}]


def test_a_participant_that_failed_has_a_row_and_is_counted(out, capsys):
    fail(out, "sub-03", "sub-03_ses-pre_run-1")
    rows = joined(out)
    assert "1 participant failed: sub-03; see qsm-nipype status" in capsys.readouterr().out
    added = rows[-1]
    assert (added["participant_id"], added["session_id"]) == ("sub-03", "ses-pre")
    assert (added["status"], added["error"], added["chi_sd"]) == (
        "failed",
        "no phase image",
        "n/a",
    )
    page = (out / "group.html").read_text()
    assert "1 failed" in page and "no phase image" in page
    assert len(joined(out, "regions_stats")) == 3


def test_results_of_an_earlier_run_are_marked(out):
    fail(out, "sub-01", "sub-01_ses-pre_run-1")
    assert [r["status"] for r in joined(out)] == ["done", "failed", "done"]
    assert [r["status"] for r in joined(out, "regions_stats")] == ["done", "failed", "done"]


@pytest.mark.parametrize("acquisition", ["", "sub-01"])
def test_a_failure_without_acquisition_marks_all_of_the_participant(out, acquisition):
    fail(out, "sub-01", acquisition)
    assert [r["status"] for r in joined(out)] == ["failed", "failed", "done"]


def test_only_failures_still_make_a_table(tmp_path, capsys):
    fail(tmp_path, "sub-07")
    assert [r["participant_id"] for r in joined(tmp_path)] == ["sub-07"]
    assert "1 participant failed" in capsys.readouterr().out


def test_nothing_at_all_is_refused(tmp_path, capsys):
    assert cli.main(["bids", str(tmp_path), "group"]) == 2
    assert "no participant has results here" in capsys.readouterr().err


def test_rows_are_named_once_and_lead_to_their_place(out):
    joined(out)
    page = (out / "group.html").read_text()
    assert 'href="sub-01.html#ses-pre-run-1"' in page
    assert f">{LABELS[1]}</a>" in page and f"run-1 {LABELS[1]}" not in page


def test_verdicts_and_outliers_have_columns_and_are_told(tmp_path, capsys):
    for i in range(12):
        label, light = f"sub-{i:02d}", {3: "red", 4: "yellow", 5: "yellow"}.get(i, "green")
        anat = tmp_path / label / "anat"
        anat.mkdir(parents=True)
        noise = 90.0 if i == 7 else 3 + 0.1 * i
        counts = [int(light == "red"), int(light != "green")]
        names = ("participant_id", "acquisition", "verdict", "errors", "warnings", "field_noise")
        text = "\t".join(names) + "\n"
        text += "\t".join(map(str, (label, label, light, *counts, noise))) + "\n"
        (anat / f"{label}_desc-qc_metrics.tsv").write_text(text)
        verdict = {"acquisition": label, "light": light, "errors": ["streaks"] * counts[0]}
        state.write(tmp_path, label, "done", verdicts=[verdict])
    rows = joined(tmp_path)
    said = capsys.readouterr().out
    assert "1 map red: sub-03\n" in said and "2 maps yellow: sub-04, sub-05\n" in said
    assert "1 map with a measure far from the others: sub-07\n" in said
    assert [r["outliers"] for r in rows] == ["n/a"] * 7 + ["field_noise"] + ["n/a"] * 4
    assert list(rows[0])[2:7] == ["status", "verdict", "errors", "warnings", "outliers"]
    assert [r["verdict"] for r in rows].count("green") == 9
    words = json.loads((tmp_path / "group_desc-qc_metrics.json").read_text())
    assert {"verdict", "errors", "warnings", "outliers"} <= set(words)
    page = (tmp_path / "group.html").read_text()
    assert page.index("sub-03.html") < page.index("sub-04.html") < page.index("sub-07.html")
    assert "streaks" in page
