"""R2* and T2* from the magnitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.workflows.nodes import Resources, has_port, make_method


def init_relaxometry_wf(
    echo_times: Sequence[float],
    resources: Resources,
    *,
    relaxometry: str,
    b0: float | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "relaxometry_wf",
) -> pe.Workflow:
    """Fit the decay of the magnitude inside the brain.

    ::

        magnitude, mask ─► decay ─► R2*, T2*

    Inputs
    ------
    magnitude
        echoes last
    mask
        of the brain
    total_field
        (ppm of `b0` T), whose gradients feign a decay

    Outputs
    -------
    r2star
        (1/s)
    t2star
        (s)
    record_relaxometry
        what the fit cost (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["magnitude", "mask", "total_field"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["r2star", "t2star", "record_relaxometry"]), name="outputnode"
    )
    fixed: dict[str, Any] = {"b0": b0} if b0 else {}
    decay = make_method(
        "relaxometry",
        relaxometry,
        resources,
        parameters=parameters,
        echo_times=list(echo_times),
        **fixed,
    )
    field = [("total_field", "in_field")] if b0 and has_port(decay, "in_field") else []
    # fmt: off
    workflow.connect([
        (inputnode, decay, [("magnitude", "in_file"), ("mask", "in_mask"), *field]),
        (decay, outputnode, [("r2star", "r2star"), ("t2star", "t2star"),
                             ("out_record", "record_relaxometry")]),
    ])
    # fmt: on
    return workflow
