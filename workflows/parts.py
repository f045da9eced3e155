"""The parts of an acquisition's graph: from images, or from a map that is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe

from qsm_nipype.dataset.acquisitions import PARTS, Acquisition
from qsm_nipype.settings import NO_METHOD, Settings
from qsm_nipype.workflows.background import init_background_wf
from qsm_nipype.workflows.fieldmap import init_fieldmap_wf
from qsm_nipype.workflows.given import STANDS_FOR, init_given_wf
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.lesions import init_lesions_wf
from qsm_nipype.workflows.masking import init_masking_wf
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.phase import init_phase_wf
from qsm_nipype.workflows.relaxometry import init_relaxometry_wf
from qsm_nipype.workflows.segmentation import init_segmentation_wf
from qsm_nipype.workflows.separation import init_separation_wf
from qsm_nipype.workflows.swi import init_swi_wf
from qsm_nipype.workflows.vessels import init_vessels_wf


def make_parts(
    settings: Settings, acquisition: Acquisition, size: Resources
) -> dict[str, pe.Workflow]:
    """The parts of an acquisition's pipeline, by the names in `FLOW`."""
    parts = _after_field(settings, acquisition, size)
    if acquisition.given is None:
        return {**_to_field(settings, acquisition, size), **parts}
    given = _given(settings, acquisition, size)
    places = STANDS_FOR[acquisition.given.kind]
    return {**parts, **dict.fromkeys(places, given)}


def _to_field(
    settings: Settings, acquisition: Acquisition, size: Resources
) -> dict[str, pe.Workflow]:
    """The parts from the images to the total field and the mask."""
    common: dict[str, Any] = {"parameters": settings.parameters}
    own, echo_times, b0 = acquisition.own, acquisition.echo_times, acquisition.b0
    weights = {name: os.path.abspath(path) for name, path in settings.weights.items()}
    parts = {
        "phase": init_phase_wf(
            {name: getattr(acquisition, name) for name in PARTS.values()},
            acquisition.metadata,
            echo_times,
            size,
            offset=settings.offset,
            reading={
                "coils": acquisition.coils,
                "sign": settings.phase_sign,
                "units": settings.phase_units,
            },
            **common,
        ),
        "fieldmap": init_fieldmap_wf(
            echo_times, b0, size, unwrapping=settings.unwrapping, fit=settings.fit, **common
        ),
        "masking": init_masking_wf(
            size,
            mask=settings.mask,
            trim=settings.trim,
            mask_file=_text(own.mask),
            operations=settings.mask_operations,
            weights=weights.get("mask"),
            **common,
        ),
    }
    if decays(settings, acquisition):
        parts["relaxometry"] = init_relaxometry_wf(
            echo_times, size, relaxometry=settings.relaxometry, b0=b0, **common
        )
    if separates(settings, acquisition):
        parts["separation"] = init_separation_wf(
            b0, own.r2, size, separation=settings.separation, **common
        )
    if settings.swi:
        parts["swi"] = init_swi_wf(echo_times, size, methods=settings.swi, **common)
    return parts


def _given(settings: Settings, acquisition: Acquisition, size: Resources) -> pe.Workflow:
    """The part that reads the user's map."""
    one, own = acquisition.given, acquisition.own
    assert one is not None
    kept = "reference" in settings.passed_over()
    return init_given_wf(
        one.kind,
        str(one.file),
        size,
        unit=(one.unit.name, one.unit.factor),
        mask_file=_text(own.mask),
        magnitudes=acquisition.magnitude,
        reference="none" if kept else settings.reference,
        region=_text(own.region),
        parameters=settings.parameters,
    )


def _after_field(
    settings: Settings, acquisition: Acquisition, size: Resources
) -> dict[str, pe.Workflow]:
    """The parts from the total field to what is measured on χ."""
    common: dict[str, Any] = {"parameters": settings.parameters}
    weights = {name: os.path.abspath(path) for name, path in settings.weights.items()}
    own, echo_times = acquisition.own, acquisition.echo_times
    parts = {
        "background": init_background_wf(size, background=settings.background, **common),
        "inversion": init_inversion_wf(
            acquisition.b0,
            sum(echo_times) / max(1, len(echo_times)),
            size,
            inversions=settings.inversion,
            reference=settings.reference,
            region=_text(own.region),
            weights=weights.get("qsmgan"),
            two_stage=settings.two_stage,
            background=settings.background,
            **common,
        ),
        "segmentation": init_segmentation_wf(
            acquisition.entities,
            size,
            segmentations=settings.segmentation,
            atlases=own.atlases,
            inversions=inversions_of(settings),
            weights=weights,
        ),
    }
    if settings.vessels:
        parts["vessels"] = init_vessels_wf(size, vessels=settings.vessels, **common)
    if own.lesions is not None:
        parts["lesions"] = init_lesions_wf(
            str(own.lesions.flair),
            str(own.lesions.mask),
            size,
            weights=weights.get("rim"),
            method=settings.lesion_instances,
            min_volume=settings.lesion_volume,
            said=own.lesions.notes,
        )
    return parts


def decays(settings: Settings, acquisition: Acquisition) -> bool:
    """Whether R2* and T2* can be mapped and are wanted."""
    wanted = settings.relaxometry != NO_METHOD and acquisition.given is None
    return wanted and len(acquisition.echo_times) > 1


def separates(settings: Settings, acquisition: Acquisition) -> bool:
    """Whether both kinds of sources are wanted and R2* can be mapped."""
    return settings.separation != NO_METHOD and decays(settings, acquisition)


def inversions_of(settings: Settings) -> tuple[str, ...]:
    """The inversions behind χ; of a given one a single one that is not known."""
    return settings.inversion[:1] if settings.start == "chi" else settings.inversion


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
