"""Every refusal that needs a disk or a machine, before any node runs."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype import plan
from qsm_nipype.dataset.acquisitions import (
    NOTHING,
    SUFFIXES,
    Acquisition,
    Refusal,
    Selection,
    find_acquisitions,
)
from qsm_nipype.dataset.given_acquisitions import find_given
from qsm_nipype.dataset.head_size import too_small
from qsm_nipype.errors import UsageError
from qsm_nipype.methods import Method
from qsm_nipype.settings import Settings
from qsm_nipype.system.files import missing_content, read_text


def check_writable(settings: Settings) -> None:
    """Refuse folders that would spoil the raw data, or cannot be written; makes none.

    Raises UsageError.
    """
    places = {"output folder": settings.output_dir, "work folder (-w)": settings.work_dir}
    source = settings.bids_dir.resolve()
    for name, folder in places.items():
        real = folder.resolve()
        if real == source:
            raise UsageError(f"{folder}: the {name} is the BIDS dataset itself; choose another")
        if source in real.parents and source / "derivatives" not in real.parents:
            raise UsageError(
                f"{folder}: the {name} lies inside the BIDS dataset; choose one elsewhere, "
                f"or in {settings.bids_dir / 'derivatives'}"
            )
        there = next((f for f in (folder, *folder.parents) if os.path.exists(f)), folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"{there}: the {name} cannot be written there; choose another")


def make_folders(settings: Settings) -> None:
    """Make the output and the work folder, and try to write there. Raises UsageError."""
    for folder in (settings.output_dir, settings.work_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise UsageError(
                f"{folder}: cannot be written ({exc.strerror}); choose another"
            ) from exc


def check_programs(settings: Settings) -> None:
    """Refuse own files, packages and weights that are not there. Raises QSMError."""
    for kind, path in settings.derivatives.items():
        if lacking := missing_content(Path(path)):
            raise UsageError(f"-d {kind}={path}: {lacking}")
        if not Path(path).exists():
            raise UsageError(f"-d {kind}={path}: no such file or folder")
    for method in settings.chosen():
        _check_method(settings, method)


def _check_method(settings: Settings, method: Method) -> None:
    """Refuse a method whose package or weights are not there. Raises UsageError, WeightsError."""
    if method.extra is not None and importlib.util.find_spec(method.extra) is None:
        raise UsageError(
            f"{method.key} needs the package {method.extra}; "
            f"pip install 'qsm-nipype[{method.extra}]'"
        )
    if method.network == "rim":
        from qsm_nipype.models.radiomics import require

        require()
    if method.network is not None:
        from qsm_nipype.models import registry

        registry.check(method.network, settings.weights_of(method))


def find(settings: Settings) -> tuple[list[Acquisition], list[Refusal]]:
    """The selected acquisitions, the refused ones, and (`idle`) what leaves nothing to do.

    Raises UsageError when there is nothing to do in the whole dataset. For participants that were
    asked for by label that is no fault: a job of its own for each must not fail for ever.
    """
    own = {kind: Path(place).absolute() for kind, place in settings.derivatives.items()}
    selection = Selection(
        participants=settings.participant_label,
        sessions=settings.session_label,
        filters=MappingProxyType(_filters(settings.bids_filter_file)),
        database=settings.bids_database_dir,
        own=MappingProxyType(own),
        units="" if settings.map_units == "auto" else settings.map_units,
    )
    look = find_given if settings.start else find_acquisitions
    acquisitions, refusals = look(settings.bids_dir.absolute(), selection)
    idle = not acquisitions and all(item.idle for item in refusals)
    if idle and not settings.participant_label:
        without = [item.reason for item in refusals if item.reason != NOTHING]
        count = f"; of {len(without)} without phase the first: {without[0]}" if without else ""
        raise UsageError(
            f"{settings.bids_dir}: no gradient-echo images with phase (suffixes "
            f"{', '.join(SUFFIXES)}), and no phasediff or phase1 field map; name others by "
            f"--bids-filter-file{count}"
        )
    fit = []
    for item in acquisitions:
        reason = _unfit(settings, item)
        if reason:
            refusals = [*refusals, Refusal(item.entities, reason)]
        else:
            fit.append(item)
    return fit, refusals


def without_idle(
    acquisitions: list[Acquisition], refusals: Sequence[Refusal]
) -> tuple[list[Acquisition], list[Refusal]]:
    """The acquisitions, and those of `refusals` that are faults; the others are said, and gone."""
    for line in plan.nothing_to_do(refusals):
        print(f"qsm-nipype: {line}", file=sys.stderr)
    return acquisitions, [item for item in refusals if not item.idle]


def _unfit(settings: Settings, acquisition: Acquisition) -> str:
    """Why a chosen method cannot work with an acquisition; empty where all can."""
    times = acquisition.echo_times
    gaps = [b - a for a, b in pairwise(times)]
    uneven = len(times) > 1 and (len(times) < 3 or max(gaps) - min(gaps) > 0.02 * gaps[0])
    if settings.relaxometry == "arlo" and uneven and not settings.start:
        shown = ", ".join(f"{1000 * t:.4g}" for t in times)
        return (
            "--relaxometry arlo needs three or more equally spaced echoes, and these are at "
            f"{shown} ms; use --relaxometry loglinear"
        )
    return too_small(acquisition)


def _filters(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(
            f"{path}: the BIDS filter file is not readable JSON ({exc}); correct it"
        ) from exc
    if not isinstance(content, dict):
        raise UsageError(f"{path}: the BIDS filter file must hold one JSON object")
    return content


def check_device(settings: Settings) -> None:
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
