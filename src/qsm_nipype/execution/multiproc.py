"""Nodes in parallel on one machine, within its processors, memory and GPUs.

Differs from Nipype's own MultiProc, as measured with Nipype 1.11, where it matters:

* A worker that is killed (out of memory) is a reported failure of its node; there, the run hangs.
* A worker goes on to the next node, but not after a failure or with a GPU.
* Workers end within a second of their master, however it ended; there, they go on writing.
* Processes come from a fork server that holds no threads; there, `fork` deadlocks with torch.
* Each GPU node gets a device to itself; there, all of them compute on the first one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing import connection
from traceback import format_exception
from typing import Any

from nipype import logging

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import resources
from qsm_nipype.execution.scheduling import SchedulingPlugin
from qsm_nipype.execution.worker import (
    PRELOAD,
    Pool,
    Task,
    Worker,
    thread_environment,
    warm_up,
)

logger = logging.getLogger("nipype.workflow")
SILENT_SECONDS = 1.0  # s after which a worker that has said nothing is looked at all the same


@dataclass(frozen=True)
class Need:
    """What a node occupies while it runs."""

    memory_gb: float
    n_procs: int
    gpu: bool


class MultiProcPlugin(SchedulingPlugin):
    """A node runs in a process of its own, which another node may have after it.

    `plugin_args`: `n_procs`, `memory_gb` (default: what this machine, control group or SLURM job
    allows), `gpu_ids` (devices to hand out, one node each) or `n_gpu_procs` (the first so many),
    `raise_insufficient` (refuse a node that asks for more than there is; default: run it alone),
    `preload` (modules that the fork server imports, see `preload`).
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args)
        args = self.plugin_args
        self.processors = int(args.get("n_procs") or resources.available_cpus())
        self.memory_gb = float(args.get("memory_gb") or resources.available_memory_gb())
        ids = args.get("gpu_ids")
        if ids is None:
            ids = resources.gpu_ids(args.get("n_gpu_procs"))
        self.gpu_ids = [str(device) for device in ids]
        self._pool = Pool(warm_up(args.get("preload") or PRELOAD))
        self._taskid = 0
        self._workers: dict[int, Worker] = {}
        self._refused: dict[int, list[str]] = {}
        self._needs: dict[int, Need] = {}
        self._gpu_of: dict[int, str] = {}

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Execute `graph`; whatever ends this call ends its workers."""
        # workers wake us (see _send_procs_to_workers): no sleep between two looks at them
        awake = {
            **config,
            "execution": {**config["execution"], "poll_sleep_duration": 0},
        }
        try:
            super().run(graph, awake, updatehash=updatehash)
        finally:
            for taskid in list(self._workers):
                self._workers[taskid].kill()
                self._clear_task(taskid)
            self._pool.shrink(0, 0.0)
            self.pending_tasks.clear()

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Start what can start, then wait until a worker has something to say."""
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        if self._workers and not self._refused:
            connection.wait([worker.pipe for worker in self._workers.values()], SILENT_SECONDS)

    # ---- what is free ----------------------------------------------------------------------

    def _prerun_check(self, graph: Any) -> None:
        for node in graph.nodes():
            if node.is_gpu_node() and not self.gpu_ids:
                raise UsageError(
                    f"{node.fullname} is set to compute on a GPU but none may be used; "
                    "choose --device cpu, or give GPUs with --n-gpus."
                )
            self._check_size(node)

    def _check_size(self, node: Any) -> None:
        if node.mem_gb <= self.memory_gb and node.n_procs <= self.processors:
            return
        text = (
            f"{node.fullname} asks for {node.mem_gb:.1f} GB and {node.n_procs} processors, of "
            f"{self.memory_gb:.1f} GB and {self.processors} that may be used"
        )
        if self.plugin_args.get("raise_insufficient", False):
            raise UsageError(f"{text}; raise --mem or --nprocs.")
        logger.warning("%s; it will run alone.", text)

    def _need(self, node: Any) -> Need:
        return Need(
            memory_gb=min(node.mem_gb_runtime, self.memory_gb),
            n_procs=min(node.n_procs, self.processors),
            gpu=node.is_gpu_node(),
        )

    def _free_gb(self) -> float:
        return self.memory_gb - sum(need.memory_gb for need in self._needs.values())

    def _fits(self, node: Any) -> bool:
        need, taken = self._need(node), self._needs.values()
        return (
            need.memory_gb <= self._free_gb() + 1e-6
            and need.n_procs <= self.processors - sum(n.n_procs for n in taken)
            and not (need.gpu and len(self._gpu_of) >= len(self.gpu_ids))
        )

    # ---- submission ------------------------------------------------------------------------

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        taskid = self._taskid
        self._needs[taskid] = self._need(node)
        if getattr(node.interface, "terminal_output", "") == "stream":
            node.interface.terminal_output = "allatonce"
        try:
            environment = self._environment(taskid, node)
            self._workers[taskid] = self._hand_over(node, updatehash, environment)
        except Exception as error:  # cannot be pickled, no process left: this node's failure
            self._refused[taskid] = format_exception(error)
        return taskid

    def _hand_over(self, node: Any, updatehash: bool, environment: dict[str, str]) -> Worker:
        """A worker that works on `node`. A GPU keeps its first process's memory: that one ends."""
        gpu = node.is_gpu_node()
        task = Task.of(node, updatehash, environment, last=gpu)
        worker = Worker.start(self._pool.context) if gpu else self._pool.take(task)
        # those that wait hold memory, too
        self._pool.shrink(self.processors - len(self._needs), self._free_gb())
        worker.give(task)
        return worker

    def _environment(self, taskid: int, node: Any) -> dict[str, str]:
        device = ""  # a CPU node must not open a context on a GPU
        if self._needs[taskid].gpu:
            device = next(i for i in self.gpu_ids if i not in self._gpu_of.values())
            self._gpu_of[taskid] = device
        return {
            **os.environ,
            **thread_environment(node.n_procs or 1),
            "CUDA_VISIBLE_DEVICES": device,
            "NIPYPE_NO_ET": "1",
        }

    # ---- results ---------------------------------------------------------------------------

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        lines = self._refused.get(taskid)
        if lines is None:
            lines = self._workers[taskid].ended()
        return None if lines is None else {"result": None, "traceback": lines}

    def _clear_task(self, taskid: int) -> None:
        if (worker := self._workers.get(taskid)) is not None:
            self._pool.put(worker)
        for table in (self._workers, self._refused, self._needs, self._gpu_of):
            table.pop(taskid, None)
