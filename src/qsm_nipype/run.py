"""A participant run: find, check, build the graph, execute it, say how it went."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype import __version__, atlases, bids, engine, masks, records
from qsm_nipype import settings as configuration
from qsm_nipype.bids import Acquisition, Refusal
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.places import check_places, make_places
from qsm_nipype.settings import Settings

_README = """Quantitative susceptibility maps made by qsm-nipype {version}.

sub-*.html shows each participant's maps and how they were made; *_Chimap.nii.gz is susceptibility
in ppm, paramagnetic positive; logs/settings.yml makes the same run again.
"""


@dataclass(frozen=True)
class Failure:
    """What failed, in one sentence; `crash_file` holds the traceback where there is one."""

    label: str
    subject: str
    reason: str
    node: str = ""
    crash_file: str = ""


def run(settings: Settings) -> int:
    """Process the selected participants. Returns 0, or 1 when an acquisition failed.

    Raises UsageError when nothing can be done at all.
    """
    if settings.boilerplate_only:
        print(methods_paragraph(settings))
        return 0
    check_places(settings)
    if not settings.dry_run:
        _start_early(settings)
    acquisitions, refusals = find(settings)
    if settings.dry_run:
        print(plan(settings, acquisitions, refusals))
        return 1 if refusals else 0
    from qsm_nipype.execution import lock, state

    labels = sorted({f"sub-{item.subject}" for item in [*acquisitions, *refusals]})
    failures = [Failure(r.label, r.subject, r.reason) for r in refusals]
    if settings.reports_only:
        return rewrite_reports(settings, acquisitions, failures)
    _check_device(settings)
    make_places(settings)
    prepare_output(settings)
    held = lock.output_lock(settings.output_dir, labels)
    digests = _digests(settings, acquisitions, refusals)
    with held, state.running(settings.output_dir, digests):
        if acquisitions:
            failures += execute(settings, acquisitions)
        write_reports(settings, acquisitions, failures)
        _write_states(settings, labels, failures)
    _say(settings, acquisitions, failures)
    return 1 if failures else 0


def rewrite_reports(
    settings: Settings, acquisitions: Sequence[Acquisition], refused: Sequence[Failure]
) -> int:
    """Write the pages again from the records; states and settings of the run stay.

    Returns 0, or 1 when an acquisition had failed. Raises UsageError where there is no record.
    """
    from qsm_nipype.execution import lock, state

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
        for told in last.failures if last is not None and last.status == "failed" else ():
            label = told.get("acquisition", "")
            if label in selected:
                failure = Failure(label, subject, told["reason"], told["node"], told["crash_file"])
                failures.append(failure)
    with lock.output_lock(out, sorted({f"sub-{a.subject}" for a in [*known, *failures]})):
        write_reports(settings, known, failures)
    _say(settings, known, failures)
    return 1 if failures else 0


# ---- before ---------------------------------------------------------------------------------


def _start_early(settings: Settings) -> None:
    """Let the fork server import while we look for the data and build the graph."""
    if settings.plugin != "MultiProc" or settings.use_plugin or settings.reports_only:
        return
    from qsm_nipype.execution.resources import use_numba_cache
    from qsm_nipype.execution.worker import warm_up

    use_numba_cache(settings.work_dir)
    warm_up()


def find(settings: Settings) -> tuple[list[Acquisition], list[Refusal]]:
    """The selected acquisitions and the refused ones. Raises UsageError when there is neither."""
    selection = bids.Selection(
        participants=settings.participant_label,
        sessions=settings.session_label,
        filters=MappingProxyType(_filters(settings.bids_filter_file)),
        database=settings.bids_database_dir,
    )
    acquisitions, refusals = bids.find_acquisitions(settings.bids_dir, selection)
    if not acquisitions and not refusals:
        raise UsageError(
            f"{settings.bids_dir}: no gradient-echo images with the suffixes "
            f"{', '.join(bids.SUFFIXES)}, and no phasediff or phase1 field map; name others by "
            f"--bids-filter-file"
        )
    return _with_masks(settings, acquisitions, refusals)


def _with_masks(
    settings: Settings, acquisitions: list[Acquisition], refusals: list[Refusal]
) -> tuple[list[Acquisition], list[Refusal]]:
    """Refuse acquisitions without the masks that the user promised."""
    good = []
    for acquisition in acquisitions:
        try:
            for kind, place in settings.derivatives.items():
                _check_own(settings, kind, Path(place), acquisition)
            good.append(acquisition)
        except DataError as exc:
            refusals.append(Refusal(acquisition.entities, str(exc)))
    return good, refusals


def _check_own(settings: Settings, kind: str, place: Path, acquisition: Acquisition) -> None:
    """Refuse `-d KIND=PLACE` where it does not serve `acquisition`. Raises DataError."""
    if kind not in ("segmentation", "lesions"):
        masks.check_size(masks.find_mask(place, acquisition, kind), acquisition)
        return
    if place.is_file():
        masks.check_owner(place, acquisition, kind)
    if kind == "segmentation":  # without lesions an acquisition is still processed
        atlases.find_atlases(place, acquisition, settings.bids_dir)


def _filters(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path}: the BIDS filter file is not readable JSON ({exc})") from exc
    if not isinstance(content, dict):
        raise UsageError(f"{path}: the BIDS filter file must hold one JSON object")
    return content


def plan(
    settings: Settings, acquisitions: Sequence[Acquisition], refusals: Sequence[Refusal]
) -> str:
    """What a run would do, as text."""
    lines = [f"qsm-nipype {__version__}: {len(acquisitions)} acquisitions to process"]
    for item in acquisitions:
        echoes = ", ".join(f"{1000 * t:.4g}" for t in item.echo_times)
        size = " × ".join(f"{v:.3g}" for v in item.voxel_size)
        shape = "×".join(str(n) for n in item.shape)
        lines.append(f"  {item.label}: {item.b0:.4g} T, TE {echoes} ms, {shape} of {size} mm")
    lines += [f"  {item.label}: NOT PROCESSED: {item.reason}" for item in refusals]
    lines.append("steps")
    for step in records.steps(settings):
        chosen = ", ".join(f"{k} = {v}" for k, v in step["parameters"].items())
        lines.append(f"  {step['step']}: {step['method']}" + (f" ({chosen})" if chosen else ""))
    lines.append(f"results go to {settings.output_dir}, intermediate files to {settings.work_dir}")
    return "\n".join(lines)


def methods_paragraph(settings: Settings) -> str:
    """The Methods text with its references for exactly these settings."""
    from qsm_nipype.report.methods_text import write_methods
    from qsm_nipype.report.records import AcquisitionRecord

    steps = AcquisitionRecord.from_json({"steps": records.steps(settings)}).steps
    text = write_methods(steps, version=__version__)
    return f"{text.plain}\n{text.bibtex}"


def _check_device(settings: Settings) -> None:
    if settings.device == "cuda" and not uses_gpu(settings):
        raise UsageError(
            "--device cuda: there is no CUDA device here, or torch was installed without CUDA; "
            "use --device auto or cpu"
        )


def uses_gpu(settings: Settings) -> bool:
    """Whether nodes that can compute on a GPU will."""
    if settings.device == "cpu" or settings.plugin.startswith("SLURM"):
        return settings.device == "cuda"
    from qsm_nipype.execution.resources import gpu_ids

    if not gpu_ids(settings.n_gpus or None):
        return False
    import torch

    return torch.version.cuda is not None  # else torch was installed for CPUs only


def prepare_output(settings: Settings) -> None:
    """Make the derivatives dataset: its description, .bidsignore, and the settings used."""
    from qsm_nipype.interfaces.bids import ignored
    from qsm_nipype.interfaces.files import write_text

    description = {
        "Name": "qsm-nipype: quantitative susceptibility maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "qsm-nipype", "Version": __version__}],
        "SourceDatasets": [{"URL": settings.bids_dir.as_uri()}],
        "DatasetLinks": records.links(settings),
    }
    ignore = [*ignored(), "*.html", "sub-*/figures", "logs/", "group*"]
    out = settings.output_dir
    write_text(out / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    write_text(out / ".bidsignore", "\n".join(ignore) + "\n")
    write_text(out / "README", _README.format(version=__version__))
    write_text(out / "logs" / "settings.yml", configuration.to_yaml(settings))
    if not settings.skip_bids_validation:
        _validate(settings)


def _validate(settings: Settings) -> None:
    """Run the BIDS validator where it is installed; its errors are shown, and do not stop us."""
    program = shutil.which("bids-validator-deno")
    if program is None:
        return
    done = subprocess.run(
        [program, "--format", "json", str(settings.bids_dir)], capture_output=True, text=True
    )
    with contextlib.suppress(ValueError, KeyError):
        issues = json.loads(done.stdout)["issues"]["issues"]
        errors = sorted({i.get("code", "?") for i in issues if i.get("severity") == "error"})
        if errors:
            listed = ", ".join(errors[:5])
            print(f"qsm-nipype: the BIDS validator finds errors: {listed}", file=sys.stderr)


def _digests(
    settings: Settings, acquisitions: Sequence[Acquisition], refusals: Sequence[Refusal]
) -> dict[str, str]:
    """For each participant (`sub-XX`) what was asked for: choices, own files, acquisitions."""
    from qsm_nipype.execution import state

    wanted = {
        "settings": configuration.science(settings),
        "derivatives": dict(settings.derivatives),
        "version": __version__,
    }
    labels: dict[str, list[str]] = {}
    for item in [*acquisitions, *refusals]:
        labels.setdefault(f"sub-{item.subject}", []).append(item.label)
    return {
        name: state.digest({**wanted, "acquisitions": sorted(own)}) for name, own in labels.items()
    }


def _binds(folders: Sequence[Path], arguments: Sequence[str]) -> tuple[Path, ...]:
    """`folders`, and what else the arguments name that exists outside of them."""
    found = list(folders)
    for word in arguments:
        path = Path(os.path.abspath(word.partition("=")[2] or word))
        if path.exists() and not any(path.is_relative_to(place) for place in found):
            found.append(path)
    return tuple(found)


def submit(settings: Settings, arguments: Sequence[str]) -> int:
    """Submit one job per participant and a group job; `arguments` are the command line's.

    Returns 0. Raises UsageError when SLURM refuses or is not there.
    """
    from qsm_nipype.execution.resources import available_cpus
    from qsm_nipype.execution.submit import Submission, task_arguments
    from qsm_nipype.execution.submit import submit as submit_jobs

    check_places(settings)
    acquisitions, refusals = find(settings)
    program = ("qsm-nipype",) if settings.container else (sys.executable, "-m", "qsm_nipype")
    bids_dir, out = settings.bids_dir, settings.output_dir
    request = Submission(
        out_dir=out,
        participants=tuple(sorted({a.subject for a in [*acquisitions, *refusals]})),
        command=(*program, *task_arguments(arguments)),
        group_command=(*program, str(bids_dir), str(out), "group"),
        settings=_digests(settings, acquisitions, refusals),
        n_procs=settings.nprocs or available_cpus(),
        memory_gb=settings.mem or 8.0,
        n_gpus=int(settings.device == "cuda"),
        array_size=settings.array_size or None,
        sbatch_args=settings.sbatch_args,
        container=settings.container,
        binds=_binds([bids_dir, out, settings.work_dir], arguments),
    )
    if not settings.dry_run:
        make_places(settings)
        prepare_output(settings)
    submit_jobs(request, dry_run=settings.dry_run)
    return 0


# ---- the run --------------------------------------------------------------------------------


def execute(settings: Settings, acquisitions: Sequence[Acquisition]) -> list[Failure]:
    """Build the graph and run it; returns what failed."""
    from qsm_nipype.execution.resources import available_cpus, plugin_settings, use_numba_cache

    use_numba_cache(settings.work_dir)
    nprocs = settings.nprocs or available_cpus()
    threads = settings.omp_nthreads or max(1, min(8, nprocs // len(acquisitions)))
    engine.configure_nipype(settings)
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
    engine.forget_missing(workflow)
    progress = _progress(settings, workflow, acquisitions)
    arguments = {**arguments, "status_callback": progress}
    if not isinstance(plugin, str):
        plugin._status_callback = progress  # Nipype reads the argument only on construction
    with progress, engine.quiet_console(settings), contextlib.suppress(RuntimeError):
        workflow.run(plugin=plugin, plugin_args=arguments)
    failures = collect_failures(settings, acquisitions, progress.failures)
    if settings.clean_workdir and not failures:
        _clean(workflow)
    return failures


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


def _progress(settings: Settings, workflow: Any, acquisitions: Sequence[Acquisition]) -> Any:
    from qsm_nipype.progress import Progress, is_work

    names = [name for name in workflow.list_node_names() if is_work(name)]
    totals = {a.name: sum(name.split(".")[0] == a.name for name in names) for a in acquisitions}
    labels = {a.name: a.label for a in acquisitions}
    subjects = {a.name: f"sub-{a.subject}" for a in acquisitions}
    note = _count_in_states(settings, totals, subjects)
    return Progress(totals, labels, settings.output_dir / "logs" / "run.log", note)


def _count_in_states(
    settings: Settings, totals: Mapping[str, int], subjects: Mapping[str, str]
) -> Callable[[str, Mapping[str, int]], None]:
    """What writes a participant's finished steps where `qsm-nipype status` reads them."""
    from qsm_nipype.execution import state

    def note(name: str, done: Mapping[str, int]) -> None:
        label = subjects[name]
        own = [other for other in totals if subjects[other] == label]
        finished, total = (sum(table[other] for other in own) for table in (done, totals))
        state.write(settings.output_dir, label, "running", nodes_done=finished, nodes_total=total)

    return note


