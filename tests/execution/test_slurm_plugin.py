"""SLURM and SLURMGraph on a real, private SLURM, with jobs, machines and controller failing."""

import contextlib
import socket
import subprocess
import threading
import time

import pytest

from qsm_nipype.execution.slurm import SLURMPlugin
from qsm_nipype.execution.slurmgraph import SLURMGraphPlugin

pytestmark = pytest.mark.slurm


def plugin(**args):
    return SLURMPlugin({"poll_seconds": 0.2, **args})


def graph_plugin(**args):
    return SLURMGraphPlugin({"poll_seconds": 0.2, **args})


@contextlib.contextmanager
def meanwhile(action):
    """Run `action` in a thread beside the block; its error, if any, is raised after the block."""
    errors = []

    def guarded():
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


# ---- node functions --------------------------------------------------------------------------


def note(folder, name, previous=0):
    with open(f"{folder}/{name}", "a") as stream:
        stream.write("ran\n")
    return previous + 1


def look(use_gpu=False):
    import os

    names = "SLURM_CPUS_PER_TASK SLURM_MEM_PER_NODE SLURM_JOB_PARTITION CUDA_VISIBLE_DEVICES"
    return [os.environ.get(name) for name in f"{names} OMP_NUM_THREADS LOGNAME".split()]


def fail(text):
    raise ValueError(text)


def rest(folder, seconds, value=1):
    import time

    with open(f"{folder}/started", "a") as stream:
        stream.write("x")
    time.sleep(seconds)
    return value


def gorge(megabytes):
    import time

    hold = bytearray(megabytes * 2**20)
    time.sleep(60)
    return len(hold)


def ran(folder, name):
    file = folder / name
    return len(file.read_text().split()) if file.exists() else 0


def outputs(graph):
    return {node.name: node.result.outputs.out for node in graph.nodes()}


# ---- one job per node ------------------------------------------------------------------------


def test_a_chain_runs_and_a_rerun_submits_nothing(slurm, workflow, tmp_path, monkeypatch):
    monkeypatch.delenv("LOGNAME", raising=False)
    workflow.graph.base_dir = str(tmp_path / "it's 100% %j work")  # whatever a path may hold
    first = workflow.node("first", note, folder=str(tmp_path), name="a")
    workflow.node("second", note, after=first, folder=str(tmp_path), name="b")
    assert outputs(workflow.graph.run(plugin=plugin())) == {"first": 1, "second": 2}
    monkeypatch.setattr("qsm_nipype.execution.slurm.write_job", None)
    workflow.graph.run(plugin=plugin())
    assert (ran(tmp_path, "a"), ran(tmp_path, "b")) == (1, 1)


