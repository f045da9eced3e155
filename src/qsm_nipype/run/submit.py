"""`--submit slurm`: one job for each participant, and a group job."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from qsm_nipype import settings as configuration
from qsm_nipype.dataset.acquisitions import Acquisition, Refusal
from qsm_nipype.execution.resources import available_cpus
from qsm_nipype.execution.submit import Submission
from qsm_nipype.execution.submit import submit as submit_jobs
from qsm_nipype.run.memory import short_of_memory
from qsm_nipype.run.output import prepare_output
from qsm_nipype.run.preflight import (
    check_programs,
    check_writable,
    find,
    make_folders,
    without_idle,
)
from qsm_nipype.run.states import digests
from qsm_nipype.settings import Settings
from qsm_nipype.system.files import write_text


def submit(settings: Settings) -> int:
    """Submit one job per participant and a group job.

    The jobs read the choices from a file of this submission, so that a later run with other
    options cannot change what waits in the queue. Returns 0. Raises UsageError when SLURM refuses
    or is not there.
    """
    check_programs(settings)
    check_writable(settings)
    acquisitions, refusals = without_idle(*find(settings))
    wanted: list[Acquisition | Refusal] = [*acquisitions, *refusals]
    if not wanted:
        return 0  # it was said that there is nothing to do
    memory = settings.mem or 8.0
    for item in short_of_memory(settings, acquisitions, limit=memory):
        print(f"qsm-nipype: {item.label}: it will be refused: {item.reason}", file=sys.stderr)
    program = ("qsm-nipype",) if settings.container else (sys.executable, "-m", "qsm_nipype")
    bids_dir, out = settings.bids_dir, settings.output_dir
    text = configuration.to_yaml(_of_task(settings))
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    chosen = out / "logs" / "slurm" / f"settings-{name}.yml"
    request = Submission(
        out_dir=out,
        participants=tuple(sorted({a.subject for a in wanted})),
        command=(*program, str(bids_dir), str(out), "participant", *_options(settings, chosen)),
        group_command=(*program, str(bids_dir), str(out), "group"),
        settings=digests(settings, acquisitions, refusals),
        n_procs=settings.nprocs or available_cpus(),
        memory_gb=memory,
        n_gpus=int(settings.device == "cuda"),
        array_size=settings.array_size or None,
        sbatch_args=settings.sbatch_args,
        container=settings.container,
        binds=binds(settings),
    )
    if not settings.dry_run:
        make_folders(settings)
        prepare_output(settings)
        write_text(chosen, text)
    submit_jobs(request, dry_run=settings.dry_run)
    return 0


def _of_task(settings: Settings) -> Settings:
    """The choices of one participant's job: it computes on its own machine."""
    return configuration.with_absolute_paths(replace(settings, plugin=Settings.plugin))


def _options(settings: Settings, chosen: Path) -> list[str]:
    """A task's options: the file of choices, and what such a file does not hold."""
    words = ["--config-file", str(chosen)]
    if settings.bids_filter_file is not None:
        words += ["--bids-filter-file", str(settings.bids_filter_file.absolute())]
    return [*words, *("-v" for _ in range(settings.verbose))]


def binds(settings: Settings) -> tuple[Path, ...]:
    """Folders and files outside of them that a container must see."""
    found = [settings.bids_dir, settings.output_dir, settings.work_dir]
    for path in configuration.named_paths(configuration.with_absolute_paths(settings)):
        if path.exists() and not any(path.is_relative_to(place) for place in found):
            found.append(path)
    return tuple(found)
