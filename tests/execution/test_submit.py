"""A job array with one participant per task: what is written, what SLURM makes of it."""

import json
import shlex
import subprocess
import sys

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import state, status
from qsm_nipype.execution.submit import Submission, submit

TASK = """
import json, os, sys
from qsm_nipype.execution import state
out, label = sys.argv[1], "sub-" + sys.argv[sys.argv.index("--participant-label") + 1]
with state.running(out, {label: "v1"}):
    with open(os.path.join(out, "ran"), "a") as stream:
        stream.write(label + "\\n")
    if label == "sub-02" and not os.path.exists(os.path.join(out, "repaired")):
        raise ValueError("echo times are missing")
    state.write(out, label, "done")
"""
GROUP = """
import os, sys
from qsm_nipype.execution import state
with open(os.path.join(sys.argv[1], "group"), "w") as stream:
    stream.write(" ".join(s.status for s in state.read_all(sys.argv[1])))
"""


def request(out, **changes):
    command = (sys.executable, "-c", TASK, str(out))
    values = {
        "out_dir": out,
        "participants": ("01", "02", "03"),
        "command": command,
        "settings": {f"sub-{n:02d}": "v1" for n in range(1, 6)},
        "memory_gb": 0.5,
        **changes,
    }
    return Submission(**values)


def scripts_of(out, capsys, **changes):
    assert submit(request(out, **changes), dry_run=True) == []
    return capsys.readouterr().out


