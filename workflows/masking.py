"""Which voxels are brain, and in which of them the field can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.interfaces.masking import EditMask, TrimMask, UserMask
from qsm_nipype.workflows.nodes import Resources, has_port, make, make_method


def init_masking_wf(
    resources: Resources,
    *,
    mask: str = "quality",
    mask_file: str | None = None,
    operations: str = "",
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "masking_wf",
) -> pe.Workflow:
    """Find the brain, or take the user's mask, and leave out voxels without a reliable field.

    ::

        magnitude, quality ─► mask ─► edit ─► trim ─► trimmed mask
        residual ──────────────────────────────┘

    Inputs
    ------
    magnitude
        echoes last
    quality
        of the phase, 0 to 1
    residual
        of the field fit (0: perfect)

    Outputs
    -------
    mask
        of the brain
    trimmed
        those of its voxels in which the field is reliable
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["magnitude", "quality", "residual"]), name="inputnode"
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=["mask", "trimmed"]), name="outputnode")
    trim = make(TrimMask(**(parameters or {}).get("trim.residual", {})), "trim", resources)
    edit = make(EditMask(operations=operations), "edit", resources)
    edit.run_without_submitting = not operations
    if mask_file is not None:
        brain = make(UserMask(in_file=mask_file), "user", resources)
        wanted = [("residual", "in_reference")]
    else:
        brain = make_method("mask", mask, resources, parameters=parameters)
        wanted = [("magnitude", "in_file"), ("quality", "in_quality")]
    wanted = [(field, port) for field, port in wanted if has_port(brain, port)]
    # fmt: off
    workflow.connect([
        (inputnode, brain, wanted),
        (inputnode, trim, [("residual", "in_residual")]),
        (brain, edit, [("out_mask", "in_masks")]),
        (edit, trim, [("out_mask", "in_mask")]),
        (edit, outputnode, [("out_mask", "mask")]),
        (trim, outputnode, [("out_mask", "trimmed")]),
    ])
    # fmt: on
    return workflow
