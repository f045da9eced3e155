"""Paramagnetic and diamagnetic susceptibility from field, R2* and R2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.dataset.r2_files import R2Files
from qsm_nipype.workflows.nodes import Resources, make_method


def init_separation_wf(
    b0: float,
    r2: R2Files | None,
    resources: Resources,
    *,
    separation: str,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "separation_wf",
) -> pe.Workflow:
    """R2′ of R2* and R2, and χ⁺ and χ⁻ from it and the field.

    ::

        R2*, R2 ─► R2′ ─► χ⁺, χ⁻ ◄─ local field, χ

    `b0` in T; `r2` are the files that R2 comes from; None: it is assumed.

    Inputs
    ------
    local_field, field_noise
        (ppm)
    brain, mask
        where R2* is known; where the field is
    chi
        susceptibility (ppm), one file for each inversion, of which the first serves
    r2star
        (1/s)
    magnitude
        echoes last

    Outputs
    -------
    paramagnetic, diamagnetic
        χ⁺ and χ⁻ (ppm)
    r2prime
        (1/s)
    r2, t2
        (1/s) and (s) on the grid of the gradient echoes, where they were measured
    record_r2prime, record_separation
        how they were found (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(
            fields=["local_field", "field_noise", "brain", "mask", "chi", "r2star", "magnitude"]
        ),
        name="inputnode",
    )
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=["paramagnetic", "diamagnetic", "r2prime", "r2", "t2", "record_r2prime",
                    "record_separation"]
        ),
        name="outputnode",
    )  # fmt: skip
    fixed: dict[str, Any] = {}
    if r2 is not None:
        fixed["in_files"] = [os.path.abspath(file) for file in r2.files]
        if r2.echo_times:
            fixed |= {"echo_times": list(r2.echo_times), "refocusing": r2.refocusing}
    method = r2.method if r2 is not None else "assumed"
    rate = make_method(
        "r2prime", method, resources, parameters=parameters, node="r2prime", **fixed
    )
    separate = make_method("separation", separation, resources, parameters=parameters, b0=b0)
    # fmt: off
    workflow.connect([
        (inputnode, rate, [("r2star", "in_r2star"), ("brain", "in_mask"),
                           ("magnitude", "in_magnitude")]),
        (inputnode, separate, [("local_field", "in_file"), ("mask", "in_mask"),
                               ("field_noise", "in_noise"), ("chi", "in_chi"),
                               ("r2star", "in_r2star"), ("magnitude", "in_magnitude")]),
        (rate, separate, [("r2prime", "in_r2prime")]),
        (rate, outputnode, [("r2prime", "r2prime"), ("r2", "r2"), ("t2", "t2"),
                            ("out_record", "record_r2prime")]),
        (separate, outputnode, [("paramagnetic", "paramagnetic"),
                                ("diamagnetic", "diamagnetic"),
                                ("out_record", "record_separation")]),
    ])
    # fmt: on
    return workflow