# ---- after ----------------------------------------------------------------------------------


def collect_failures(
    settings: Settings, acquisitions: Sequence[Acquisition], nodes: Sequence[str]
) -> list[Failure]:
    """Failed nodes as one failure for each acquisition, with the reason from its crash file."""
    by_name = {a.name: a for a in acquisitions}
    crashes = sorted(
        (settings.output_dir / "logs" / "crashes").glob("crash-*"), key=lambda p: p.stat().st_mtime
    )
    found: dict[str, Failure] = {}
    for fullname in nodes:
        owner = next((by_name[part] for part in fullname.split(".") if part in by_name), None)
        crash = next((c for c in reversed(crashes) if _crash_is_of(c, fullname)), None)
        reason = reason_of(crash.read_text(errors="replace")) if crash else "see the log"
        name = fullname.rsplit(".", 1)[-1]  # records_01 and report_01 belong to a participant
        subject = owner.subject if owner else name.partition("_")[2]
        label = owner.label if owner else f"sub-{subject}"
        found.setdefault(label, Failure(label, subject, reason, fullname, str(crash or "")))
    return list(found.values())


def _crash_is_of(crash: Path, fullname: str) -> bool:
    return any(
        line.strip() == f"Node: {fullname}"
        for line in crash.read_text(errors="replace").split("\n")
    )


