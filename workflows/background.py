"""From the total to the local field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.workflows.nodes import Resources, make_method


def init_background_wf(
    resources: Resources,
    *,
    background: str,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "background_wf",
) -> pe.Workflow:
    """Remove the field of sources outside the mask.

    ::

        total field, mask ─► background removal ─► local field, mask

    Inputs
    ------
    total_field
        (ppm)
    mask
        voxels with a reliable field
    field_noise
        standard deviation of the field (ppm)

    Outputs
    -------
    local_field
        field of the sources inside the mask (ppm)
    mask
        voxels in which the local field is known
    record_background
        what was found (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["total_field", "mask", "field_noise"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["local_field", "mask", "record_background"]),
        name="outputnode",
    )
    remove = make_method("background", background, resources, parameters=parameters)
    # fmt: off
    workflow.connect([
        (inputnode, remove, [("total_field", "in_file"), ("mask", "in_mask"),
                             ("field_noise", "in_noise")]),
        (remove, outputnode, [("out_file", "local_field"), ("out_mask", "mask"),
                              ("out_record", "record_background")]),
    ])
    # fmt: on
    return workflow
