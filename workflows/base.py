"""The whole graph: every acquisition of every subject, and the subjects' reports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype import plan
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.interfaces.reportlets import SubjectReport
from qsm_nipype.settings import Settings
from qsm_nipype.workflows.background import init_background_wf
from qsm_nipype.workflows.fieldmap import init_fieldmap_wf
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.lesions import add_sink, init_lesions_wf
from qsm_nipype.workflows.masking import init_masking_wf
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.outputs import ALWAYS, init_outputs_wf
from qsm_nipype.workflows.phase import init_phase_wf
from qsm_nipype.workflows.relaxometry import init_relaxometry_wf
from qsm_nipype.workflows.report import init_report_wf
from qsm_nipype.workflows.segmentation import init_segmentation_wf


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
          └► relaxometry ─────────────────────┴───────────┘

    Inputs
    ------
    none

    Outputs
    -------
    record
        of the acquisition with its figures (JSON)
    """
    size = Resources(acquisition.voxels, len(acquisition.echo_times), threads, gpu)
    common = {"parameters": settings.parameters}
    decays = len(acquisition.echo_times) > 1
    kinds = _kinds(settings, acquisition)
    own = acquisition.own
    lesions = own.lesions
    static = plan.static_part(settings, acquisition)
    workflow = pe.Workflow(name=acquisition.name)
    outputnode = pe.Node(niu.IdentityInterface(fields=["record"]), name="outputnode")

    parts = ("phase", "magnitude", "real", "imaginary")
    phase = init_phase_wf(
        {part: getattr(acquisition, part) for part in parts},
        acquisition.metadata,
        acquisition.echo_times,
        size,
        offset=settings.offset,
        reading={"coils": acquisition.coils, "sign": settings.phase_sign},
        **common,
    )
    fieldmap = init_fieldmap_wf(
        acquisition.echo_times,
        acquisition.b0,
        size,
        unwrapping=settings.unwrapping,
        fit=settings.fit,
        **common,
    )
    masking = init_masking_wf(
        size,
        mask=settings.mask,
        trim=settings.trim,
        mask_file=_path(own.mask),
        operations=settings.mask_operations,
        weights=_path(settings.mask_weights),
        **common,
    )
    background = init_background_wf(size, background=settings.background, **common)
    echo_time = sum(acquisition.echo_times) / len(acquisition.echo_times)
    inversion = init_inversion_wf(
        acquisition.b0,
        echo_time,
        size,
        inversions=settings.inversion,
        reference=settings.reference,
        region=_path(own.region),
        weights=_path(settings.inversion_weights),
        two_stage=settings.two_stage,
        background=settings.background,
        **common,
    )
    outputs = init_outputs_wf(
        static,
        plan.steps(settings, decays=decays, lesions=lesions is not None),
        settings.output_dir.absolute(),
        size,
        kinds=kinds,
        inversions=settings.inversion,
        atlases=[atlas.name for atlas in own.atlases],
    )
    report = init_report_wf(settings.output_dir.absolute(), acquisition.label, size)
    # fmt: off
    workflow.connect([
        (phase, fieldmap, [("outputnode.phase", "inputnode.phase"),
                           ("outputnode.magnitude", "inputnode.magnitude")]),
        (phase, masking, [("outputnode.magnitude", "inputnode.magnitude")]),
        (fieldmap, masking, [("outputnode.quality", "inputnode.quality"),
                             ("outputnode.reliability", "inputnode.reliability"),
                             ("outputnode.total_field", "inputnode.total_field")]),
        (fieldmap, background, [("outputnode.total_field", "inputnode.total_field"),
                                ("outputnode.field_noise", "inputnode.field_noise")]),
        (masking, background, [("outputnode.trimmed", "inputnode.mask")]),
        (background, inversion, [("outputnode.local_field", "inputnode.local_field"),
                                 ("outputnode.mask", "inputnode.mask")]),
        (fieldmap, inversion, [("outputnode.total_field", "inputnode.total_field"),
                               ("outputnode.field_noise", "inputnode.field_noise")]),
        (masking, inversion, [("outputnode.trimmed", "inputnode.trimmed")]),
        (phase, inversion, [("outputnode.magnitude", "inputnode.magnitude")]),
        # record, derivatives, figures
        (phase, outputs, [("outputnode.record", "inputnode.phase_record"),
                          ("outputnode.phase", "inputnode.phase")]),
        (fieldmap, outputs, [(f"outputnode.{f}", f"inputnode.{f}") for f in (
            "unwrapped", "total_field", "field_noise", "residual")]),
        (masking, outputs, [(f"outputnode.{f}", f"inputnode.{f}") for f in ("mask", "trimmed")]),
        (background, outputs, [("outputnode.local_field", "inputnode.local_field"),
                               ("outputnode.mask", "inputnode.mask_chi")]),
        (inversion, outputs, [(f"outputnode.{f}", f"inputnode.{f}") for f in (
            "chi", "inverted", "reference")]),
        (outputs, report, [("outputnode.record", "inputnode.record"),
                           ("outputnode.out_files", "inputnode.written")]),
        (phase, report, [(f"outputnode.{f}", f"inputnode.{f}") for f in (
            "raw_phase", "magnitude")]),
        (fieldmap, report, [(f"outputnode.{f}", f"inputnode.{f}") for f in (
            "total_field", "residual", "unwrapped")]),
        (masking, report, [("outputnode.mask", "inputnode.mask")]),
        (background, report, [("outputnode.local_field", "inputnode.local_field"),
                              ("outputnode.mask", "inputnode.mask_chi")]),
        (inversion, report, [("outputnode.chi", "inputnode.chi")]),
        (report, outputnode, [("outputnode.record", "record")]),
    ])
    # fmt: on
    _add_segmentation(workflow, settings, acquisition, size)
    if "agreement" in kinds:
        for place in (outputs, report):
            workflow.connect(inversion, "outputnode.agreement", place, "inputnode.agreement")
    if decays:
        _add_relaxometry(workflow, settings, acquisition, size)
    if lesions is not None:
        branch = init_lesions_wf(
            str(lesions.flair),
            str(lesions.mask),
            size,
            weights=_path(settings.rim_weights),
            method=settings.lesion_instances,
            min_volume=settings.lesion_volume,
        )
        # fmt: off
        workflow.connect([
            (phase, branch, [("outputnode.magnitude", "inputnode.magnitude")]),
            (inversion, branch, [("outputnode.chi", "inputnode.chi")]),
            (background, branch, [("outputnode.mask", "inputnode.mask")]),
        ])
        # fmt: on
        add_sink(workflow, settings.output_dir.absolute(), static, size)
    return workflow


