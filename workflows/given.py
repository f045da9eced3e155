"""A map that the user gives in the place of the steps that would have made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.interfaces.given import ReadGiven
from qsm_nipype.workflows.nodes import Resources, make, make_method

#: The parts of an acquisition's graph whose place a given map takes, by its kind.
STANDS_FOR = {
    "chi": ("phase", "masking", "background", "inversion"),
    "localfield": ("phase", "masking", "background"),
    "totalfield": ("phase", "masking", "fieldmap"),
}
#: What the map is for the parts that follow.
_FIELD = {"chi": "chi", "localfield": "local_field", "totalfield": "total_field"}


def init_given_wf(  # noqa: PLR0913  plain values, each named, so that it works in a notebook
    kind: str,
    file: str,
    resources: Resources,
    *,
    unit: tuple[str, float] = ("ppm", 1.0),
    mask_file: str | None = None,
    magnitudes: Sequence[str] = (),
    reference: str = "none",
    region: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "given_wf",
) -> pe.Workflow:
    """Read the map `file` of `kind` in ppm, with its mask and the magnitudes on its grid.

    ::

        map, mask, magnitudes ─► given (─► reference) ─► the parts that follow

    `unit` is the name of the map's unit and what makes ppm of it. A susceptibility keeps its
    reference where `reference` is "none"; else `region` is the mask of the new one.

    Inputs
    ------
    none: the files are fixed

    Outputs
    -------
    chi, local_field, total_field
        the map (ppm) under the name that the next parts know it by; χ as a list of one
    mask
        where it has a value
    trimmed
        where sources of its field may lie
    magnitude
        echoes last; the map itself where there are none
    record_given, record_reference
        how it was read; the reference region's mean and SD, where χ has a new one (JSON)
    """
    workflow = pe.Workflow(name=name)
    fields = [*_FIELD.values(), "mask", "trimmed", "magnitude", "record_given", "record_reference"]
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    reader = ReadGiven(in_file=file, unit=unit[0], factor=unit[1])
    if mask_file is not None:
        reader.inputs.in_mask = mask_file
    if magnitudes:
        reader.inputs.in_magnitudes = list(magnitudes)
    bytes_per_voxel = 32.0 + 8.0 * len(magnitudes)
    read = make(reader, "given", resources, bytes_per_voxel=bytes_per_voxel)
    sources = "out_region" if kind == "localfield" else "out_mask"
    # fmt: off
    workflow.connect([
        (read, outputnode, [("out_mask", "mask"), (sources, "trimmed"),
                            ("out_magnitude", "magnitude"), ("out_record", "record_given")]),
    ])
    # fmt: on
    if kind != "chi":
        workflow.connect(read, "out_file", outputnode, _FIELD[kind])
        return workflow
    join = pe.Node(niu.Merge(1), name="all_chi", run_without_submitting=True)
    workflow.connect(join, "out", outputnode, "chi")
    if reference == "none":
        workflow.connect(read, "out_file", join, "in1")
        return workflow
    fixed = {"kind": reference, **({"in_region": region} if region is not None else {})}
    refer = make_method("reference", reference, resources, parameters=parameters, **fixed)
    # fmt: off
    workflow.connect([
        (read, refer, [("out_file", "in_file"), ("out_mask", "in_mask")]),
        (refer, join, [("out_file", "in1")]),
        (refer, outputnode, [("out_record", "record_reference")]),
    ])
    # fmt: on
    return workflow
