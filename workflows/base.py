"""The whole graph: every acquisition of every subject, and the subjects' reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.interfaces.base import TraitedSpec
from nipype.pipeline import engine as pe

from qsm_nipype import plan
from qsm_nipype.dataset.acquisitions import PARTS, Acquisition
from qsm_nipype.dataset.derivatives import table
from qsm_nipype.interfaces.reportlets import SubjectReport
from qsm_nipype.settings import NO_METHOD, Settings
from qsm_nipype.workflows.background import init_background_wf
from qsm_nipype.workflows.fieldmap import init_fieldmap_wf
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.lesions import init_lesions_wf
from qsm_nipype.workflows.masking import init_masking_wf
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.outputs import init_outputs_wf, written_fields
from qsm_nipype.workflows.phase import init_phase_wf
from qsm_nipype.workflows.relaxometry import init_relaxometry_wf
from qsm_nipype.workflows.report import init_report_wf
from qsm_nipype.workflows.segmentation import init_segmentation_wf
from qsm_nipype.workflows.swi import init_swi_wf

#: The physics: what one part of the pipeline hands to another, FIELD or FIELD:FIELD there.
FLOW = {
    ("phase", "fieldmap"): "phase magnitude",
    ("phase", "masking"): "magnitude",
    ("phase", "inversion"): "magnitude",
    ("phase", "relaxometry"): "magnitude",
    ("phase", "segmentation"): "magnitude",
    ("phase", "lesions"): "magnitude",
    ("phase", "swi"): "magnitude phase",
    ("fieldmap", "swi"): "total_field",
    ("masking", "swi"): "mask",
    ("inversion", "swi"): "chi",
    ("fieldmap", "masking"): "quality reliability total_field",
    ("fieldmap", "background"): "total_field field_noise",
    ("fieldmap", "inversion"): "total_field field_noise",
    ("masking", "background"): "trimmed:mask",
    ("masking", "inversion"): "trimmed",
    ("masking", "relaxometry"): "mask",
    ("masking", "segmentation"): "mask",
    ("background", "inversion"): "local_field mask",
    ("background", "segmentation"): "mask:mask_chi",
    ("background", "lesions"): "mask",
    ("inversion", "segmentation"): "chi",
    ("inversion", "lesions"): "chi",
    ("relaxometry", "segmentation"): "r2star t2star",
}
#: What the record and the pictures take besides the maps that are written.
SHOWN = {
    "raw_phase": "phase.raw_phase",
    "magnitude": "phase.magnitude",
    "unwrapped": "fieldmap.unwrapped",
    "residual": "fieldmap.residual",
}


def init_qsm_nipype_wf(
    settings: Settings,
    acquisitions: Sequence[Acquisition],
    *,
    threads: int = 1,
    gpu: bool = False,
    name: str = "qsm_nipype_wf",
) -> pe.Workflow:
    """One workflow for each acquisition, one report for each subject.

    ::

        acquisition ─┐
        acquisition ─┴► subject report

    Inputs
    ------
    none

    Outputs
    -------
    none: everything is written into `settings.output_dir`
    """
    workflow = pe.Workflow(name=name, base_dir=str(settings.work_dir.absolute()))
    by_subject = groupby(sorted(acquisitions, key=lambda a: a.label), key=lambda a: a.subject)
    for subject, members in by_subject:
        own = list(members)
        join = pe.Node(niu.Merge(len(own)), name=f"records_{plan.identifier(subject)}")
        join.run_without_submitting = True
        report = pe.Node(
            SubjectReport(subject=subject, out_dir=str(settings.output_dir.absolute())),
            name=f"report_{plan.identifier(subject)}",
            mem_gb=0.4,
        )
        workflow.connect(join, "out", report, "in_records")
        for number, acquisition in enumerate(own, start=1):
            single = init_acquisition_wf(settings, acquisition, threads=threads, gpu=gpu)
            workflow.connect(single, "outputnode.record", join, f"in{number}")
    return workflow


def init_acquisition_wf(
    settings: Settings, acquisition: Acquisition, *, threads: int = 1, gpu: bool = False
) -> pe.Workflow:
    """From the files of one acquisition to its maps, record and figures.

    ::

        phase ─► fieldmap ─► background ─► inversion ─► outputs ─► report
          └► masking ───────────┘              ├► segmentation ─┤
          └► relaxometry ──────────────────────► lesions ──────┤
          └► swi (with field and χ) ───────────────────────────┘

    Which part hands what to which is the table `FLOW`; what is written, and where it comes from,
    is data/derivatives.yml.

    Inputs
    ------
    none

    Outputs
    -------
    record
        of the acquisition with its figures (JSON)
    """
    size = Resources(acquisition.voxels, len(acquisition.echo_times), threads, gpu)
    parts = _parts(settings, acquisition, size)
    kinds = written_kinds(settings, acquisition)
    static = plan.static_part(settings, acquisition)
    steps = plan.steps(settings, decays="relaxometry" in parts, lesions="lesions" in parts)
    out_dir = settings.output_dir.absolute()
    outputs = init_outputs_wf(
        static,
        plan.with_own_mask(steps, static["own_mask"]),
        out_dir,
        size,
        kinds=kinds,
        descriptions=_descriptions(settings, acquisition),
    )
    report = init_report_wf(out_dir, acquisition.label, size)
    outputnode = pe.Node(niu.IdentityInterface(fields=["record"]), name="outputnode")
    workflow = pe.Workflow(name=acquisition.name)
    for (source, target), fields in FLOW.items():
        if source in parts and target in parts:
            pairs = [(f, f) if ":" not in f else tuple(f.split(":")) for f in fields.split()]
            ports = [(f"outputnode.{a}", f"inputnode.{b}") for a, b in pairs]
            workflow.connect([(parts[source], parts[target], ports)])
    records = {
        field: f"{name}.{field}"
        for name, part in parts.items()
        for field in _fields(part.outputs.outputnode)
        if field.startswith("record_")
    }
    written = written_fields(kinds)
    for place, sources in (
        (outputs, {**SHOWN, **written, **records}),
        (report, {**SHOWN, **written}),
    ):
        for field in _fields(place.inputs.inputnode):
            if field in sources:
                name, port = sources[field].split(".")
                workflow.connect(parts[name], f"outputnode.{port}", place, f"inputnode.{field}")
    # fmt: off
    workflow.connect([
        (outputs, report, [("outputnode.record", "inputnode.record"),
                           ("outputnode.out_files", "inputnode.written")]),
        (report, outputnode, [("outputnode.record", "record")]),
    ])
    # fmt: on
    return workflow


def _parts(
    settings: Settings, acquisition: Acquisition, size: Resources
) -> dict[str, pe.Workflow]:
    """The parts of an acquisition's pipeline, by the names in `FLOW`."""
    common: dict[str, Any] = {"parameters": settings.parameters}
    weights = {name: os.path.abspath(path) for name, path in settings.weights.items()}
    own, echo_times, b0 = acquisition.own, acquisition.echo_times, acquisition.b0
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
        "background": init_background_wf(size, background=settings.background, **common),
        "inversion": init_inversion_wf(
            b0,
            sum(echo_times) / len(echo_times),
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
            inversions=settings.inversion,
            weights=weights.get("dentate"),
        ),
    }
    if _decays(settings, acquisition):
        parts["relaxometry"] = init_relaxometry_wf(
            echo_times, size, relaxometry=settings.relaxometry, **common
        )
    if settings.swi:
        parts["swi"] = init_swi_wf(echo_times, size, methods=settings.swi, **common)
    if own.lesions is not None:
        parts["lesions"] = init_lesions_wf(
            str(own.lesions.flair),
            str(own.lesions.mask),
            size,
            weights=weights.get("rim"),
            method=settings.lesion_instances,
            min_volume=settings.lesion_volume,
        )
    return parts


