"""Nodes as SLURM jobs, one each, watched from here until all have ended.

Differs from Nipype's own SLURM plugin, as measured with Nipype 1.11, where it matters:

* A job that was killed, cancelled or timed out is a reported failure of its node; there, the whole
  run ends with a TypeError and without a crash file.
* A result that an earlier run left in the node's folder is removed before the job is submitted;
  there, it is taken for the result of a job that was cancelled before it started.
* A refused sbatch is reported with SLURM's words; there, it is an IndexError.
* A machine that fails is survived by a bounded number of new submissions; there, SLURM requeues
  and the plugin waits without bound.
* A controller that is away for a while is waited for; there, its silence counts as finished.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype import logging
from nipype.pipeline.engine.utils import load_resultfile
from nipype.utils.filemanip import savepkl

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import scheduler
from qsm_nipype.execution.scheduler import JobState, RefusedError, UnreachableError
from qsm_nipype.execution.scheduling import SchedulingPlugin
from qsm_nipype.execution.worker import thread_environment

logger = logging.getLogger("nipype.workflow")

OPTIONS: dict[str, Any] = {
    "template": "#!/bin/bash",  # start of every job script, or a file that holds it
    "partition": None,
    "account": None,
    "qos": None,
    "time": None,
    "constraint": None,
    "gpu_partition": None,  # of GPU nodes; default: partition
    "gpu_args": "--gres=gpu:1",  # what GPU nodes add
    "sbatch_args": "",  # what all nodes add; wins over all of the above
    "overhead_gb": 0.5,  # added to a node's memory: interpreter and libraries, in every job anew
    "max_jobs": None,  # in the queue at a time
    "max_retries": 2,  # new submissions of a node after its machine failed
    "poll_seconds": 2.0,  # between two questions to the controller
    "outage_seconds": 3600.0,  # the longest absence of the controller that is waited for
    "submit_seconds": 600.0,  # the longest absence that a submission waits for
    "kill_on_exit": True,  # cancel what is queued when the run is interrupted
    "wait": True,  # SLURMGraph only: stay until all jobs have ended, and report failures
}
MEMORY_KILL = re.compile(r"exceeded (job |step )?memory limit|oom[-_ ]kill", re.IGNORECASE)
TAIL = 15  # lines of a job's log that a failure shows


def options(plugin_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """`plugin_args` on top of the defaults. Raises UsageError for an option that is not known."""
    given = dict(plugin_args or {})
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise UsageError(
            f"plugin_args: SLURM has no option {unknown[0]!r}; known are {', '.join(OPTIONS)}."
        )
    return {**OPTIONS, **given}


@dataclass
class Job:
    """A node's job; `number` changes when it is submitted again."""

    node: Any
    script: Path
    arguments: list[str]
    number: str = ""
    tries: int = 0
    refused: str = ""
    ended: float | None = None

    @property
    def log(self) -> Path:
        """What the job printed."""
        return self.script.with_name(f"slurm-{self.number}.out")

    def submit(self, args: Mapping[str, Any]) -> None:
        """Submit it; a refusal is kept in `refused`."""
        self.tries += 1
        self.ended = None
        remove_results(self.node)  # else they could be taken for this job's
        name = f"{self.node._id}.{self.node._hierarchy or ''}.{uuid.uuid4().hex[:8]}"
        folder = str(self.script.parent).replace("%", "%%")
        output = f"--output={folder}/slurm-%j.out"
        try:
            self.number = scheduler.submit(
                [output, *self.arguments], self.script, name, patience=args["submit_seconds"]
            )
        except RefusedError as error:
            self.refused = f"SLURM refused the job of node {self.node.fullname}: {error}\n"
        logger.info("Submitted %s as SLURM job %s.", self.node.fullname, self.number or "(none)")

    def report(self, state: JobState) -> str:
        """The end of its log, then why it failed."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL:]
        except OSError:
            lines = ["(there is none)"]
        if state.state == "FAILED" and MEMORY_KILL.search("\n".join(lines)):
            return self._told(lines, JobState("OUT_OF_MEMORY", state.reason))
        return self._told(lines, state)

    def _told(self, lines: list[str], state: JobState) -> str:
        """The last line is the reason: it is what summaries show."""
        head = f"SLURM job {self.number} of node {self.node.fullname} {state}."
        return "\n".join([f"End of {self.log}:", *lines, f"{head}\n"])


def remove_results(node: Any) -> None:
    """Remove results that an earlier run left in a node's folder."""
    for file in Path(node.output_dir()).glob("result_*.pklz"):
        file.unlink(missing_ok=True)


