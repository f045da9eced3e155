"""Which voxels are brain, and in which of them the field can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.interfaces.base import isdefined
from nipype.pipeline import engine as pe

from qsm_nipype.core.mask_language import MaskPart, parse_masks
from qsm_nipype.interfaces.masking import EditMask, UserMask
from qsm_nipype.workflows.nodes import Resources, has_port, make, make_method

#: What a mask method may take: field of `inputnode`, port of the method.
_PORTS = (
    ("magnitude", "in_file"),
    ("magnitude", "in_magnitude"),
    ("quality", "in_quality"),
    ("total_field", "in_reference"),
)


def init_masking_wf(
    resources: Resources,
    *,
    mask: str,
    trim: str,
    mask_file: str | None = None,
    operations: str = "",
    weights: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "masking_wf",
) -> pe.Workflow:
    """Find the brain, or take the user's mask, and leave out voxels without a reliable field.

    `mask` may join several by `&`, each edited first where it says so, as in
    `quality&net:dilate:3`: their intersection is edited by `operations` and trimmed.

    ::

        magnitude, quality ─► masks (─► edit each) ─► edit ─► trim ─► trimmed mask
        reliability, total field ──────────────────────────────┘

    Inputs
    ------
    magnitude
        echoes last
    quality
        of the phase, 0 to 1
    reliability
        of the field, 0 to 1
    total_field
        (ppm)

    Outputs
    -------
    mask
        of the brain; the user's as it is, others without dropout at the surface
    trimmed
        those of its voxels in which the field is reliable
    record_mask, record_trim
        one for each mask, then of their editing; of the trimming (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["magnitude", "quality", "reliability", "total_field"]),
        name="inputnode",
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["mask", "trimmed", "record_mask", "record_trim"]),
        name="outputnode",
    )
    trimmed = make_method("trim", trim, resources, parameters=parameters)
    edit = make(EditMask(operations=operations), "edit", resources)
    edit.run_without_submitting = not operations
    if mask_file is not None:
        brains = {"user": make(UserMask(in_file=mask_file), "user", resources)}
        parts: tuple[MaskPart, ...] = (MaskPart("user"),)
    else:
        parts = parse_masks(mask)
        brains = {
            part.name: make_method("mask", part.name, resources, parameters=parameters)
            for part in parts
        }
    for brain in brains.values():
        if weights is not None and has_port(brain, "weights"):
            brain.inputs.weights = weights
        free = [(field, port) for field, port in _PORTS if has_port(brain, port)]
        wanted = [(f, p) for f, p in free if not isdefined(getattr(brain.inputs, p))]
        workflow.connect([(inputnode, brain, wanted)])
    edited_somehow = bool(operations) or len(parts) > 1 or any(p.operations for p in parts)
    made = [*brains.values(), *([edit] if edited_somehow else [])]
    records = pe.Node(niu.Merge(len(made)), name="all_records", run_without_submitting=True)
    for number, node in enumerate(made, start=1):
        workflow.connect(node, "out_record", records, f"in{number}")
    join = pe.Node(niu.Merge(len(parts)), name="join", run_without_submitting=True)
    for number, part in enumerate(parts, start=1):
        found = brains[part.name]
        if part.operations:
            edited = make(EditMask(operations=part.operations), f"edit{number}", resources)
            workflow.connect(found, "out_mask", edited, "in_masks")
            found = edited
        workflow.connect(found, "out_mask", join, f"in{number}")
    # fmt: off
    workflow.connect([
        (inputnode, trimmed, [("reliability", "in_reliability"), ("quality", "in_quality"),
                              ("total_field", "in_field")]),
        (join, edit, [("out", "in_masks")]),
        (edit, trimmed, [("out_mask", "in_mask")]),
        (edit, outputnode, [("out_mask", "mask")]) if mask_file is not None else
        (trimmed, outputnode, [("out_brain", "mask")]),
        (trimmed, outputnode, [("out_mask", "trimmed"), ("out_record", "record_trim")]),
        (records, outputnode, [("out", "record_mask")]),
    ])
    # fmt: on
    return workflow
