"""Susceptibility-weighted images by one method or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.workflows.nodes import Resources, has_port, make_method

#: What a method may need, by the port that takes it.
_NEEDED = {"in_phase": "phase", "in_field": "total_field", "in_chi": "chi"}
#: What the methods make: field of `outputnode` → output of their nodes.
_MADE = {"swi": "out_file", "minip": "out_projection", "record_swi": "out_record"}


def init_swi_wf(
    echo_times: Sequence[float],
    resources: Resources,
    *,
    methods: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "swi_wf",
) -> pe.Workflow:
    """Weight the magnitude by phase, field or χ, and project it, by each of `methods`.

    ::

        magnitude, mask, phase, field, χ ─► method ─► image, projection

    Inputs
    ------
    magnitude, phase
        echoes last; wrapped, without offset (rad)
    mask
        of the brain
    total_field
        (ppm)
    chi
        susceptibility (ppm), one file for each inversion, of which the first is taken

    Outputs
    -------
    swi, minip
        susceptibility-weighted image and its minimum intensity projection, for each method
    record_swi
        what each method cost (JSON)
    """
    workflow = pe.Workflow(name=name)
    fields = ["magnitude", "mask", *_NEEDED.values()]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=list(_MADE)), name="outputnode")
    merges = {
        f: pe.Node(niu.Merge(len(methods)), name=f"all_{f}", run_without_submitting=True)
        for f in _MADE
    }
    links: list[Any] = [(merge, outputnode, [("out", f)]) for f, merge in merges.items()]
    for number, method in enumerate(methods, start=1):
        made = make_method(
            "swi", method, resources, parameters=parameters, echo_times=list(echo_times)
        )
        needed = [(f, port) for port, f in _NEEDED.items() if has_port(made, port)]
        links.append(
            (inputnode, made, [("magnitude", "in_magnitude"), ("mask", "in_mask"), *needed])
        )
        links += [(made, merges[f], [(out, f"in{number}")]) for f, out in _MADE.items()]
    workflow.connect(links)
    return workflow