def _add_relaxometry(
    workflow: pe.Workflow, settings: Settings, acquisition: Acquisition, size: Resources
) -> None:
    relaxometry = init_relaxometry_wf(
        acquisition.echo_times,
        size,
        relaxometry=settings.relaxometry,
        parameters=settings.parameters,
    )
    nodes = {
        part: workflow.get_node(f"{part}_wf")
        for part in ("phase", "masking", "outputs", "report", "segmentation")
    }
    # fmt: off
    workflow.connect([
        (nodes["phase"], relaxometry, [("outputnode.magnitude", "inputnode.magnitude")]),
        (nodes["masking"], relaxometry, [("outputnode.mask", "inputnode.mask")]),
        (relaxometry, nodes["outputs"], [("outputnode.r2star", "inputnode.r2star"),
                                         ("outputnode.t2star", "inputnode.t2star")]),
        (relaxometry, nodes["report"], [("outputnode.r2star", "inputnode.r2star")]),
        (relaxometry, nodes["segmentation"], [("outputnode.r2star", "inputnode.r2star"),
                                              ("outputnode.t2star", "inputnode.t2star")]),
    ])
    # fmt: on


def _add_segmentation(
    workflow: pe.Workflow, settings: Settings, acquisition: Acquisition, size: Resources
) -> None:
    segmentation = init_segmentation_wf(
        acquisition.entities,
        size,
        segmentations=settings.segmentation,
        atlases=acquisition.own.atlases,
        inversions=settings.inversion,
        weights=_path(settings.dentate_model),
    )
    parts = ("phase", "masking", "background", "inversion", "outputs", "report")
    nodes = {part: workflow.get_node(f"{part}_wf") for part in parts}
    written = ["regions"] + ["aligned"] * bool(acquisition.own.atlases)
    nuclei = ["dentate", "dentate_box"] if settings.segmentation else []
    written += [*nuclei, "cerebellum"] if nuclei else []
    # fmt: off
    workflow.connect([
        (nodes["phase"], segmentation, [("outputnode.magnitude", "inputnode.magnitude")]),
        (nodes["masking"], segmentation, [("outputnode.mask", "inputnode.mask")]),
        (nodes["background"], segmentation, [("outputnode.mask", "inputnode.mask_chi")]),
        (nodes["inversion"], segmentation, [("outputnode.chi", "inputnode.chi")]),
        (segmentation, nodes["outputs"], [(f"outputnode.{f}", f"inputnode.{f}") for f in written]),
    ])
    # fmt: on
    if nuclei:
        ports = [(f"outputnode.{field}", f"inputnode.{field}") for field in nuclei]
        workflow.connect([(segmentation, nodes["report"], ports)])


def _kinds(settings: Settings, acquisition: Acquisition) -> list[str]:
    """What an acquisition's sink writes."""
    nuclei = bool(settings.segmentation)
    decays = len(acquisition.echo_times) > 1
    extra = {
        "regions": True,
        "dentate": nuclei,
        "cerebellum": nuclei,
        "dentate_box": nuclei,
        "aligned": bool(acquisition.own.atlases),
        "agreement": len(settings.inversion) > 1,
        "r2star": decays,
        "t2star": decays,
        "unwrapped": settings.save_unwrapped,
    }
    return [*ALWAYS, *(kind for kind, wanted in extra.items() if wanted)]


def _path(given: Path | None) -> str | None:
    return None if given is None else str(given.absolute())
