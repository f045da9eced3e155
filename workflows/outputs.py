"""The record and the derivatives of an acquisition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype import plan
from qsm_nipype.interfaces.bids import DerivativesSink
from qsm_nipype.interfaces.records import AcquisitionRecord
from qsm_nipype.workflows.nodes import Resources, make

#: Kinds (data/derivatives.yml) that every acquisition has.
ALWAYS = ("chi", "mask", "mask_chi", "total_field", "local_field", "field_noise")
#: Step → the map beside which its node left its record.
_BESIDE = {
    "read": "phase_record",
    "offset": "phase",
    "unwrapping": "unwrapped",
    "fit": "total_field",
    "mask": "mask",
    "trim": "trimmed",
    "background": "local_field",
    "inversion": "inverted",
    "reference": "reference",
    "lesions": "lesions",
}


def init_outputs_wf(
    static: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    output_dir: Path,
    resources: Resources,
    *,
    kinds: Sequence[str],
    inversions: Sequence[str] = ("tv",),
    atlases: Sequence[str] = (),
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Write down what was done, and the maps of `kinds` under their BIDS names.

    ::

        every step ─► record ─► ds_maps
        χ, fields, masks ────────┘

    Inputs
    ------
    phase_record, phase, unwrapped, mask, trimmed, mask_chi
        how the phase was read; phase (rad); masks of the brain, of reliable voxels, of χ
    total_field, field_noise, local_field
        (ppm)
    residual
        of the field fit (rad)
    inverted, reference, chi
        before referencing (ppm); the reference (JSON); susceptibility (ppm); lists over inversions
    agreement
        standard deviation over the inversions (ppm)
    r2star, t2star
        (1/s), (s); only where there are several echoes
    dentate, cerebellum, dentate_box, aligned
        labels; masks; the user's labels
    regions
        statistics of the maps in regions (TSV)
    lesions
        their table, where there is a lesion mask

    Outputs
    -------
    record
        of the acquisition, without figures (JSON)
    out_files
        images written
    """
    workflow = pe.Workflow(name=name)
    fields = [*_BESIDE.values(), "mask_chi", "residual", "field_noise", "chi", "agreement"]
    fields += ["r2star", "t2star", "dentate", "cerebellum", "dentate_box", "aligned", "regions"]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["record", "out_files"]), name="outputnode")
    told = plan.with_own_mask(steps, static.get("own_mask", {}))
    collect = AcquisitionRecord(acquisition=dict(static), steps=told)
    record = make(collect, "record", resources, bytes_per_voxel=24, threads=1)
    sink = DerivativesSink(
        kinds=kinds,
        base_directory=str(output_dir),
        entities=dict(static["entities"]),
        datatype=static["datatype"],
    )
    descriptions = {"aligned": list(atlases)} if atlases else {}
    if len(inversions) > 1:
        descriptions["chi"] = [None, *inversions[1:]]
    if descriptions:
        sink.inputs.descriptions = descriptions
    ds_maps = make(sink, "ds_maps", resources, bytes_per_voxel=8, threads=1)
    decays = {"r2star"} & set(kinds)
    nuclei = {"dentate"} & set(kinds)
    numbers = ["mask", "mask_chi", "chi", *decays]
    # fmt: off
    workflow.connect([
        (inputnode, record, [(source, f"from_{step}") for step, source in _BESIDE.items()]),
        (inputnode, record, [(source, f"in_{source}") for source in numbers]),
        (inputnode, record, [("field_noise", "in_noise"), ("residual", "in_residual")]),
        (inputnode, record, [(source, "from_relaxometry") for source in decays]),
        (inputnode, record, [(source, "from_segmentation") for source in nuclei]),
        (record, ds_maps, [("out_record", "in_record")]),
        (inputnode, ds_maps, [(kind, kind) for kind in kinds]),
        (record, outputnode, [("out_record", "record")]),
        (ds_maps, outputnode, [("out_files", "out_files")]),
    ])
    # fmt: on
    return workflow
