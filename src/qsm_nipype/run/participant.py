"""A participant run: find, check, build the graph, execute it, say how it went."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from qsm_nipype import __version__, plan
from qsm_nipype.dataset.acquisitions import Acquisition, Refusal
from qsm_nipype.errors import UsageError
from qsm_nipype.run.failures import Failure, collect_failures
from qsm_nipype.run.memory import short_of_memory, within_memory
from qsm_nipype.run.preflight import (
    check_device,
    check_programs,
    check_writable,
    find,
    make_folders,
    uses_gpu,
    without_idle,
)
from qsm_nipype.settings import Settings

#: Damaged files that are named one by one.
_NAMED = 5
#: Participants in one graph, at least: the last ones of a graph leave processors idle.
_AT_A_TIME = 32


def run(settings: Settings) -> int:
    """Process the selected participants.

    Returns 0, or 1 when an acquisition failed or has a map that `settings.fail_on` names.

    Raises UsageError when nothing can be done at all.
    """
    check_programs(settings)
    if settings.boilerplate_only:
        print(methods_paragraph(settings))
        return 0
    check_writable(settings)
    if not settings.dry_run:
        _start_early(settings)
    acquisitions, refusals = find(settings)
    if settings.dry_run:
        lacking = {r.label: [r.reason] for r in short_of_memory(settings, acquisitions)}
        print(plan.describe(settings, acquisitions, refusals, lacking))
        return 1 if any(not item.idle for item in refusals) else 0
    acquisitions, refusals = without_idle(acquisitions, refusals)
    if not acquisitions and not refusals:
        return 0  # it was said that there is nothing to do
    if not settings.reports_only:
        acquisitions, refusals = within_memory(settings, acquisitions, refusals)
    from qsm_nipype.execution import lock, state
    from qsm_nipype.run.outcome import collect_outcomes, exit_code, tell, write_down
    from qsm_nipype.run.outdated import mark_outdated
    from qsm_nipype.run.output import prepare_output, remove_partial, write_reports
    from qsm_nipype.run.states import digests, write_states

    chosen: list[Acquisition | Refusal] = [*acquisitions, *refusals]
    labels = sorted({f"sub-{item.subject}" for item in chosen})
    failures = [Failure(r.label, r.subject, r.reason) for r in refusals]
    if settings.reports_only:
        return rewrite_reports(settings, acquisitions, failures)
    check_device(settings)
    make_folders(settings)
    prepare_output(settings)
    held = lock.output_lock(settings.output_dir, labels)
    asked = digests(settings, acquisitions, refusals)
    with held, state.running(settings.output_dir, asked):
        remove_partial(settings.output_dir, labels)
        if acquisitions:
            failures += execute(settings, acquisitions)
        outcomes = collect_outcomes(settings.output_dir, acquisitions, failures)
        outcomes = mark_outdated(settings.output_dir, outcomes)
        write_reports(settings, acquisitions, [o.failure for o in outcomes if o.failure])
        write_states(settings, labels, outcomes)
        write_down(outcomes, settings.output_dir / "logs" / "run.log")
    tell(outcomes, settings.output_dir, settings.fail_on)
    return exit_code(outcomes, settings.fail_on)


def rewrite_reports(
    settings: Settings, acquisitions: Sequence[Acquisition], refused: Sequence[Failure]
) -> int:
    """Write the pages again from the records; states and settings of the run stay.

    Returns what the run would have. Raises UsageError where there is no record.
    """
    from qsm_nipype.execution import lock, state
    from qsm_nipype.run.outcome import collect_outcomes, exit_code, tell
    from qsm_nipype.run.output import write_reports

    out = settings.output_dir
    known = [a for a in acquisitions if (out / "logs" / "records" / f"{a.label}.json").exists()]
    if not known:
        raise UsageError(
            f"{out}: no record of the chosen acquisitions; run without --reports-only first"
        )
    selected = {a.label for a in acquisitions}
    failures = list(refused)
    for subject in sorted({a.subject for a in acquisitions}):
        last = state.read(out, f"sub-{subject}")
        for entry in last.failures if last is not None and last.status == "failed" else ():
            label = entry.get("acquisition", "")
            if label in selected:
                failures.append(
                    Failure(label, subject, entry["reason"], entry["node"], entry["crash_file"])
                )
    subjects = {a.subject for a in known} | {f.subject for f in failures}
    with lock.output_lock(out, sorted(f"sub-{subject}" for subject in subjects)):
        write_reports(settings, known, failures)
    outcomes = collect_outcomes(out, known, failures)
    tell(outcomes, out, settings.fail_on)
    return exit_code(outcomes, settings.fail_on)


# ---- before ---------------------------------------------------------------------------------


def _start_early(settings: Settings) -> None:
    """Let the fork server import while we look for the data and build the graph."""
    if settings.plugin != "MultiProc" or settings.use_plugin or settings.reports_only:
        return
    from qsm_nipype.execution.resources import use_numba_cache
    from qsm_nipype.execution.worker import warm_up

    use_numba_cache(settings.work_dir)
    warm_up()


def methods_paragraph(settings: Settings) -> str:
    """The Methods text with its references for exactly these settings."""
    from qsm_nipype.record import Step
    from qsm_nipype.report.methods_text import write_methods

    steps = [Step.from_json(step) for step in plan.steps(settings)]
    text = write_methods(steps, version=__version__)
    return f"{text.plain}\n{text.bibtex}"


# ---- the run --------------------------------------------------------------------------------


def execute(settings: Settings, acquisitions: Sequence[Acquisition]) -> list[Failure]:
    """Build the graph of some participants after the other and run it; returns what failed.

    A graph of a thousand participants takes minutes to build and gigabytes to hold, so that on one
    machine only as many are in it as keep all its processors busy.
    """
    from qsm_nipype.execution.resources import available_cpus, use_numba_cache
    from qsm_nipype.run import engine

    use_numba_cache(settings.work_dir)
    nprocs = settings.nprocs or available_cpus()
    threads = settings.omp_nthreads or max(1, min(8, nprocs // len(acquisitions)))
    engine.configure_nipype(settings)
    failures: list[Failure] = []
    started = time.monotonic()
    for batch in batches(settings, acquisitions, nprocs):
        failures += _execute(settings, batch, nprocs, threads, started)
        if failures and settings.stop_on_first_crash:
            break
    return failures


def batches(
    settings: Settings, acquisitions: Sequence[Acquisition], nprocs: int
) -> list[list[Acquisition]]:
    """The acquisitions of so many participants at a time; all at once where a cluster has them."""
    if settings.plugin not in ("MultiProc", "Linear") or settings.use_plugin is not None:
        return [list(acquisitions)]
    ordered = sorted(acquisitions, key=lambda a: a.label)
    own = [list(members) for _, members in groupby(ordered, key=lambda a: a.subject)]
    size = max(_AT_A_TIME, 2 * nprocs)
    parts = [own[start : start + size] for start in range(0, len(own), size)]
    return [[a for members in part for a in members] for part in parts]


def _execute(
    settings: Settings,
    acquisitions: Sequence[Acquisition],
    nprocs: int,
    threads: int,
    started: float,
) -> list[Failure]:
    """Build the graph of these acquisitions and run it; returns what failed."""
    from qsm_nipype.execution.plugin import plugin_settings
    from qsm_nipype.run import engine
    from qsm_nipype.workflows.base import init_qsm_nipype_wf

    workflow = init_qsm_nipype_wf(
        settings, acquisitions, threads=threads, gpu=uses_gpu(settings), name=_graph_name(settings)
    )
    if settings.write_graph:
        engine.write_graph(workflow, settings)
    plugin, arguments = plugin_settings(
        settings.plugin,
        n_procs=nprocs,
        memory_gb=settings.mem or None,
        n_gpus=settings.n_gpus or None,
        omp_nthreads=threads,
        user_file=settings.use_plugin,
    )
    _tell_damaged(engine.forget_damaged(workflow))
    progress = _progress(settings, workflow, acquisitions, started)
    told = engine.cleaning(workflow, progress) if settings.clean_workdir else progress
    arguments = {**arguments, "status_callback": told}
    if not isinstance(plugin, str):
        plugin._status_callback = told  # Nipype reads the argument only on construction
    with progress, engine.quiet_console(settings), contextlib.suppress(RuntimeError):
        workflow.run(plugin=plugin, plugin_args=arguments)
    failures = collect_failures(settings, acquisitions, progress.failures)
    if settings.clean_workdir and not failures:
        _clean(workflow)
    return failures


def _tell_damaged(found: Mapping[str, str]) -> None:
    """Say which results are written again."""
    for name, fault in list(found.items())[:_NAMED]:
        print(f"qsm-nipype: {name} {fault}; made again", file=sys.stderr)
    if len(found) > _NAMED:
        print(f"qsm-nipype: and {len(found) - _NAMED} more files", file=sys.stderr)


def _clean(workflow: Any) -> None:
    """Remove this run's intermediate results; other runs may be at work beside them."""
    folder = Path(workflow.base_dir) / workflow.name
    for name in {node.split(".")[0] for node in workflow.list_node_names()}:
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others' results, or none at all
        folder.rmdir()


def _graph_name(settings: Settings) -> str:
    """The same dataset and output find their cache again; others do not disturb it."""
    places = f"{settings.bids_dir}\n{settings.output_dir}"
    return f"qsm_nipype_{hashlib.sha256(places.encode()).hexdigest()[:8]}"


def _progress(
    settings: Settings, workflow: Any, acquisitions: Sequence[Acquisition], started: float
) -> Any:
    from qsm_nipype.run.progress import Progress, is_work
    from qsm_nipype.run.states import count_in_states

    names = [name for name in workflow.list_node_names() if is_work(name)]
    totals = {a.name: sum(name.split(".")[0] == a.name for name in names) for a in acquisitions}
    labels = {a.name: a.label for a in acquisitions}
    subjects = {a.name: f"sub-{a.subject}" for a in acquisitions}
    note = count_in_states(settings, totals, subjects)
    log = settings.output_dir / "logs" / "run.log"
    return Progress(totals, labels, log, note, started=started)
