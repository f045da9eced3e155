"""Talking to SLURM: submit, ask, cancel, with its answers parsed and its absence survived."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIVE = frozenset(
    {
        *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"),
        *("COMPLETING", "RESIZING", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
        *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"),
    }
)
NOT_ITS_FAULT = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"})  # worth another try
FORGOTTEN = "FORGOTTEN"  # ended so long ago that SLURM does not know the job any more

_ABSENT = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "connection timed out",
    "communication connection failure",
    "zero bytes were transmitted",
    "temporarily unable to accept job",
    "unexpected message received",
    "resource temporarily unavailable",
    "controller is in standby",
    "failed to establish a configuration source",  # configless, controller away
    "munge",
    "protocol authentication error",
)

_MEANING = {
    "COMPLETED": "has ended",
    "TIMEOUT": "reached its time limit; ask for more time (--time)",
    "OUT_OF_MEMORY": "used more memory than it asked for; ask for more (--mem)",
    "CANCELLED": "was cancelled",
    "NODE_FAIL": "was lost with its machine",
    "BOOT_FAIL": "was lost with its machine, which did not start",
    "PREEMPTED": "was pushed out by a job of higher priority",
    "DEADLINE": "reached its deadline",
    "FAILED": "ended with an error",
    FORGOTTEN: "is not known to SLURM any more",
}


class RefusedError(Exception):
    """sbatch did not take a job; the message is SLURM's."""


class UnreachableError(Exception):
    """The controller does not answer; the message is SLURM's."""


@dataclass(frozen=True)
class JobState:
    """State of a job in SLURM's words, and its reason, node or exit code where known."""

    state: str
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether the job may still run."""
        return self.state in LIVE

    def __str__(self) -> str:
        text = _MEANING.get(self.state, f"is in state {self.state}")
        words = self.reason.strip()
        return text if words in ("", "None") else f"{text} ({self.state}, {words})"


def environment() -> dict[str, str]:
    """This environment without the SLURM variables of a job that we may be running in.

    sbatch takes them for options: a node's --mem clashes with the SLURM_MEM_PER_CPU around us.
    """
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k in kept}


def call(command: Sequence[str], timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM; one that is missing or does not answer has return code 255."""
    try:
        return subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        text = f"Socket timed out: no answer in {timeout:.0f} s"
    except OSError as error:
        text = f"{command[0]} cannot be run: {error}"
    return subprocess.CompletedProcess(list(command), 255, "", text)


def submit(
    arguments: Sequence[str],
    script: Path | str,
    name: str,
    *,
    patience: float = 600.0,
    pause: float = 5.0,
) -> str:
    """Submit `script` as a job and return its number.

    `name` must be unique: after a lost answer it tells whether the job was taken, so that it is
    not submitted twice. An absent controller is asked again for `patience` seconds.
    Raises RefusedError with SLURM's reason.
    """
    command = ["sbatch", "--parsable", f"--job-name={name}", *arguments, str(script)]
    end = time.monotonic() + patience
    while True:
        answer = call(command)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip().splitlines()[-1].split(";")[0]
        if not absent(answer.stderr) or time.monotonic() > end:
            raise RefusedError(f"{shlex.join(command)}\n{answer.stderr.strip()}")
        time.sleep(pause)
        if (taken := _number_of(name)) is not None:
            return taken


def _number_of(name: str) -> str | None:
    answer = call(["squeue", "-h", "-t", "all", f"--name={name}", "-o", "%A"])
    numbers = answer.stdout.split() if answer.returncode == 0 else []
    return numbers[0] if numbers else None


def absent(message: str) -> bool:
    """Whether SLURM's message says that its controller is away, not that it refuses."""
    lower = message.lower()
    return any(words in lower for words in _ABSENT)


def states(jobs: Iterable[str]) -> dict[str, JobState]:
    """State of each job (`12`, or `12_3` of an array). Raises UnreachableError."""
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return {}
    numbers = ",".join(dict.fromkeys(job.split("_")[0] for job in wanted))
    answer = call(["squeue", "-h", "-r", "-t", "all", "-j", numbers, "-o", "%i|%T|%r|%N"])
    if answer.returncode != 0 and "invalid job id" not in answer.stderr.lower():
        raise UnreachableError(answer.stderr.strip() or "squeue failed")
    found = _parse_squeue(answer.stdout)
    missing = [job for job in wanted if job not in found]
    if missing:
        found |= _accounting(missing)
    return {job: found.get(job, JobState(FORGOTTEN)) for job in wanted}


def _parse_squeue(text: str) -> dict[str, JobState]:
    found = {}
    for line in text.splitlines():
        job, state, reason, node = (line.strip().split("|") + ["", "", ""])[:4]
        if state:
            where = f"on {node}" if node else ""
            words = ", ".join(w for w in (reason.replace("None", ""), where) if w)
            found[job] = JobState(state, words)
    return found


def _accounting(jobs: Sequence[str]) -> dict[str, JobState]:
    """What the accounting database knows, on clusters that have one."""
    columns = "JobID,State,ExitCode,NodeList"
    answer = call(["sacct", "-n", "-X", "-P", "-j", ",".join(jobs), "-o", columns])
    found = {}
    for line in answer.stdout.splitlines() if answer.returncode == 0 else []:
        job, state, code, node = (line.strip().split("|") + ["", "", ""])[:4]
        word, _, rest = state.partition(" ")  # "CANCELLED by 1000"
        details = [rest, f"exit code {code}" if code not in ("", "0:0") else "", f"on {node}"]
        word = next((s for s in _MEANING if word.endswith("+") and s.startswith(word[:-1])), word)
        if word:
            found[job] = JobState(word, ", ".join(d for d in details if d))
    return found


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are no error."""
    numbers = list(jobs)
    if numbers:
        call(["scancel", *numbers])


def resource_arguments(node: Any, args: Mapping[str, Any]) -> list[str]:
    """sbatch options of a node: what it needs, what the cluster wants, what the user adds.

    sbatch takes the last of repeated options, so that the user's win.
    """
    memory = megabytes(node.mem_gb + args.get("overhead_gb", 0.0))
    options = [f"--cpus-per-task={node.n_procs or 1}", f"--mem={memory}M"]
    gpu = node.is_gpu_node()
    partition = args.get("gpu_partition") if gpu else None
    chosen = {**args, "partition": partition or args.get("partition")}
    for key in ("partition", "account", "qos", "time", "constraint"):
        if chosen.get(key):
            options.append(f"--{key}={chosen[key]}")
    if gpu:
        options += shlex.split(args.get("gpu_args", "--gres=gpu:1"))
    own = getattr(node, "plugin_args", None) or {}
    extra = own.get("sbatch_args", "")
    if own.get("overwrite") and extra:
        return shlex.split(extra)
    return [*options, *shlex.split(args.get("sbatch_args") or ""), *shlex.split(extra)]


def megabytes(memory_gb: float) -> int:
    """GB as SLURM's whole megabytes, rounded up; never 0, which would mean all memory."""
    return max(1, math.ceil(memory_gb * 1024))