@pytest.fixture
def no_slurm(monkeypatch, tmp_path):
    """A machine without SLURM."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_dry_run_prints_the_scripts_and_leaves_nothing(no_slurm, tmp_path, capsys):
    out = tmp_path / "out"
    text = scripts_of(
        out,
        capsys,
        command=("qsm-nipype", "/data/my study", str(out), "participant"),
        group_command=("qsm-nipype", "/data/my study", str(out), "group"),
        array_size=2,
        n_procs=4,
        memory_gb=12,
        n_gpus=1,
        sbatch_args="--account=brain",
    )
    for line in (
        "#SBATCH --array=0-2%2",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=12288M",
        "#SBATCH --gres=gpu:1",
        "participants=(01 02 03)",
        f"exec qsm-nipype '/data/my study' {out} participant --participant-label \"$participant\"",
        f"exec qsm-nipype '/data/my study' {out} group",
    ):
        assert line in text.splitlines()
    assert "# sbatch --account=brain " in text
    assert not out.exists()


def test_the_scripts_are_shell(no_slurm, tmp_path, capsys, monkeypatch):
    text = scripts_of(tmp_path, capsys, participants=("01", "a'b"), group_command=("true", "x y"))
    subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("index", [0, 1])
def test_a_task_takes_its_participant(no_slurm, tmp_path, capsys, index):
    text = scripts_of(tmp_path, capsys, participants=("01", "x y"), command=("/bin/echo", "run"))
    done = subprocess.run(
        ["/bin/bash"],
        input=text,
        text=True,
        capture_output=True,
        check=True,
        env={"SLURM_ARRAY_TASK_ID": str(index)},
    )
    assert done.stdout.strip() == f"run --participant-label {('01', 'x y')[index]}"


def test_a_task_that_was_restarted_too_often_gives_up(no_slurm, tmp_path, capsys):
    text = scripts_of(tmp_path, capsys, command=("/bin/echo", "run"))
    environment = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": "4"}
    done = subprocess.run(
        ["/bin/bash"], input=text, text=True, capture_output=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "sub-02: gave up" in done.stderr


def test_a_container_runs_the_same_command_with_its_folders(no_slurm, tmp_path, capsys):
    image = tmp_path / "qsm image.sif"
    image.touch()
    text = scripts_of(
        tmp_path,
        capsys,
        command=("qsm-nipype", "/data", "/out", "participant"),
        container=image,
        binds=(tmp_path / "data", tmp_path / "out"),
        n_gpus=1,
    )
    line = next(line for line in text.splitlines() if line.startswith("exec "))
    words = shlex.split(line)
    assert words[1:4] == ["apptainer", "exec", "--nv"]
    assert words[4:8] == [
        *("--bind", f"{tmp_path}/data:{tmp_path}/data"),
        *("--bind", f"{tmp_path}/out:{tmp_path}/out"),
    ]
    assert words[8:11] == [str(image), "qsm-nipype", "/data"]
    assert "unset PYTHONPATH" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participants": ()}, "no participant"),
        ({"array_size": 0}, "--array-size 0"),
        ({"container": "absent.sif"}, "absent.sif: the container image does not exist"),
        ({"sbatch_args": "--comment='a"}, "--sbatch-args"),
    ],
)
def test_what_cannot_be_submitted_is_refused(no_slurm, tmp_path, changes, message):
    from pathlib import Path

    if "container" in changes:
        changes = {"container": Path(changes["container"])}
    with pytest.raises(UsageError, match=message):
        submit(request(tmp_path, **changes))


def test_without_slurm_it_is_said_in_one_sentence(no_slurm, tmp_path):
    with pytest.raises(UsageError, match="sbatch cannot be run") as caught:
        submit(request(tmp_path))
    assert "\n" not in str(caught.value)


def test_only_what_is_missing_is_submitted(no_slurm, tmp_path, capsys):
    state.write(tmp_path, "sub-01", "done", settings="v1")
    state.write(tmp_path, "sub-02", "failed", settings="v1")
    state.write(tmp_path, "sub-03", "done", settings="older")
    state.write(tmp_path, "sub-04", "running", settings="v1")  # this process: alive
    text = scripts_of(tmp_path, capsys, participants=("01", "02", "03", "04", "05"))
    assert "participants=(02 03 05)" in text
    assert "2 participants are done, running or in the queue" in text


def test_nothing_missing_is_nothing_submitted(no_slurm, tmp_path, capsys):
    state.write(tmp_path, "sub-01", "done", settings="v1")
    assert submit(request(tmp_path, participants=("01",))) == []
    assert "Nothing is left to submit" in capsys.readouterr().out


def statuses(out):
    return {report.label: report.status for report in status.survey(out)}


def settled(out):
    return not {"queued", "running"} & set(statuses(out).values())


@pytest.mark.slurm
def test_an_array_runs_reports_and_is_submitted_again_for_what_failed(slurm, tmp_path, capsys):
    out = tmp_path / "it's 100% %j out"  # whatever a path may hold
    group = (sys.executable, "-c", GROUP, str(out))
    first = submit(request(out, group_command=group, array_size=1))
    assert len(first) == 2
    assert set(statuses(out)) == {"sub-01", "sub-02", "sub-03"}
    assert slurm.wait_for((out / "group").exists, 60)
    assert statuses(out) == {"sub-01": "done", "sub-02": "failed", "sub-03": "done"}
    assert (out / "group").read_text() == "done failed done"  # it waited for all, failed or not
    assert status.main([str(out)]) == 1
    assert "echo times are missing" in capsys.readouterr().out

    (out / "repaired").touch()
    (out / "ran").unlink()
    submit(request(out))
    assert slurm.wait_for(lambda: statuses(out)["sub-02"] == "done", 60)
    assert (out / "ran").read_text() == "sub-02\n"
    assert status.main([str(out)]) == 0


@pytest.mark.slurm
def test_more_participants_than_an_array_may_have_are_several_arrays(slurm, tmp_path):
    labels = tuple(f"{n:02d}" for n in range(3, 11))  # the test cluster allows 6 per array
    numbers = submit(request(tmp_path, participants=labels))
    assert len(numbers) == 2
    assert slurm.wait_for(lambda: settled(tmp_path), 90)
    assert set(statuses(tmp_path).values()) == {"done"}
    assert sorted((tmp_path / "ran").read_text().split()) == [f"sub-{p}" for p in labels]


SLEEP = TASK.replace('    state.write(out, label, "done")', "    import time; time.sleep(100)")


@pytest.mark.slurm
def test_status_sees_queued_running_cancelled_and_killed_tasks(slurm, tmp_path, capsys):
    out = tmp_path / "out"
    command = (sys.executable, "-c", SLEEP, str(out))
    (number,) = submit(request(out, participants=("03", "04"), command=command, array_size=1))
    assert slurm.wait_for(lambda: statuses(out) == {"sub-03": "running", "sub-04": "queued"})
    assert submit(request(out, participants=("03", "04"), command=command)) == []
    slurm.tell("scancel", f"{number}_1")
    assert slurm.wait_for(lambda: statuses(out)["sub-04"] == "failed")
    slurm.tell("scancel", "--signal=KILL", "--full", f"{number}_0")
    assert slurm.wait_for(lambda: statuses(out)["sub-03"] == "failed")
    capsys.readouterr()
    status.main([str(out), "--json"])
    why = {r["label"]: r["why"] for r in json.loads(capsys.readouterr().out)}
    assert "was cancelled" in why["sub-04"]
    # SLURM ends a job by SIGTERM and, KillWait later, SIGKILL: the task may still say so itself
    assert "SLURM job" in why["sub-03"] or "ended by SIGTERM" in why["sub-03"]


@pytest.mark.slurm
def test_a_cancelled_task_writes_down_why_it_ended(slurm, tmp_path):
    command = (sys.executable, "-c", SLEEP, str(tmp_path))
    (number,) = submit(request(tmp_path, participants=("03",), command=command))
    assert slurm.wait_for((tmp_path / "ran").exists)
    slurm.tell("scancel", "--batch", "--signal=TERM", number)
    assert slurm.wait_for(lambda: state.read(tmp_path, "sub-03").status == "failed")
    assert "SIGTERM" in state.read(tmp_path, "sub-03").failures[0]["reason"]


@pytest.mark.slurm
def test_a_refused_submission_leaves_no_job(slurm, tmp_path):
    with pytest.raises(UsageError, match="SLURM refused the job: .*nowhere"):
        submit(request(tmp_path, sbatch_args="--partition=nowhere"))
    assert not slurm.jobs("PD,R")
    assert statuses(tmp_path) == {}
