"""The whole graph: every acquisition of every subject, and the subjects' reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from nipype.interfaces import utility as niu
from nipype.interfaces.base import TraitedSpec
from nipype.pipeline import engine as pe

from qsm_nipype import plan
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.derivatives import table
from qsm_nipype.interfaces.reportlets import SubjectReport
from qsm_nipype.methods import names
from qsm_nipype.settings import Settings
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.outputs import init_outputs_wf, written_fields
from qsm_nipype.workflows.parts import decays, inversions_of, make_parts, separates
from qsm_nipype.workflows.report import init_report_wf

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
    ("phase", "separation"): "magnitude",
    ("fieldmap", "separation"): "field_noise",
    ("masking", "separation"): "mask:brain",
    ("background", "separation"): "local_field mask",
    ("inversion", "separation"): "chi",
    ("relaxometry", "separation"): "r2star",
    ("fieldmap", "relaxometry"): "total_field",
    ("background", "vessels"): "mask",
    ("inversion", "vessels"): "chi",
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
    ("separation", "segmentation"): "paramagnetic diamagnetic",
}
#: Kinds of data/derivatives.yml that a run from a given map does not make, by the map's kind.
_NOT_MADE: dict[str, tuple[str, ...]] = {
    "": (),
    "chi": ("total_field", "local_field", "field_noise"),
    "localfield": ("total_field", "field_noise"),
    "totalfield": ("field_noise",),
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
          └► swi (with field and χ) ───────────────────────────┤
          └► separation (with field, R2* and χ), vessels ──────┘

    Which part hands what to which is the table `FLOW`; what is written, and where it comes from,
    is data/derivatives.yml. A given map takes the place of the parts that would have made it.

    Inputs
    ------
    none

    Outputs
    -------
    record
        of the acquisition with its figures (JSON)
    """
    size = Resources(acquisition.voxels, max(1, len(acquisition.echo_times)), threads, gpu)
    parts = make_parts(settings, acquisition, size)
    kinds = written_kinds(settings, acquisition)
    static = plan.static_part(settings, acquisition)
    steps = plan.steps(
        settings,
        decays="relaxometry" in parts,
        lesions="lesions" in parts,
        r2=acquisition.own.r2,
    )
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
    workflow.connect(_flow(parts, acquisition))
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
            name, port = sources[field].split(".") if field in sources else ("", "")
            if name in parts and _is_shown(field, acquisition):
                workflow.connect(parts[name], f"outputnode.{port}", place, f"inputnode.{field}")
    # fmt: off
    workflow.connect([
        (outputs, report, [("outputnode.record", "inputnode.record"),
                           ("outputnode.out_files", "inputnode.written")]),
        (report, outputnode, [("outputnode.record", "record")]),
    ])
    # fmt: on
    return workflow


def written_kinds(settings: Settings, acquisition: Acquisition) -> list[str]:
    """The kinds of data/derivatives.yml that a run writes for an acquisition."""
    holds = {
        "relaxometry": decays(settings, acquisition),
        "several_inversions": len(inversions_of(settings)) > 1,
        **{name: name in settings.segmentation for name in names("segmentation")},
        "own_labels": bool(acquisition.own.atlases),
        "lesions": acquisition.own.lesions is not None,
        "save_unwrapped": settings.save_unwrapped and not settings.start,
        "swi": bool(settings.swi) and not settings.start,
        "separation": separates(settings, acquisition),
        "r2_measured": separates(settings, acquisition) and acquisition.own.r2 is not None,
        "veins": "veins" in settings.vessels,
        "bleeds": "bleeds" in settings.vessels,
    }
    rows = {kind: row for kind, row in table().items() if "from" in row}
    for kind in _NOT_MADE[settings.start]:
        del rows[kind]
    return [kind for kind, row in rows.items() if "when" not in row or holds[row["when"]]]


def _flow(parts: Mapping[str, pe.Workflow], acquisition: Acquisition) -> list[Any]:
    """What `FLOW` connects between the parts that there are."""
    lacking = set() if acquisition.given is None else {"quality", "reliability", "field_noise"}
    links = []
    for (source, target), fields in FLOW.items():
        if source not in parts or target not in parts or parts[source] is parts[target]:
            continue
        if (source, target) == ("phase", "inversion") and not acquisition.magnitude:
            continue  # the image that stands in for a magnitude is no weight
        pairs = [f.split(":") if ":" in f else [f, f] for f in fields.split()]
        ports = [(f"outputnode.{a}", f"inputnode.{b}") for a, b in pairs if a not in lacking]
        links.append((parts[source], parts[target], ports))
    return links


def _is_shown(field: str, acquisition: Acquisition) -> bool:
    """Whether the part in a given map's place has what is drawn."""
    if acquisition.given is None:
        return True
    unknown = [
        "raw_phase",
        "unwrapped",
        "residual",
        *([] if acquisition.magnitude else ["magnitude"]),
    ]
    return field not in unknown + list(_NOT_MADE[acquisition.given.kind])


def _descriptions(settings: Settings, acquisition: Acquisition) -> dict[str, list[str | None]]:
    """The `desc-` entities of what comes in lists."""
    found: dict[str, list[str | None]] = {}
    if acquisition.own.atlases:
        found["aligned"] = [atlas.name for atlas in acquisition.own.atlases]
    if len(inversions_of(settings)) > 1:
        found["chi"] = [None, *settings.inversion[1:]]
    for kind in ("swi", "minip") if settings.swi and not settings.start else ():
        found[kind] = [method.replace("-", "") for method in settings.swi]
    return found


def _fields(node: TraitedSpec) -> list[str]:
    """The fields of an inputnode or outputnode."""
    return list(node.copyable_trait_names())
