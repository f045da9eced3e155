"""What `qsm-nipype status` says, and that it does not believe the dead."""

import json
import os
import time

import pytest

from qsm_nipype.execution import scheduler, state, status
from qsm_nipype.execution.process import Owner
from qsm_nipype.execution.scheduler import JobState
from qsm_nipype.system import manifest


@pytest.fixture
def jobs(monkeypatch):
    """What SLURM answers, by job; a test fills it in."""
    known = {}

    def states(numbers):
        return {n: known.get(n, JobState(scheduler.FORGOTTEN)) for n in numbers}

    monkeypatch.setattr("qsm_nipype.execution.scheduler.states", states)
    return known


def owner(**changes):
    return {**Owner.current().record(), **changes}


def only(out):
    (report,) = status.survey(out)
    return report


def grow_old(out, label="sub-01"):
    """As if the last sign of life were long ago."""
    file = out / "logs" / "state" / f"{label}.json"
    content = json.loads(file.read_text())
    content["updated"] -= 2 * state.LOST_AFTER
    file.write_text(json.dumps(content))
    old = time.time() - 2 * state.LOST_AFTER
    os.utime(file, (old, old))


def test_done_and_failed_are_told_with_their_reasons(tmp_path, jobs):
    state.write(tmp_path, "sub-01", "done")
    faults = [state.failure("tkd", "no field", "c.txt"), state.failure("", "disk full")]
    state.write(tmp_path, "sub-02", "failed", failures=faults)
    done, failed = status.survey(tmp_path)
    assert (done.status, failed.status) == ("done", "failed")
    assert failed.why == "tkd: no field; disk full"


def test_a_live_run_shows_its_progress(tmp_path, jobs):
    state.write(tmp_path, "sub-01", "running", nodes_done=3, nodes_total=20)
    assert only(tmp_path).status == "running"
    assert "3 of 20 steps" in only(tmp_path).why


def test_a_dead_process_is_a_failure_whatever_its_file_says(tmp_path, jobs):
    state.write(tmp_path, "sub-01", "running", owner=owner(started="1"))
    assert only(tmp_path).status == "failed"
    assert "ended without a report" in only(tmp_path).why


def test_a_process_elsewhere_is_believed_while_it_shows_life(tmp_path, jobs):
    state.write(tmp_path, "sub-01", "running", owner=owner(kernel="another"))
    assert only(tmp_path).status == "running"
    grow_old(tmp_path)
    assert only(tmp_path).status == "lost"
    assert "no sign of life since" in only(tmp_path).why


@pytest.mark.parametrize(
    ("job", "status_now", "why"),
    [
        (JobState("PENDING", "Resources"), "queued", "SLURM job 9_1: Resources"),
        (JobState("RUNNING", "on n1"), "running", "since"),
        (JobState("TIMEOUT", "TimeLimit"), "failed", "reached its time limit"),
        (JobState("OUT_OF_MEMORY"), "failed", "used more memory"),
        (JobState("CANCELLED"), "failed", "was cancelled"),
        (JobState("COMPLETED"), "failed", "ended without a report"),
    ],
)
@pytest.mark.parametrize("written", ["submitted", "running"])
def test_slurm_knows_better(tmp_path, jobs, written, job, status_now, why):
    state.write(tmp_path, "sub-01", written, owner=owner(kernel="another", job="9_1"))
    jobs["9_1"] = job
    assert only(tmp_path).status == status_now
    assert why in only(tmp_path).why


def test_a_submission_that_slurm_forgot_is_lost_after_a_while(tmp_path, jobs):
    state.write(tmp_path, "sub-01", "submitted", owner={"job": "9_1"})
    assert only(tmp_path).status == "queued"
    grow_old(tmp_path)
    assert only(tmp_path).status == "lost"


def test_the_table_puts_first_what_needs_attention(tmp_path, jobs, capsys):
    state.write(tmp_path, "sub-01", "done")
    state.write(
        tmp_path, "sub-02", "failed", failures=[state.failure("tkd", "no", "/c/crash.txt")]
    )
    assert status.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["sub-02", "failed", "tkd:", "no"]
    assert lines[1].split() == ["see", "/c/crash.txt"]
    assert lines[2].split() == ["sub-01", "done"]
    assert lines[3] == "1 failed, 1 done"


def test_json_holds_all(tmp_path, jobs, capsys):
    state.write(tmp_path, "sub-01", "done", nodes_total=20, nodes_done=20)
    assert status.main([str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["label"], entry["status"], entry["state"]["nodes_total"]) == (
        "sub-01",
        "done",
        20,
    )


def test_a_folder_without_a_run_is_said(tmp_path, capsys):
    assert status.main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no run has started here" in capsys.readouterr().err


def test_damaged_results_are_found_by_their_checksums(tmp_path, jobs, capsys):
    verdicts = [{"acquisition": "sub-01", "light": "green"}]
    for label in ("sub-01", "sub-02"):
        state.write(tmp_path, label, "done", verdicts=verdicts)
        (tmp_path / label).mkdir()
        (tmp_path / label / "map.nii.gz").write_text("map")
        (tmp_path / f"{label}.html").write_text("</html>")
        names = tmp_path / manifest.FOLDER / f"{label}.json"
        manifest.remember(names, tmp_path, [tmp_path / label / "map.nii.gz"])
    assert status.main([str(tmp_path), "--verify"]) == 0
    (tmp_path / "sub-02" / "map.nii.gz").write_text("mop")
    assert status.main([str(tmp_path)]) == 0
    assert status.main([str(tmp_path), "--verify"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert any("sub-02  damaged  sub-02/map.nii.gz has another content" in line for line in said)
    assert said[-1] == "1 damaged, 1 done (1 green)"
    assert [r.status for r in status.survey(tmp_path, verify="sizes")] == ["done", "done"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 10**5, '{"schema": 1}', '{"schema": 1, "label": 3, "status": "done", '
     '"failures": 1}', '{"schema": 1, "label": "sub-01", "status": "well"}',
     '{"schema": 1, "label": "sub-01", "status": "failed", "failures": [{"x": 1}]}',
     '{"schema": 1, "label": "sub-01", "status": "done", "verdicts": ["x"]}',
     '{"schema": 1, "label": "sub-01", "status": "done", "updated": "now"}'],
)  # fmt: skip
def test_a_damaged_state_is_a_failure_with_a_cure(tmp_path, jobs, text, capsys):
    state.write(tmp_path, "sub-02", "done")
    (tmp_path / "logs" / "state" / "sub-01.json").write_text(text)
    assert status.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "sub-01.json: this state file cannot be read; give the command again" in said
    assert "sub-02  done" in said