def reason_of(crash: str) -> str:
    """The sentence of a crash file: ours without the exception's name, another's with it."""
    lines = [line.strip() for line in crash.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("qsm_nipype.errors."):
            return line.split(": ", 1)[-1]
    return lines[-1] if lines else "the node left no message"


def write_reports(
    settings: Settings, acquisitions: Sequence[Acquisition], failures: Sequence[Failure]
) -> None:
    """Write the page of each subject whose report node could not run, with what there is."""
    from qsm_nipype.report.subject import write_subject_report

    by_label = {f.label: f for f in failures}
    subjects = {f.label: f.subject for f in failures}
    subjects |= {a.label: a.subject for a in acquisitions}
    wanted = {f.subject for f in failures}
    if settings.reports_only:  # no node has written them
        wanted |= {a.subject for a in acquisitions}
    for subject in sorted(wanted):
        labels = sorted(label for label, owner in subjects.items() if owner == subject)
        errors = {
            label: {"message": f.reason, "node": f.node, "crashfile": f.crash_file}
            for label, f in by_label.items()
            if f.subject == subject
        }
        write_subject_report(settings.output_dir, subject, labels, errors)


def _write_states(settings: Settings, labels: Sequence[str], failures: Sequence[Failure]) -> None:
    from qsm_nipype.execution import state

    for label in labels:
        own = [f for f in failures if f"sub-{f.subject}" == label]
        entries = [state.failure(f.node or f.label, f.reason, f.crash_file, f.label) for f in own]
        status = "failed" if own else "done"
        state.write(settings.output_dir, label, status, failures=entries)


def _say(
    settings: Settings, acquisitions: Sequence[Acquisition], failures: Sequence[Failure]
) -> None:
    failed = {failure.label for failure in failures}
    fine = [a for a in acquisitions if a.label not in failed]
    for failure in failures:
        where = f" (traceback: {failure.crash_file})" if failure.crash_file else ""
        print(f"qsm-nipype: {failure.label}: {failure.reason}{where}", file=sys.stderr)
    for subject in sorted({a.subject for a in fine}):
        print(f"{settings.output_dir / f'sub-{subject}.html'}")
    total = len(fine) + len(failed)
    print(f"qsm-nipype: {len(fine)} of {total} acquisitions finished", file=sys.stderr)
