"""From the local field to referenced susceptibility, by one method or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype import methods
from qsm_nipype.interfaces.inversion import Agreement
from qsm_nipype.workflows.nodes import Resources, has_port, make, make_method
from qsm_nipype.workflows.two_stage import init_second_stage_wf

#: Data that an inversion may use, by the port that takes them.
_OPTIONAL = {"in_noise": "field_noise", "in_magnitude": "magnitude"}

_SECOND = tuple(
    (f, f"inputnode.{f}") for f in ("total_field", "trimmed", "field_noise", "magnitude")
)


def init_inversion_wf(  # noqa: PLR0913  plain values, each named, so that it works in a notebook
    b0: float | None,
    echo_time: float | None,
    resources: Resources,
    *,
    inversions: Sequence[str],
    reference: str,
    region: str | None = None,
    weights: str | None = None,
    two_stage: float = 0.0,
    background: str = "",
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "inversion_wf",
) -> pe.Workflow:
    """Invert the field by each method, set the reference, and compare the maps.

    ::

        local field, mask, noise, magnitude ─► inversion ─► reference ─► χ
                                               inversion ─► reference ─► χ ─► agreement

    The trimmed mask, which background removal was given, is where sources of the local field may
    lie. A method that works on the total field gets that and the trimmed mask instead. `region`
    is the file of the reference region, where `reference` needs one; MEDI asks χ to be uniform in
    that of "csf" (MEDI+0). `weights` is the file of a network.
    With `two_stage`, χ is made again by the method `background` and the inversion without sources
    above that many ppm (`init_second_stage_wf`), before the reference is set.

    Inputs
    ------
    local_field, mask
        (ppm), and where it is known
    total_field, trimmed
        (ppm), and where it is reliable
    field_noise
        standard deviation of the field (ppm)
    magnitude
        echoes last

    Outputs
    -------
    chi
        referenced susceptibility (ppm), one file for each method
    agreement
        standard deviation over the methods (ppm), where there are several
    record_inversion, record_reference, record_two_stage
        how each map was reached; the reference region's mean and SD, for each method; of the
        nodes of the second stage, where there is one (JSON)
    """
    workflow = pe.Workflow(name=name)
    fields = ["local_field", "mask", "total_field", "trimmed", "field_noise", "magnitude"]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    joined = ["chi", "record_inversion", "record_reference", "record_two_stage"]
    outputnode = pe.Node(niu.IdentityInterface(fields=[*joined, "agreement"]), name="outputnode")
    merges = {
        f: pe.Node(niu.Merge(len(inversions)), name=f"all_{f}", run_without_submitting=True)
        for f in (joined if two_stage else joined[:-1])
    }
    links: list[Any] = [(merge, outputnode, [("out", f)]) for f, merge in merges.items()]
    for number, method in enumerate(inversions, start=1):
        whole = methods.get("inversion", method).from_total_field
        field, mask = ("total_field", "trimmed") if whole else ("local_field", "mask")
        known = {"b0": b0, "echo_time": echo_time, "weights": weights}
        fixed: dict[str, Any] = {port: value for port, value in known.items() if value}
        if reference == "csf" and region is not None:
            fixed["in_csf"] = region
        invert = make_method("inversion", method, resources, parameters=parameters, **fixed)
        refer = make_method(
            "reference",
            reference,
            resources,
            parameters=parameters,
            node=f"reference_{invert.name}",
            kind=reference,
            **({"in_region": region} if region is not None else {}),
        )
        data = [(f, port) for port, f in _OPTIONAL.items() if has_port(invert, port)]
        made, out = invert, "out_file"
        if two_stage:
            made, out = (
                init_second_stage_wf(
                    method,
                    fixed,
                    resources,
                    background=background,
                    threshold=two_stage,
                    parameters=parameters,
                    name=f"second_{invert.name}",
                ),
                "outputnode.chi",
            )
            links += [
                (inputnode, made, [(mask, "inputnode.mask"), *_SECOND]),
                (invert, made, [("out_file", "inputnode.chi")]),
                (made, merges["record_two_stage"], [("outputnode.records", f"in{number}")]),
            ]
        links += [
            (inputnode, invert, [(field, "in_file"), (mask, "in_mask"), *data]),
            (inputnode, invert, [("trimmed", "in_region")]),
            (inputnode, refer, [(mask, "in_mask")]),
            (made, refer, [(out, "in_file")]),
            (invert, merges["record_inversion"], [("out_record", f"in{number}")]),
            (refer, merges["chi"], [("out_file", f"in{number}")]),
            (refer, merges["record_reference"], [("out_record", f"in{number}")]),
        ]
    if len(inversions) > 1:
        compare = make(Agreement(), "agreement", resources)
        links += [
            (merges["chi"], compare, [("out", "in_files")]),
            (inputnode, compare, [("mask", "in_mask")]),
            (compare, outputnode, [("out_file", "agreement")]),
        ]
    workflow.connect(links)
    return workflow
