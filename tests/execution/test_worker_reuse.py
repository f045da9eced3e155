"""Worker processes that go on to another node: which may, and how the others end."""

import os
import signal

import pytest

from qsm_nipype.execution.multiproc import MultiProcPlugin
from qsm_nipype.execution.worker import Pool, Task, warm_up


def plugin():
    return MultiProcPlugin({"n_procs": 2, "memory_gb": 2})


# ---- node functions: they travel as source text, so they import what they need ---------------


def fail(text):
    raise ValueError(text)


def nap(seconds):
    import time

    time.sleep(seconds)
    return 1


def who(folder, name, keep=0.0, leave=False, previous=0):
    import builtins
    import os
    import subprocess
    from pathlib import Path

    (Path(folder) / f"pid-{name}").write_text(str(os.getpid()))
    if keep:
        builtins.kept = b"x" * int(keep * 2**30)
    if leave:
        subprocess.Popen(["sleep", "30"])
    return previous + 1


def siblings(previous=0, other=0):
    import os

    import psutil

    return len(psutil.Process(os.getppid()).children())


def sign_off(log):
    from multiprocessing.util import Finalize
    from pathlib import Path

    Finalize(None, Path(log).touch, exitpriority=1)
    return 0


# ---- tests ---------------------------------------------------------------------------------


def chain(workflow, folder, **last):
    """Nodes a, b, c after one another; `last` are inputs of a."""
    folder.mkdir()
    first = workflow.node("a", who, folder=str(folder), name="a", **last)
    second = workflow.node("b", who, after=first, folder=str(folder), name="b")
    return workflow.node("c", who, after=second, folder=str(folder), name="c")


def pids(folder):
    return [(folder / f"pid-{name}").read_text() for name in "abc"]


def test_a_process_works_on_one_node_after_the_other(workflow, tmp_path):
    chain(workflow, tmp_path / "ran")
    workflow.graph.run(plugin=plugin())
    assert len(set(pids(tmp_path / "ran"))) == 1


@pytest.mark.parametrize("trace", [{"keep": 0.6}, {"leave": True}])
def test_a_process_that_holds_much_or_left_others_is_not_used_again(workflow, tmp_path, trace):
    chain(workflow, tmp_path / "ran", **trace)
    workflow.graph.run(plugin=plugin())
    a, b, c = pids(tmp_path / "ran")
    assert a != b == c


def test_a_process_that_holds_much_takes_nodes_of_its_kind(workflow, tmp_path):
    chain(workflow, tmp_path / "ran", keep=0.6)
    for name in "abc":
        workflow.graph.get_node(name)._mem_gb = 1.5
    workflow.graph.run(plugin=plugin())
    assert len(set(pids(tmp_path / "ran"))) == 1


def test_a_process_that_waits_at_the_end_tidies_up(workflow, tmp_path):
    workflow.node("only", sign_off, log=str(tmp_path / "left"))
    workflow.graph.run(plugin=plugin())
    assert (tmp_path / "left").exists()


def test_a_process_with_other_threads_is_not_used_again(workflow, tmp_path):
    chain(workflow, tmp_path / "ran")
    workflow.graph.get_node("b").n_procs = 2
    workflow.graph.run(plugin=plugin())
    a, b, c = pids(tmp_path / "ran")
    assert a != b != c


def test_a_process_whose_node_failed_ends(workflow, tmp_path, nipype_settings):
    node = workflow.node("fails", fail, text="no")
    node.base_dir, node.config = str(tmp_path), nipype_settings
    task = Task.of(node, False, dict(os.environ))
    worker = Pool(warm_up()).take(task)
    worker.give(task)
    assert worker.pipe.poll(60)
    assert "ValueError: no" in worker.ended()[-1]
    assert not worker.usable()
    assert not worker.process.is_alive()


def test_a_process_killed_while_it_waits_fails_nothing(workflow, tmp_path):
    chain(workflow, tmp_path / "ran")
    made, killed = plugin(), []
    put = made._pool.put

    def kill_and_put(worker):
        put(worker)
        killed.append(worker.process.pid)
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()

    made._pool.put = kill_and_put
    workflow.graph.run(plugin=made)
    assert sorted(killed) == sorted(map(int, pids(tmp_path / "ran")))
    assert len(set(killed)) == 3


def test_waiting_processes_end_where_a_node_needs_their_memory(workflow):
    first = workflow.node("one", nap, seconds=0.5)
    second = workflow.node("two", nap, seconds=0.5)
    last = workflow.node("last", siblings, after=first, other=0, mem_gb=1.9)
    workflow.graph.connect(second, "out", last, "other")
    graph = workflow.graph.run(plugin=plugin())
    found = {node.name: node.result.outputs.out for node in graph.nodes()}
    assert found["last"] == 1
