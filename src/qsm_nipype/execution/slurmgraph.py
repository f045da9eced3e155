"""The whole graph handed to SLURM at once, its order kept by job dependencies.

Differs from Nipype's own SLURMGraph: jobs that depend on a failed one are taken off the queue
(there, they stay pending for ever), results of earlier runs are removed first, finished nodes are
not submitted again, and with `wait` (the default) failures are reported and fail the run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import networkx as nx
from nipype import logging
from nipype.pipeline.plugins.base import PluginBase

from qsm_nipype.execution import scheduler
from qsm_nipype.execution.crash import write_crash
from qsm_nipype.execution.scheduler import JobState, UnreachableError
from qsm_nipype.execution.slurm import Job, options, write_job

logger = logging.getLogger("nipype.workflow")


class SLURMGraphPlugin(PluginBase):
    """All nodes are submitted at once; `plugin_args` are `slurm.OPTIONS`."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=dict(plugin_args or {}))
        self.plugin_args.pop("status_callback", None)  # see SchedulingPlugin
        self._args = options(self.plugin_args)

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Submit `graph`. Raises RuntimeError when nodes failed, if it waits for them."""
        jobs: dict[Any, Job] = {}
        complete = False
        try:
            self._submit(graph, updatehash, jobs)
            for job in jobs.values():
                if job.refused:
                    self._crash(job, job.refused)
                    raise RuntimeError(job.refused)
            if self._args["wait"]:
                self._watch(jobs, float(config["execution"]["job_finished_timeout"]))
            complete = True
        finally:
            if not complete and self._args["kill_on_exit"]:
                scheduler.cancel(job.number for job in jobs.values() if job.number)

    def _submit(self, graph: Any, updatehash: bool, jobs: dict[Any, Job]) -> None:
        """Submit, parents first, every node that is not finished, until one is refused."""
        for node in nx.topological_sort(graph):
            parents = [jobs[parent] for parent in graph.predecessors(node) if parent in jobs]
            if not parents and _finished(node):
                self._tell(node, "end")
                continue
            job = write_job(node, self._args, updatehash, store_exception=False)
            job.arguments.insert(0, "--requeue")
            if parents:
                numbers = ":".join(parent.number for parent in parents)
                job.arguments.append(f"--dependency=afterok:{numbers}")
                job.arguments.append("--kill-on-invalid-dep=yes")
            jobs[node] = job
            job.submit(self._args)
            self._tell(node, "start")
            if job.refused:
                return

    def _watch(self, jobs: dict[Any, Job], patience: float) -> None:
        waiting, failures = dict(jobs), []
        for state_of in self._answers(waiting):
            for node, job in list(waiting.items()):
                state = state_of[job.number]
                if state.live or (reason := self._verdict(job, state, patience)) is None:
                    continue
                del waiting[node]
                if not reason:
                    self._tell(node, "end")
                elif _never_started(state):
                    logger.error("%s was not run: a step before it failed.", node.fullname)
                else:
                    failures.append(reason)
                    self._crash(job, reason, reported=state.state == "FAILED" and _reported(job))
        if failures:
            raise RuntimeError(f"{len(failures)} nodes failed; the first: {failures[0]}")

    def _answers(self, waiting: dict[Any, Job]) -> Any:
        """States of the waiting jobs, again and again until none waits."""
        answered = time.monotonic()
        while waiting:
            try:
                yield scheduler.states(job.number for job in waiting.values())
                answered = time.monotonic()
            except UnreachableError as error:
                if time.monotonic() - answered > self._args["outage_seconds"]:
                    text = f"SLURM does not answer any more: {error}\n"
                    for job in waiting.values():
                        self._crash(job, text)
                    raise RuntimeError(text) from error
                logger.warning("SLURM does not answer (%s); asking again.", error)
            if waiting:
                time.sleep(self._args["poll_seconds"])

    @staticmethod
    def _verdict(job: Job, state: JobState, patience: float) -> str | None:
        """Empty for success, else the reason; None while a result may still become visible."""
        if state.state in ("COMPLETED", scheduler.FORGOTTEN):
            if any(Path(job.node.output_dir()).glob("result_*.pklz")):
                return ""
            job.ended = job.ended or time.monotonic()
            if time.monotonic() - job.ended < patience:
                return None
        return job.report(state)

    def _crash(self, job: Job, reason: str, *, reported: bool = False) -> None:
        """Report a node's failure; of an exception, the job itself wrote the crash file."""
        if not reported:
            write_crash(job.node, reason)
        self._tell(job.node, "exception")

    def _tell(self, node: Any, event: str) -> None:
        if self._status_callback:
            self._status_callback(node, event)


def _never_started(state: JobState) -> bool:
    return "Dependency" in state.reason


def _reported(job: Job) -> bool:
    try:
        return "Crash file: " in job.log.read_text(errors="replace")
    except OSError:
        return False


def _finished(node: Any) -> bool:
    """Whether a node whose parents are finished has a result of the same inputs."""
    if node.overwrite or (node.overwrite is None and node.interface.always_run):
        return False
    try:
        cached, updated = node.is_cached()
    except Exception:  # inputs that cannot be read yet
        return False
    return bool(cached and updated)