def write_job(
    node: Any, args: Mapping[str, Any], updatehash: bool, *, store_exception: bool = True
) -> Job:
    """Write a node's script."""
    program = _write_program(node, updatehash, store_exception)
    template = str(args["template"])
    if template and not template.startswith("#!"):
        try:
            template = Path(template).read_text()
        except OSError as error:
            raise UsageError(
                f"{template}: the job template cannot be read; it starts with #! or is a file."
            ) from error
    variables = thread_environment(node.n_procs or 1)
    if not node.is_gpu_node():
        variables["CUDA_VISIBLE_DEVICES"] = ""  # a CPU node must not open a context on a GPU
    lines = [f"export {name}={value}" for name, value in variables.items()]
    if not store_exception:  # in a graph, SLURM itself requeues: bound that
        bound = f'if [ "${{SLURM_RESTART_COUNT:-0}}" -gt {args["max_retries"]} ]; then'
        lines += [bound, '  echo "Gave up: too many machines failed." >&2', "  exit 1", "fi"]
    lines.append(f"exec {shlex.join([sys.executable, str(program)])}")
    script = program.with_name(f"batchscript_{program.stem}.sh")
    script.write_text("\n".join([template.rstrip("\n"), *lines, ""]))
    return Job(node, script, scheduler.resource_arguments(node, args))


def _write_program(node: Any, updatehash: bool, store_exception: bool) -> Path:
    """Store a node beside the Python program that runs it; the program's path.

    Nipype's own puts paths between quotes as they are, and the host into what a job leaves.
    """
    folder = Path(node.base_dir, *(node._hierarchy or "").split(".")[:1], "batch")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%d_%H%M%S')}_{node._hierarchy or ''}_{node._id}"
    stored = folder / f"node_{name}.pklz"
    savepkl(str(stored), {"node": node, "updatehash": updatehash})
    program = folder / f"pyscript_{name}.py"
    program.write_text(
        "from qsm_nipype.execution.job import run_stored\n\n"
        f"run_stored({str(stored)!r}, store_exception={store_exception})\n",
        encoding="utf-8",
    )
    return program


class SLURMPlugin(SchedulingPlugin):
    """One job per node that is ready; `plugin_args` are `OPTIONS`."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args)
        self._args = options(self.plugin_args)
        self._taskid = 0
        self._jobs: dict[int, Job] = {}
        self._states: dict[str, JobState] = {}
        self._asked = float("-inf")
        self._answered = time.monotonic()

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Execute `graph`; whatever ends this call takes its jobs off the queue."""
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            if self._args["kill_on_exit"]:
                scheduler.cancel(job.number for job in self._jobs.values() if job.number)
            self._jobs.clear()
            self.pending_tasks.clear()

    def _fits(self, node: Any) -> bool:
        return len(self._jobs) < (self._args["max_jobs"] or float("inf"))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        job = write_job(node, self._args, updatehash)
        job.arguments.insert(0, "--no-requeue")  # we submit again ourselves, and count
        job.submit(self._args)
        self._jobs[self._taskid] = job
        return self._taskid

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        job = self._jobs[taskid]
        if job.refused:
            return _failure(job.refused)
        state = self._state(job)
        if state is None or state.live:
            return None
        if state.state in scheduler.NOT_ITS_FAULT and job.tries <= self._args["max_retries"]:
            logger.warning("SLURM job %s %s; trying again.", job.number, state)
            job.submit(self._args)
            return None
        return self._ended(job, state)

    def _ended(self, job: Job, state: JobState) -> dict[str, Any] | None:
        """Result of a job that has ended; None while it may still become visible."""
        if state.state not in ("COMPLETED", scheduler.FORGOTTEN):
            return _failure(_stored_traceback(job) + job.report(state))
        files = list(Path(job.node.output_dir()).glob("result_*.pklz"))
        if not files:  # network file systems show a new file late
            job.ended = job.ended or time.monotonic()
            patience = float(self._config["execution"]["job_finished_timeout"])
            if time.monotonic() - job.ended < patience:
                return None
            return _failure(job.report(JobState(state.state, "but left no result")))
        return _failure(_stored_traceback(job, keep=False))

    def _state(self, job: Job) -> JobState | None:
        """What SLURM says of a job, asked for all jobs at once and not too often."""
        now = time.monotonic()
        if job.number not in self._states or now - self._asked >= self._args["poll_seconds"]:
            self._asked = now
            try:
                self._states = scheduler.states(j.number for j in self._jobs.values() if j.number)
                self._answered = now
            except UnreachableError as error:
                return self._unanswered(job, str(error))
        return self._states.get(job.number)

    def _unanswered(self, job: Job, message: str) -> JobState | None:
        away = time.monotonic() - self._answered
        if away > self._args["outage_seconds"]:
            return JobState("UNREACHABLE", f"no answer for {away:.0f} s: {message}")
        logger.warning("SLURM does not answer (%s); asking again.", message)
        self._states.setdefault(job.number, JobState("PENDING", "not asked yet"))
        return None

    def _clear_task(self, taskid: int) -> None:
        self._jobs.pop(taskid, None)


def _failure(text: str) -> dict[str, Any]:
    """What Nipype takes for a failure, or with no text for a success."""
    return {"result": None, "traceback": text.splitlines(keepends=True)}


def _stored_traceback(job: Job, keep: bool = True) -> str:
    """The traceback that a failed node stored instead of a result; empty after success."""
    for file in Path(job.node.output_dir()).glob("result_*.pklz"):
        content = load_resultfile(str(file))
        if isinstance(content, dict) and content.get("traceback"):
            if not keep:
                file.rename(file.with_name("crashstore.pklz"))
            lines = content["traceback"]
            return lines if isinstance(lines, str) else "".join(lines)
    return ""
