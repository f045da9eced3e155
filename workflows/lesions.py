"""MS lesions: which have a paramagnetic rim."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.interfaces.lesions import FindLesions, LesionSink, QSMRimNet
from qsm_nipype.workflows.nodes import Resources, make


def init_lesions_wf(
    flair: str,
    lesions: str,
    resources: Resources,
    *,
    weights: str | None = None,
    method: str = "split",
    min_volume: float = 10.0,
    name: str = "lesions_wf",
) -> pe.Workflow:
    """Bring FLAIR and lesion mask to the map, number the lesions, rate each one's rim.

    ::

        FLAIR, mask, magnitude ─► registration, instances ─► features, network ─► table

    `flair` and `lesions` are files, `weights` that of the network; `method` numbers confluent
    lesions, and those below `min_volume` (mm³) are not classified.

    Inputs
    ------
    magnitude
        echoes last
    chi, mask
        susceptibility (ppm), one file for each inversion, of which the first serves; where known

    Outputs
    -------
    instances
        lesions 1, 2 … on the grid of the map
    flair
        on that grid
    table
        one row for each lesion (TSV)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["magnitude", "chi", "mask"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["instances", "flair", "table"]), name="outputnode"
    )
    find = FindLesions(in_flair=flair, in_lesions=lesions, method=method)
    rate = QSMRimNet(min_volume=min_volume)
    if weights is not None:
        rate.inputs.weights = weights
    find_lesions = make(find, "find_lesions", resources, bytes_per_voxel=60)
    rimnet = make(rate, "rimnet", resources, bytes_per_voxel=60)
    if resources.gpu:
        rate.inputs.use_gpu = True
        rimnet.n_procs = 1
    # fmt: off
    workflow.connect([
        (inputnode, find_lesions, [("magnitude", "in_magnitude")]),
        (inputnode, rimnet, [("chi", "in_chi"), ("mask", "in_mask")]),
        (find_lesions, rimnet, [("out_instances", "in_instances"), ("out_flair", "in_flair"),
                                ("out_record", "in_record")]),
        (find_lesions, outputnode, [("out_instances", "instances"), ("out_flair", "flair")]),
        (rimnet, outputnode, [("out_table", "table")]),
    ])
    # fmt: on
    return workflow


def add_sink(
    workflow: pe.Workflow, output_dir: Path, static: Mapping[str, Any], resources: Resources
) -> None:
    """Write the lesions of an acquisition's `workflow` and hand their picture to its report."""
    sink = LesionSink(
        base_directory=str(output_dir),
        entities=dict(static["entities"]),
        datatype=static["datatype"],
    )
    ds_lesions = make(sink, "ds_lesions", resources, bytes_per_voxel=32, threads=1)
    lesions, outputs, report = (
        workflow.get_node(f"{part}_wf") for part in ("lesions", "outputs", "report")
    )
    # fmt: off
    workflow.connect([
        (lesions, outputs, [("outputnode.table", "inputnode.lesions")]),
        (lesions, ds_lesions, [("outputnode.instances", "in_instances"),
                               ("outputnode.table", "in_table"),
                               ("outputnode.flair", "in_flair")]),
        (workflow.get_node("inversion_wf"), ds_lesions, [("outputnode.chi", "in_chi")]),
        (outputs, ds_lesions, [("outputnode.record", "in_record")]),
        (ds_lesions, report, [("out_figures", "inputnode.figures")]),
    ])
    # fmt: on