def test_jobs_ask_for_what_their_nodes_need(slurm, workflow, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")  # as inside a job: clashes with --mem
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    workflow.node("cpu", look, mem_gb=0.3, n_procs=2, use_gpu=False)
    workflow.node("gpu", look, mem_gb=0.25, use_gpu=True)
    result = outputs(workflow.graph.run(plugin=plugin(gpu_partition="gpu")))
    assert result["cpu"][:5] == ["2", "820", "cpu", "", "2"]
    assert result["gpu"][:5] == ["1", "768", "gpu", "0", "1"]


def test_an_exception_in_a_node_leaves_a_crash_file(slurm, workflow, tmp_path):
    workflow.node("fails", fail, text="echo times are not sorted")
    workflow.node("works", note, folder=str(tmp_path), name="a")
    with pytest.raises(RuntimeError, match="echo times are not sorted"):
        workflow.graph.run(plugin=plugin())
    assert "ValueError: echo times are not sorted" in workflow.crash_text()
    assert socket.gethostname() not in workflow.crash_text()
    assert ran(tmp_path, "a") == 1


def test_a_cancelled_running_job_fails_its_node_and_the_rest_completes(slurm, workflow, tmp_path):
    long = workflow.node("long", rest, folder=str(tmp_path), seconds=100)
    workflow.node("after", note, after=long, folder=str(tmp_path), name="never")
    workflow.node("other", note, folder=str(tmp_path), name="a")

    def cancel():
        assert slurm.wait_for((tmp_path / "started").exists)
        for line in slurm.tell("squeue", "-h", "-o", "%A %j").splitlines():
            if line.split()[1].startswith("long."):
                slurm.tell("scancel", line.split()[0])

    with (
        meanwhile(cancel),
        pytest.raises(RuntimeError, match=r"node wf\.long was cancelled"),
    ):
        workflow.graph.run(plugin=plugin())
    assert (ran(tmp_path, "a"), ran(tmp_path, "never")) == (1, 0)
    assert "was cancelled" in workflow.crash_text()


def test_a_stale_result_is_not_taken_for_a_job_that_never_ran(slurm, workflow, tmp_path):
    node = workflow.node("node", rest, folder=str(tmp_path), seconds=0, value=1)
    workflow.graph.run(plugin=plugin())
    assert list((tmp_path / "work" / "wf" / "node").glob("result_*.pklz"))
    node.inputs.value = 2

    def cancel():
        assert slurm.wait_for(lambda: slurm.jobs("PENDING"))
        slurm.tell("scancel", *slurm.jobs("PENDING"))

    with meanwhile(cancel), pytest.raises(RuntimeError, match="was cancelled"):
        workflow.graph.run(plugin=plugin(sbatch_args="--hold"))
    again = workflow.graph.run(plugin=plugin())
    assert outputs(again) == {"node": 2}


def test_a_refused_job_is_reported_in_slurms_words(slurm, workflow, tmp_path):
    node = workflow.node("refused", note, folder=str(tmp_path), name="never")
    node.plugin_args = {"sbatch_args": "--partition=nowhere"}
    workflow.node("works", note, folder=str(tmp_path), name="a")
    with pytest.raises(
        RuntimeError, match="(?s)SLURM refused the job of node wf.refused.*nowhere"
    ):
        workflow.graph.run(plugin=plugin())
    assert (ran(tmp_path, "a"), ran(tmp_path, "never")) == (1, 0)
    assert "sbatch --parsable" in workflow.crash_text()


def test_too_little_memory_is_named_or_at_least_reported(slurm, workflow):
    workflow.node("gorge", gorge, megabytes=600, mem_gb=0.15)
    with pytest.raises(
        RuntimeError, match=r"node wf\.gorge (used more memory|was cancelled|ended)"
    ):
        workflow.graph.run(plugin=plugin())


@pytest.mark.slow  # SLURM's shortest limit is a minute
def test_the_time_limit_is_named(slurm, workflow, tmp_path):
    workflow.node("long", rest, folder=str(tmp_path), seconds=300)
    with pytest.raises(RuntimeError, match="reached its time limit; ask for more time"):
        workflow.graph.run(plugin=plugin(time="1"))


def fail_machine(slurm, tmp_path):
    """Fail the machine under a running job."""
    assert slurm.wait_for((tmp_path / "started").exists)
    slurm.fail_machine()


def test_a_failed_machine_is_survived(slurm, workflow, tmp_path):
    workflow.node("node", rest, folder=str(tmp_path), seconds=4, value=5)
    with meanwhile(lambda: fail_machine(slurm, tmp_path)):
        result = outputs(workflow.graph.run(plugin=plugin()))
    assert result == {"node": 5}
    assert (tmp_path / "started").read_text() == "xx"


def test_machines_that_go_on_failing_are_a_failure(slurm, workflow, tmp_path):
    workflow.node("node", rest, folder=str(tmp_path), seconds=60)
    with (
        meanwhile(lambda: fail_machine(slurm, tmp_path)),
        pytest.raises(RuntimeError, match="was lost with its machine"),
    ):
        workflow.graph.run(plugin=plugin(max_retries=0))


def test_an_absent_controller_is_waited_for(slurm, workflow, tmp_path, monkeypatch):
    monkeypatch.setattr("qsm_nipype.execution.scheduler.call", quick_call)
    node = workflow.node("node", rest, folder=str(tmp_path), seconds=6)
    workflow.node("next", note, after=node, folder=str(tmp_path), name="a")

    def outage():
        assert slurm.wait_for((tmp_path / "started").exists)
        slurm.stop_controller()
        time.sleep(4)
        slurm.start_controller()

    with meanwhile(outage):
        result = outputs(workflow.graph.run(plugin=plugin()))
    assert result == {"node": 1, "next": 2}
    assert (tmp_path / "started").read_text() == "x"


def test_a_submission_waits_for_the_controller_and_then_gives_up(slurm, workflow, tmp_path):
    workflow.node("node", note, folder=str(tmp_path), name="a")
    slurm.stop_controller()
    try:
        with pytest.raises(RuntimeError, match="SLURM refused the job.*"):
            workflow.graph.run(plugin=plugin(submit_seconds=1))
    finally:
        slurm.start_controller()
    workflow.graph.run(plugin=plugin())
    assert ran(tmp_path, "a") == 1


def quick_call(command, timeout=60.0):
    """`scheduler.call` that does not wait out SLURM's own ten seconds of trying."""
    from qsm_nipype.execution.scheduler import environment

    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=2, check=False, env=environment()
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 255, "", "Socket timed out")


