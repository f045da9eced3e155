"""The record and the derivatives of an acquisition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.dataset.derivatives import table
from qsm_nipype.interfaces.bids import DerivativesSink
from qsm_nipype.interfaces.records import JoinRecords
from qsm_nipype.methods import STEPS
from qsm_nipype.workflows.nodes import Resources, make

#: What the record's numbers are measured on: field of `inputnode` → port; where it is written.
_MEASURED = {
    "mask": "in_mask",
    "mask_chi": "in_mask_chi",
    "field_noise": "in_noise",
    "residual": "in_residual",
    "chi": "in_chi",
    "r2star": "in_r2star",
    "total_field": "in_total_field",
    "local_field": "in_local_field",
}


def init_outputs_wf(
    static: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    output_dir: Path,
    resources: Resources,
    *,
    kinds: Sequence[str],
    descriptions: Mapping[str, Sequence[str | None]] | None = None,
    name: str = "outputs_wf",
) -> pe.Workflow:
    """Write down what was done, and the maps of `kinds` under their BIDS names.

    ::

        every step ─► record ─► ds_maps
        χ, fields, masks ────────┘

    `descriptions` are the `desc-` entities of kinds that come in lists.

    Inputs
    ------
    KIND, KIND_table, KIND_columns
        the kinds of data/derivatives.yml, the tables beside them, what their columns mean
    residual
        of the field fit (rad)
    record_STEP
        what the nodes of a step of `methods.STEPS` reported (JSON)

    Outputs
    -------
    record
        of the acquisition, without figures (JSON)
    out_files
        images and tables written
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=fields_of(kinds)), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["record", "out_files"]), name="outputnode")
    collect = JoinRecords(acquisition=dict(static), steps=list(steps))
    record = make(collect, "record", resources, bytes_per_voxel=60, threads=1)
    sink = DerivativesSink(
        kinds=kinds,
        base_directory=str(output_dir),
        entities=dict(static["entities"]),
        datatype=static["datatype"],
    )
    if descriptions:
        sink.inputs.descriptions = {kind: list(names) for kind, names in descriptions.items()}
    ds_maps = make(sink, "ds_maps", resources, bytes_per_voxel=8, threads=1)
    measured = {f: port for f, port in _MEASURED.items() if f in (*kinds, "residual")}
    # fmt: off
    workflow.connect([
        (inputnode, record, [(f"record_{step}", f"from_{step}") for step in STEPS]),
        (inputnode, record, list(measured.items())),
        (record, ds_maps, [("out_acquisition", "in_record")]),
        (inputnode, ds_maps, [(field, field) for field in written_fields(kinds)]),
        (record, outputnode, [("out_acquisition", "record")]),
        (ds_maps, outputnode, [("out_files", "out_files")]),
    ])
    # fmt: on
    return workflow


def written_fields(kinds: Sequence[str]) -> dict[str, str]:
    """What the sink takes for `kinds`: field of `inputnode` → WORKFLOW.FIELD of its source."""
    found = {}
    for kind in kinds:
        row = table()[kind]
        found[kind] = row["from"]
        found |= {f"{kind}_{part}": row[part] for part in ("table", "columns") if part in row}
    return found


def fields_of(kinds: Sequence[str]) -> list[str]:
    """The fields of `inputnode` for `kinds`."""
    return [*written_fields(kinds), "residual", *(f"record_{step}" for step in STEPS)]