def written_kinds(settings: Settings, acquisition: Acquisition) -> list[str]:
    """The kinds of data/derivatives.yml that a run writes for an acquisition."""
    holds = {
        "relaxometry": _decays(settings, acquisition),
        "several_inversions": len(settings.inversion) > 1,
        "segmentation": bool(settings.segmentation),
        "own_labels": bool(acquisition.own.atlases),
        "lesions": acquisition.own.lesions is not None,
        "save_unwrapped": settings.save_unwrapped,
        "swi": bool(settings.swi),
    }
    rows = {kind: row for kind, row in table().items() if "from" in row}
    return [kind for kind, row in rows.items() if "when" not in row or holds[row["when"]]]


def _decays(settings: Settings, acquisition: Acquisition) -> bool:
    """Whether R2* and T2* can be mapped and are wanted."""
    return len(acquisition.echo_times) > 1 and settings.relaxometry != NO_METHOD


def _descriptions(settings: Settings, acquisition: Acquisition) -> dict[str, list[str | None]]:
    """The `desc-` entities of what comes in lists."""
    found: dict[str, list[str | None]] = {}
    if acquisition.own.atlases:
        found["aligned"] = [atlas.name for atlas in acquisition.own.atlases]
    if len(settings.inversion) > 1:
        found["chi"] = [None, *settings.inversion[1:]]
    for kind in ("swi", "minip") if settings.swi else ():
        found[kind] = [method.replace("-", "") for method in settings.swi]
    return found


def _fields(node: TraitedSpec) -> list[str]:
    """The fields of an inputnode or outputnode."""
    return list(node.copyable_trait_names())


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
