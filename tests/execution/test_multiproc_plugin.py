"""What must hold when workers die, and that what is promised to nodes is kept."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.execution.multiproc import MultiProcPlugin


def plugin(**args):
    return MultiProcPlugin({"n_procs": 2, "memory_gb": 2, **args})


# ---- node functions: they travel as source text, so they import what they need ---------------


def note(log, previous=0, name=""):
    import os

    # A string that names a file is hashed by the file's content: give the folder to be cached.
    with open(f"{log}/{name}" if name else log, "a") as stream:
        stream.write(f"{os.getpid()}\n")
    return previous + 1


def die(log, previous=0):
    import os
    import signal

    with open(log, "a") as stream:
        stream.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code):
    import os

    os._exit(code)


def fail(text):
    raise ValueError(text)


def linger(log, seconds):
    import os
    import subprocess
    import time

    child = subprocess.Popen(["sleep", str(seconds)])
    with open(log, "a") as stream:
        stream.write(f"{os.getpid()}\n{child.pid}\n")
    time.sleep(seconds)
    return 1


def span(log, seconds, use_gpu=False):
    import os
    import time

    start = time.time()
    time.sleep(seconds)
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    with open(log, "a") as stream:
        stream.write(f"{start} {time.time()} {device or '-'}\n")
    return 1


def threads(names):
    import os

    import numba
    import torch

    @numba.njit(parallel=True)
    def total(n):
        found = 0.0
        for i in numba.prange(n):
            found += i
        return found

    total(100)  # starts numba's threads, whose number torch follows
    variables = [os.environ[name] for name in names]
    return [torch.get_num_threads(), numba.get_num_threads(), *map(int, variables)]


def overlap(spans):
    """Most spans (start, end) that hold at the same time."""
    events = sorted([(s, 1) for s, _ in spans] + [(e, -1) for _, e in spans])
    best = now = 0
    for _, step in events:
        now += step
        best = max(best, now)
    return best


# ---- killed workers --------------------------------------------------------------------------


def test_a_killed_worker_fails_its_node_and_the_rest_completes(workflow, tmp_path):
    ran, after, killed = tmp_path / "ran", tmp_path / "after", tmp_path / "killed"
    first = workflow.node("killed", die, log=str(killed))
    workflow.node("dependant", note, after=first, log=str(after))
    for name in ("a", "b", "c"):
        workflow.node(name, note, log=str(ran))

    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"wf\.killed was killed by SIGKILL \(out of memory"):
        workflow.graph.run(plugin=plugin())

    assert time.monotonic() - start < 120  # it does not hang
    assert len(ran.read_text().split()) == 3
    assert not after.exists()
    assert len(killed.read_text().split()) == 1
    assert "SIGKILL" in workflow.crash_text().splitlines()[-1]  # the reason stands last


def test_a_worker_that_exits_says_its_code(workflow):
    workflow.node("quits", leave, code=3)
    with pytest.raises(RuntimeError, match="ended with exit code 3 before it could report"):
        workflow.graph.run(plugin=plugin())


def test_an_exception_leaves_a_crash_file_with_its_traceback(workflow, tmp_path):
    workflow.node("fails", fail, text="echo times are not sorted")
    workflow.node("works", note, log=str(tmp_path / "ran"))
    with pytest.raises(RuntimeError, match="echo times are not sorted"):
        workflow.graph.run(plugin=plugin())
    assert "ValueError: echo times are not sorted" in workflow.crash_text()
    assert (tmp_path / "ran").exists()


def test_two_failures_are_two_crash_files(workflow):
    workflow.node("one", fail, text="first fault")
    workflow.node("two", fail, text="second fault")
    with pytest.raises(RuntimeError, match="2 raised"):
        workflow.graph.run(plugin=plugin())
    assert len(list(workflow.crashes.glob("crash*.txt"))) == 2


def test_a_node_that_cannot_be_pickled_fails_alone(workflow, tmp_path):
    node = workflow.node("unpicklable", note, log=str(tmp_path / "never"))
    workflow.node("works", note, log=str(tmp_path / "ran"))
    node.plugin_args = {"stream": open(os.devnull)}  # noqa: SIM115  (deepcopy refuses it too)
    node.__class__ = type("Opaque", (type(node),), {"__deepcopy__": lambda self, memo: self})
    with pytest.raises(RuntimeError, match="pickle"):
        workflow.graph.run(plugin=plugin())
    assert (tmp_path / "ran").exists()


def test_stop_on_first_crash_ends_the_workers(workflow, tmp_path, wait_for, gone):
    log = tmp_path / "pids"
    workflow.graph.config["execution"]["stop_on_first_crash"] = "true"
    workflow.node("long", linger, log=str(log), seconds=60)
    workflow.node("fails", fail, text="no")
    with pytest.raises(RuntimeError):
        workflow.graph.run(plugin=plugin())
    pids = log.read_text().split() if log.exists() else []
    assert wait_for(lambda: all(map(gone, pids)))


def test_a_killed_fork_server_fails_what_runs_and_is_replaced(workflow, tmp_path, wait_for, gone):
    from multiprocessing import forkserver

    pids = tmp_path / "pids"
    workflow.node("long", linger, log=str(pids), seconds=60)
    last = None
    for number in range(3):
        last = workflow.node(f"n{number}", note, after=last, log=str(tmp_path), name="ran")
    made = plugin()
    ask = made._get_result

    def kill_server_once(taskid):
        if pids.exists() and pids.stat().st_size and made._get_result is kill_server_once:
            made._get_result = ask
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        return ask(taskid)

    made._get_result = kill_server_once
    start = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        workflow.graph.run(plugin=made)
    # one node or two were running when the server died; of two, Nipype raises from the first
    reason = str(caught.value.__cause__ or caught.value)
    assert re.search(r"process of node wf\.\w+ ended with exit code", reason)
    assert time.monotonic() - start < 45
    assert wait_for(lambda: all(map(gone, pids.read_text().split())))


# ---- what nodes are promised -----------------------------------------------------------------


def test_gpu_nodes_get_a_device_each_and_cpu_nodes_none(workflow, tmp_path):
    log = tmp_path / "spans"
    for number in range(4):
        workflow.node(f"gpu{number}", span, log=str(log), seconds=0.4, use_gpu=True)
    workflow.node("cpu", span, log=str(log), seconds=0.1, use_gpu=False)
    workflow.graph.run(plugin=plugin(n_procs=8, gpu_ids=["3", "GPU-abc"]))
    lines = [line.split() for line in log.read_text().splitlines()]
    used = {}
    for start, end, device in lines:
        used.setdefault(device, []).append((float(start), float(end)))
    assert set(used) == {"3", "GPU-abc", "-"}
    assert all(overlap(spans) == 1 for device, spans in used.items())
    assert overlap(used["3"] + used["GPU-abc"]) == 2


def test_gpu_nodes_without_a_gpu_are_refused_before_anything_runs(workflow, tmp_path):
    workflow.node("works", note, log=str(tmp_path / "ran"))
    workflow.node("net", span, log=str(tmp_path / "never"), seconds=0, use_gpu=True)
    with pytest.raises(UsageError, match=r"wf\.net is set to compute on a GPU"):
        workflow.graph.run(plugin=plugin(gpu_ids=[]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("mem_gb", "n_procs", "most"),
    [(0.1, 1, 4), (0.1, 2, 2), (0.9, 1, 2), (1.5, 1, 1), (5, 1, 1)],
)
def test_running_nodes_keep_within_processors_and_memory(
    workflow, tmp_path, mem_gb, n_procs, most
):
    log = tmp_path / "spans"
    for number in range(4):
        workflow.node(
            f"n{number}",
            span,
            log=str(log),
            seconds=0.5,
            mem_gb=mem_gb,
            n_procs=n_procs,
        )
    workflow.graph.run(plugin=plugin(n_procs=4, memory_gb=2))
    spans = [tuple(map(float, line.split()[:2])) for line in log.read_text().splitlines()]
    assert len(spans) == 4
    assert overlap(spans) <= most
    assert most == 1 or overlap(spans) > 1


def test_a_node_too_big_is_refused_on_request(workflow, tmp_path):
    workflow.node("huge", note, log=str(tmp_path / "never"), mem_gb=50)
    with pytest.raises(UsageError, match=r"wf\.huge asks for 50\.0 GB .* raise --mem"):
        workflow.graph.run(plugin=plugin(raise_insufficient=True))


@pytest.mark.parametrize("n_procs", [1, 2])
def test_threads_follow_the_node(workflow, tmp_path, n_procs):
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"]
    workflow.node("threads", threads, names=names, n_procs=n_procs)
    graph = workflow.graph.run(plugin=plugin())
    result = next(iter(graph.nodes())).result.outputs.out
    assert result == [n_procs] * 5


def test_waiting_threads_of_a_worker_sleep(workflow, monkeypatch):
    def look():
        import os

        return os.environ["OMP_WAIT_POLICY"]

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    workflow.node("look", look)
    graph = workflow.graph.run(plugin=plugin())
    assert next(iter(graph.nodes())).result.outputs.out == "passive"


def test_environment_and_folder_are_those_of_the_master_now(workflow, tmp_path, monkeypatch):
    def look():
        import os

        return [
            os.environ.get("QSM_TEST_LATE"),
            os.environ.get("LOGNAME"),
            os.getpgrp(),
        ]

    plugin()  # the fork server runs before the variable is set
    monkeypatch.setenv("QSM_TEST_LATE", "yes")
    monkeypatch.delenv("LOGNAME", raising=False)
    workflow.node("look", look)
    graph = workflow.graph.run(plugin=plugin())
    late, login, group = next(iter(graph.nodes())).result.outputs.out
    assert (late, login) == ("yes", None)
    assert group != os.getpgrp()


def test_a_cached_graph_starts_no_process(workflow, tmp_path, monkeypatch):
    last = None
    for number in range(5):
        last = workflow.node(f"n{number}", note, after=last, log=str(tmp_path), name="ran")
    workflow.graph.run(plugin=plugin())
    again = plugin()
    monkeypatch.setattr("qsm_nipype.execution.multiproc.Worker.start", None)
    workflow.graph.run(plugin=again)
    assert len((tmp_path / "ran").read_text().split()) == 5


def test_every_part_of_a_mapnode_runs_and_one_failure_is_reported(workflow, tmp_path):
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    def part(number):
        if number == 3:
            raise ValueError("part three")
        return number * 2

    interface = Function(function=part, input_names=["number"], output_names=["out"])
    good = engine.MapNode(interface, iterfield=["number"], name="good")
    good.inputs.number = [1, 2, 4]
    bad = engine.MapNode(interface, iterfield=["number"], name="bad")
    bad.inputs.number = [1, 3]
    workflow.graph.add_nodes([good, bad])
    with pytest.raises(RuntimeError, match="part three"):
        workflow.graph.run(plugin=plugin())
    workflow.graph.remove_nodes([bad])
    graph = workflow.graph.run(plugin=plugin())
    assert next(iter(graph.nodes())).result.outputs.out == [2, 4, 8]


def test_events_are_told_and_do_not_travel_to_the_workers(workflow, tmp_path):
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    events = []

    def double(x):
        return 2 * x

    interface = Function(function=double, input_names=["x"], output_names=["out"])
    parts = engine.MapNode(interface, iterfield=["x"], name="parts")
    parts.inputs.x = [1]  # a single part runs as a MapNode in its worker
    workflow.graph.add_nodes([parts])
    workflow.node("fails", fail, text="no")
    with pytest.raises(RuntimeError, match="no"):
        workflow.graph.run(
            plugin=plugin(status_callback=lambda node, event: events.append((node.name, event)))
        )
    assert sorted(events) == [
        *(("fails", "exception"), ("fails", "start")),
        *(("parts", "end"), ("parts", "start")),
    ]


def test_the_fork_server_holds_one_thread(workflow, tmp_path):
    """A process forked beside other threads can deadlock."""
    from multiprocessing import forkserver

    workflow.node("n", note, log=str(tmp_path / "ran"))
    workflow.graph.run(plugin=plugin())
    server = forkserver._forkserver._forkserver_pid
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
