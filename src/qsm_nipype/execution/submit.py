"""One SLURM job per participant: a job array, and a group job that waits for it.

What is missing is submitted: participants that are done (with the same settings, and their files
of the right sizes), running or already in the queue are left out, so that the same command line
can be given again and again.
"""

from __future__ import annotations

import shlex
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import scheduler, state
from qsm_nipype.execution.scheduler import RefusedError
from qsm_nipype.execution.status import Report, survey

DEFAULT_ARRAY_LIMIT = 1001  # SLURM's own default of MaxArraySize
MAX_RESTARTS = 3  # of a task whose machine failed


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What to submit.

    `command` is the command of one task without its participant, as it is to run on a node:
    `--participant-label LABEL` is added to it; `group_command` (if any) runs when all have ended.
    `participants` are labels without `sub-`; `settings` maps those with `sub-` to the digest of
    what is asked for. `array_size` is how many tasks may run at a time.
    """

    out_dir: Path
    participants: tuple[str, ...]
    command: tuple[str, ...]
    group_command: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    n_procs: int = 1
    memory_gb: float = 8.0
    n_gpus: int = 0
    array_size: int | None = None
    sbatch_args: str = ""
    container: Path | None = None
    binds: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Script:
    """A job script, where it is to lie, and the tasks of its array (none for the group job)."""

    path: Path
    text: str
    participants: tuple[str, ...] = ()


def submit(request: Submission, *, dry_run: bool = False) -> list[str]:
    """Write the scripts and submit them; the numbers of the jobs. A dry run prints the scripts.

    Raises UsageError when SLURM refuses; what was submitted before is taken off the queue.
    """
    _check(request)
    missing = missing_participants(request)
    left_out = len(request.participants) - len(missing)
    if left_out:
        print(f"{left_out} participants are done, running or in the queue: left out.")
    if not missing:
        print("Nothing is left to submit.")
        return []
    scripts = write_scripts(request, missing)
    if dry_run:
        for script in scripts:
            command = shlex.join(["sbatch", *shlex.split(request.sbatch_args), str(script.path)])
            print(f"# {command}\n{script.text}")
        return []
    return _submit_all(request, scripts)


def missing_participants(request: Submission) -> tuple[str, ...]:
    """Participants that are neither done with these settings nor on their way."""
    reports = {report.label: report for report in survey(request.out_dir, verify="sizes")}
    return tuple(p for p in request.participants if _missing(reports.get(f"sub-{p}"), request))


def _missing(report: Report | None, request: Submission) -> bool:
    if report is None or report.status in ("failed", "lost", "damaged"):
        return True
    if report.status == "done":
        return report.state.settings != request.settings.get(report.label, "")
    return False


def _check(request: Submission) -> None:
    if not request.participants:
        raise UsageError("--submit slurm: there is no participant to submit.")
    if request.array_size is not None and request.array_size < 1:
        raise UsageError(f"--array-size {request.array_size}: give at least 1.")
    if request.container is not None and not request.container.exists():
        raise UsageError(f"{request.container}: the container image does not exist.")
    try:
        shlex.split(request.sbatch_args)
    except ValueError as error:
        raise UsageError(f"--sbatch-args {request.sbatch_args}: {error}.") from error


# ---- scripts -------------------------------------------------------------------------------


def write_scripts(request: Submission, participants: Sequence[str]) -> list[Script]:
    """The scripts: arrays of at most what the cluster allows, then the group job."""
    folder = request.out_dir / "logs" / "slurm"
    stamp = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:4]}"
    limit = max(1, _array_limit())
    parts = [tuple(participants[i : i + limit]) for i in range(0, len(participants), limit)]
    scripts = []
    for number, part in enumerate(parts):
        path = folder / f"{stamp}_participants-{number}.sh"
        scripts.append(Script(path, _array_text(request, part, folder), part))
    if request.group_command:
        path = folder / f"{stamp}_group.sh"
        scripts.append(Script(path, _group_text(request, folder)))
    return scripts


def _array_text(request: Submission, participants: tuple[str, ...], folder: Path) -> str:
    throttle = f"%{request.array_size}" if request.array_size else ""
    words = " ".join(shlex.quote(participant) for participant in participants)
    command = shlex.join(_contained(request, request.command))
    return _text(
        request,
        folder,
        [f"--array=0-{len(participants) - 1}{throttle}", "--requeue"],
        [
            f"participants=({words})",
            "participant=${participants[$SLURM_ARRAY_TASK_ID]}",
            f'if [ "${{SLURM_RESTART_COUNT:-0}}" -gt {MAX_RESTARTS} ]; then',
            '  echo "sub-$participant: gave up, too many machines failed." >&2',
            "  exit 1",
            "fi",
            f'exec {command} --participant-label "$participant"',
        ],
    )


def _group_text(request: Submission, folder: Path) -> str:
    command = shlex.join(_contained(request, request.group_command))
    return _text(request, folder, [], [f"exec {command}"])


def _text(request: Submission, folder: Path, options: list[str], body: list[str]) -> str:
    name = "%A_%a" if options else "%j"
    folder_name = str(folder).replace("%", "%%")
    options = [
        f"--output={folder_name}/{name}.out",
        f"--cpus-per-task={request.n_procs}",
        f"--mem={scheduler.megabytes(request.memory_gb)}M",
        "--signal=B:TERM@60",  # a minute to write down why it ended
        *options,
    ]
    if request.n_gpus:
        options.append(f"--gres=gpu:{request.n_gpus}")
    lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in options)]
    if request.container is not None:
        lines.append("unset PYTHONPATH PYTHONHOME  # the container has its own")
    lines += ["set -eu", *body, ""]
    return "\n".join(lines)


def _contained(request: Submission, command: Sequence[str]) -> list[str]:
    """`command` as it runs inside the container, if there is one."""
    if request.container is None:
        return list(command)
    program = shutil.which("apptainer") or shutil.which("singularity") or "apptainer"
    gpu = ["--nv"] if request.n_gpus else []
    binds = [word for folder in request.binds for word in ("--bind", f"{folder}:{folder}")]
    return [program, "exec", *gpu, *binds, str(request.container), *command]


# ---- submission ----------------------------------------------------------------------------


def _submit_all(request: Submission, scripts: Sequence[Script]) -> list[str]:
    extra = shlex.split(request.sbatch_args)
    numbers: list[str] = []
    try:
        for script in scripts:
            script.path.parent.mkdir(parents=True, exist_ok=True)
            script.path.write_text(script.text)
            wait = [] if script.participants else _after(numbers)
            before = time.time()
            name = f"qsm-nipype-{script.path.stem}"
            number = scheduler.submit([*wait, *extra], script.path, name)
            numbers.append(number)
            _mark(request, script.participants, number, before)
            what = f"{len(script.participants)} participants" if script.participants else "group"
            print(f"Submitted job {number} ({what}): {script.path}")
    except RefusedError as error:
        scheduler.cancel(numbers)
        raise UsageError(f"SLURM refused the job: {' '.join(str(error).split())}") from error
    return numbers


def _after(numbers: Sequence[str]) -> list[str]:
    """The group job takes what there is when all have ended, as a run on one machine does."""
    return [f"--dependency=afterany:{':'.join(numbers)}", "--kill-on-invalid-dep=yes"]


def _mark(request: Submission, labels: Sequence[str], number: str, before: float) -> None:
    """Note the job of each participant, unless its run was quicker and has said more."""
    for index, label in enumerate(labels):
        now = state.read(request.out_dir, f"sub-{label}")
        if now is None or now.updated < before:
            owner = {"job": f"{number}_{index}"}
            state.write(
                request.out_dir,
                f"sub-{label}",
                "submitted",
                owner=owner,
                settings=request.settings.get(f"sub-{label}", ""),
            )


def _array_limit() -> int:
    """How many tasks an array may have on this cluster."""
    answer = scheduler.call(["scontrol", "show", "config"])
    for line in answer.stdout.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit():
            return int(value)
    return DEFAULT_ARRAY_LIMIT
