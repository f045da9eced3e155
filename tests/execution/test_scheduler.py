"""Understanding SLURM's answers, from programs that answer in its place."""

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import scheduler
from qsm_nipype.execution.scheduler import JobState, RefusedError, UnreachableError
from qsm_nipype.execution.slurm import options


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell program of this name and body first on the path."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name, body):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    for name in ("sbatch", "squeue", "sacct", "scancel"):
        make(name, "exit 1")
    return make


def test_states_are_parsed(program):
    program("squeue", "printf '1|RUNNING|None|n1\\n2_3|TIMEOUT|TimeLimit|n2\\n'")
    found = scheduler.states(["1", "2_3", "9"])
    assert found["1"].live
    assert found["2_3"] == JobState("TIMEOUT", "TimeLimit, on n2")
    assert found["9"] == JobState(scheduler.FORGOTTEN)


def test_jobs_that_squeue_forgot_are_asked_of_the_accounting(program):
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    program("sacct", "printf '7|CANCELLED by 1000|0:15|n3\\n8|OUT_OF_ME+|0:125|n3\\n'")
    found = scheduler.states(["7", "8"])
    assert found["7"] == JobState("CANCELLED", "by 1000, exit code 0:15, on n3")
    assert found["8"].state == "OUT_OF_MEMORY"


@pytest.mark.parametrize(
    "message",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
    ],
)
def test_silence_is_not_an_ended_job(program, message):
    program("squeue", f"echo '{message}' >&2; exit 1")
    with pytest.raises(UnreachableError, match="slurm_load_jobs"):
        scheduler.states(["1"])


def test_no_jobs_ask_nothing(program):
    assert scheduler.states([]) == {}


def test_a_refusal_is_not_tried_again(program, tmp_path):
    program("sbatch", f"echo x >>{tmp_path}/tries; echo 'sbatch: error: no account' >&2; exit 1")
    with pytest.raises(RefusedError, match="(?s)sbatch --parsable.*no account"):
        scheduler.submit([], "job.sh", "name", pause=0.01)
    assert (tmp_path / "tries").read_text() == "x\n"


def test_a_submission_is_tried_again_while_the_controller_is_away(program, tmp_path):
    away = "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1"
    file = tmp_path / "tries"
    program(
        "sbatch", f"echo x >>{file}; [ $(wc -l <{file}) -ge 3 ] && echo '12;c' || {{ {away}; }}"
    )
    assert scheduler.submit([], "job.sh", "name", pause=0.01) == "12"
    assert file.read_text() == "x\nx\nx\n"


def test_a_job_whose_answer_was_lost_is_not_submitted_twice(program, tmp_path):
    file = tmp_path / "tries"
    program("sbatch", f"echo x >>{file}; echo 'Socket timed out on send/recv' >&2; exit 1")
    program("squeue", 'echo "$@" | grep -q -- --name=wf.unique && echo 34')
    assert scheduler.submit([], "job.sh", "wf.unique", pause=0.01) == "34"
    assert file.read_text() == "x\n"


def test_a_missing_sbatch_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="sbatch cannot be run"):
        scheduler.submit([], "job.sh", "name")


def test_variables_of_a_surrounding_job_do_not_reach_sbatch(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_CONF", "/x/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "brain")
    found = scheduler.environment()
    assert "SLURM_MEM_PER_CPU" not in found
    assert (found["SLURM_CONF"], found["SBATCH_ACCOUNT"]) == ("/x/slurm.conf", "brain")


class Node:
    def __init__(self, gpu=False, mem_gb=1.5, n_procs=2, **plugin_args):
        self.mem_gb, self.n_procs, self.plugin_args, self._gpu = mem_gb, n_procs, plugin_args, gpu

    def is_gpu_node(self):
        return self._gpu


def test_options_of_nodes():
    args = options({"partition": "cpu", "gpu_partition": "a100", "account": "brain"})
    need = [
        "--cpus-per-task=2",
        "--mem=2048M",
    ]  # 1.5 GB and half a GB of interpreter and libraries
    cpu = scheduler.resource_arguments(Node(), args)
    assert cpu == [*need, "--partition=cpu", "--account=brain"]
    gpu = scheduler.resource_arguments(Node(gpu=True), args)
    assert gpu == [*need, "--partition=a100", "--account=brain", "--gres=gpu:1"]


def test_what_the_user_adds_comes_last_and_overwrite_replaces_all():
    args = options({"time": "1:00:00", "sbatch_args": "--time=2:00:00 --comment='a b'"})
    node = Node(sbatch_args="--exclusive")
    found = scheduler.resource_arguments(node, args)
    assert found[2:] == ["--time=1:00:00", "--time=2:00:00", "--comment=a b", "--exclusive"]
    node = Node(sbatch_args="-p debug", overwrite=True)
    assert scheduler.resource_arguments(node, args) == ["-p", "debug"]


@pytest.mark.parametrize(("gb", "expected"), [(0, 1), (0.2, 205), (1, 1024), (2.0001, 2049)])
def test_memory_is_rounded_up_and_never_zero(gb, expected):
    assert scheduler.megabytes(gb) == expected


def test_an_unknown_option_of_the_plugin_is_refused():
    with pytest.raises(UsageError, match="no option 'partitoin'"):
        options({"partitoin": "cpu"})


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (JobState("TIMEOUT", "TimeLimit, on n2"), "reached its time limit; ask for more time"),
        (JobState("OUT_OF_MEMORY"), "used more memory than it asked for"),
        (JobState("NODE_FAIL"), "was lost with its machine"),
        (JobState("STRANGE", "x"), "is in state STRANGE (STRANGE, x)"),
    ],
)
def test_states_read_as_sentences(state, text):
    assert text in str(state)
