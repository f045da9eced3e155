"""From wrapped phase to the total field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.workflows.nodes import Resources, make_method


def init_fieldmap_wf(
    echo_times: Sequence[float],
    b0: float,
    resources: Resources,
    *,
    unwrapping: str,
    fit: str,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "fieldmap_wf",
) -> pe.Workflow:
    """Unwrap the phase of every echo and fit the field over the echoes.

    ::

        phase, magnitude ─► unwrap ─► fit ─► total field, its noise, residual, reliability

    Inputs
    ------
    phase
        wrapped, without offset, echoes last (rad)
    magnitude
        echoes last

    Outputs
    -------
    total_field
        field shift (ppm)
    field_noise
        its standard deviation (ppm)
    residual
        of the fit (rad)
    reliability
        how far the field can be trusted, 0 to 1
    unwrapped
        phase of every echo (rad)
    quality
        of the phase, 0 to 1
    record_unwrapping, record_fit
        what was decided and found (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=["phase", "magnitude"]), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=[
                "total_field",
                "field_noise",
                "residual",
                "reliability",
                "unwrapped",
                "quality",
                "record_unwrapping",
                "record_fit",
            ]
        ),
        name="outputnode",
    )
    known: dict[str, Any] = {"echo_times": list(echo_times), "b0": b0}
    unwrap = make_method("unwrapping", unwrapping, resources, parameters=parameters, **known)
    field = make_method("fit", fit, resources, parameters=parameters, node=f"{fit}_fit", **known)
    # fmt: off
    workflow.connect([
        (inputnode, unwrap, [("phase", "in_phase"), ("magnitude", "in_magnitude")]),
        (inputnode, field, [("magnitude", "in_magnitude")]),
        (unwrap, field, [("out_unwrapped", "in_phase")]),
        (unwrap, outputnode, [("out_unwrapped", "unwrapped"), ("out_quality", "quality"),
                              ("out_record", "record_unwrapping")]),
        (field, outputnode, [("total_field", "total_field"), ("field_noise", "field_noise"),
                             ("residual", "residual"), ("reliability", "reliability"),
                             ("out_record", "record_fit")]),
    ])
    # fmt: on
    return workflow
