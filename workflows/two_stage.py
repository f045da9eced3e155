"""The second stage of a two-stage reconstruction, put behind an inversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype import methods
from qsm_nipype.interfaces.two_stage import JoinStages
from qsm_nipype.workflows.nodes import Resources, has_port, make, make_method


def init_second_stage_wf(
    inversion: str,
    inputs: Mapping[str, Any],
    resources: Resources,
    *,
    background: str,
    threshold: float,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "second_stage_wf",
) -> pe.Workflow:
    """Make χ again without strong sources, and fill them in from the first pass.

    ::

        first pass, trimmed ─► leave out ─► background ─► inversion ─► join ─► χ

    `inputs` are the fixed inputs of the inversion (b0, echo_time, weights); a source is strong
    above `threshold` ppm.

    Inputs
    ------
    chi, mask
        of the first pass (ppm), and where it is known
    total_field, trimmed
        (ppm), and where it is reliable
    field_noise
        standard deviation of the field (ppm)
    magnitude
        echoes last

    Outputs
    -------
    chi
        susceptibility (ppm)
    records
        of the nodes (JSON)
    """
    workflow = pe.Workflow(name=name)
    fields = ["chi", "mask", "total_field", "trimmed", "field_noise", "magnitude"]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["chi", "records"]), name="outputnode")
    leave_out = make_method(
        "two_stage", "robust", resources, parameters=parameters, node="leave_out",
        threshold=threshold,
    )  # fmt: skip
    invert = make_method("inversion", inversion, resources, parameters=parameters, **inputs)
    join = make(JoinStages(), "join", resources)
    optional = {"field_noise": "in_noise", "magnitude": "in_magnitude"}
    data = [(f, port) for f, port in optional.items() if has_port(invert, port)]
    links: list[Any] = [
        (inputnode, leave_out, [("chi", "in_file"), ("trimmed", "in_mask")]),
        (inputnode, join, [("chi", "in_filled"), ("mask", "in_mask")]),
        (inputnode, invert, data),
        (invert, join, [("out_file", "in_robust")]),
        (join, outputnode, [("out_file", "chi")]),
    ]
    if methods.get("inversion", inversion).from_total_field:
        last = leave_out
        links += [(inputnode, invert, [("total_field", "in_file")])]
    else:
        last = make_method(
            "background", background, resources, parameters=parameters, node="background"
        )
        data = [("total_field", "in_file"), ("field_noise", "in_noise")]
        links += [
            (inputnode, last, data),
            (leave_out, last, [("out_mask", "in_mask")]),
            (last, invert, [("out_file", "in_file")]),
        ]
    nodes = [leave_out, *([last] if last is not leave_out else []), invert, join]
    records = pe.Node(niu.Merge(len(nodes)), name="all_records", run_without_submitting=True)
    links += [
        *((n, records, [("out_record", f"in{i}")]) for i, n in enumerate(nodes, start=1)),
        (last, invert, [("out_mask", "in_mask")]),
        (leave_out, invert, [("out_mask", "in_region")]),
        (last, join, [("out_mask", "in_inside")]),
        (records, outputnode, [("out", "records")]),
    ]
    workflow.connect(links)
    return workflow