def test_an_interrupted_run_leaves_no_job(slurm, workflow, tmp_path):
    workflow.node("long", rest, folder=str(tmp_path), seconds=100)

    made = plugin()
    ask = made._get_result

    def interrupt(taskid):
        if (tmp_path / "started").exists():
            raise KeyboardInterrupt
        return ask(taskid)

    made._get_result = interrupt
    with pytest.raises(KeyboardInterrupt):
        workflow.graph.run(plugin=made)
    assert slurm.wait_for(lambda: not slurm.jobs("PD,R,S"))


# ---- the whole graph at once -----------------------------------------------------------------


def test_a_graph_runs_in_order_and_a_rerun_submits_nothing(slurm, workflow, tmp_path, monkeypatch):
    first = workflow.node("first", note, folder=str(tmp_path), name="a")
    second = workflow.node("second", note, after=first, folder=str(tmp_path), name="b")
    workflow.graph.run(plugin=graph_plugin())
    workflow.node("third", note, after=second, folder=str(tmp_path), name="c")
    assert outputs(workflow.graph.run(plugin=graph_plugin()))["third"] == 3
    assert [ran(tmp_path, name) for name in "abc"] == [1, 1, 1]
    monkeypatch.setattr("qsm_nipype.execution.slurmgraph.write_job", None)
    workflow.graph.run(plugin=graph_plugin())


def test_failures_in_a_graph_are_reported_and_nothing_stays_pending(slurm, workflow, tmp_path):
    bad = workflow.node("bad", fail, text="echo times are not sorted")
    after = workflow.node("after", note, after=bad, folder=str(tmp_path), name="never")
    workflow.node("last", note, after=after, folder=str(tmp_path), name="never")
    workflow.node("other", note, folder=str(tmp_path), name="a")
    events = []

    def tell(node, event):
        events.append((node.name, event))

    with pytest.raises(RuntimeError, match=r"(?s)1 nodes failed; .*node wf\.bad ended with"):
        workflow.graph.run(plugin=graph_plugin(status_callback=tell))
    assert [event for event in events if event[1] == "exception"] == [("bad", "exception")]
    assert ("other", "end") in events
    assert (ran(tmp_path, "a"), ran(tmp_path, "never")) == (1, 0)
    assert not slurm.jobs("PD,R")
    assert "ValueError: echo times are not sorted" in workflow.crash_text()
    assert len(list(workflow.crashes.glob("crash*"))) == 1


def test_a_cancelled_job_of_a_graph_leaves_a_crash_file(slurm, workflow, tmp_path):
    workflow.node("long", rest, folder=str(tmp_path), seconds=100)

    def cancel():
        assert slurm.wait_for((tmp_path / "started").exists)
        slurm.tell("scancel", *slurm.jobs("RUNNING"))

    with meanwhile(cancel), pytest.raises(RuntimeError, match="was cancelled"):
        workflow.graph.run(plugin=graph_plugin())
    assert "was cancelled" in workflow.crash_text()


def test_a_refused_job_takes_its_graph_off_the_queue(slurm, workflow, tmp_path):
    first = workflow.node("first", rest, folder=str(tmp_path), seconds=100)
    second = workflow.node("second", note, after=first, folder=str(tmp_path), name="never")
    second.plugin_args = {"sbatch_args": "--partition=nowhere"}
    with pytest.raises(RuntimeError, match=r"SLURM refused the job of node wf\.second"):
        workflow.graph.run(plugin=graph_plugin())
    assert slurm.wait_for(lambda: not slurm.jobs("PD,R"))
    assert "nowhere" in workflow.crash_text()


def test_a_graph_may_be_left_to_slurm(slurm, workflow, tmp_path):
    first = workflow.node("first", note, folder=str(tmp_path), name="a")
    workflow.node("second", note, after=first, folder=str(tmp_path), name="b")
    workflow.graph.run(plugin=graph_plugin(wait=False))
    assert slurm.wait_for(lambda: ran(tmp_path, "b") == 1)
