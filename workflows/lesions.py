"""MS lesions: which have a paramagnetic rim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.interfaces.lesions import FindLesions
from qsm_nipype.workflows.nodes import Resources, make, make_method


def init_lesions_wf(
    flair: str,
    lesions: str,
    resources: Resources,
    *,
    weights: str | None = None,
    method: str,
    min_volume: float,
    said: Sequence[str] = (),
    name: str = "lesions_wf",
) -> pe.Workflow:
    """Bring FLAIR and lesion mask to the map, number the lesions, rate each one's rim.

    ::

        FLAIR, mask, magnitude ─► registration, instances ─► features, network ─► table

    `flair` and `lesions` are files, `weights` that of the network; `method` numbers confluent
    lesions, and those below `min_volume` (mm³) are not classified; `said` are notes for the
    record on how the files were chosen.

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
    table, columns
        one row for each lesion (TSV); what its columns mean (JSON)
    record_lesions
        of how they were found, and of their classification (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["magnitude", "chi", "mask"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["instances", "flair", "table", "columns", "record_lesions"]),
        name="outputnode",
    )
    find = FindLesions(in_flair=flair, in_lesions=lesions, said=list(said), method=method)
    find_lesions = make(find, "find_lesions", resources, bytes_per_voxel=60)
    fixed: dict[str, Any] = {
        "min_volume": min_volume,
        **({"weights": weights} if weights is not None else {}),
    }
    rimnet = make_method("lesions", "rimnet", resources, **fixed)
    reports = pe.Node(niu.Merge(2), name="all_records", run_without_submitting=True)
    # fmt: off
    workflow.connect([
        (inputnode, find_lesions, [("magnitude", "in_magnitude")]),
        (inputnode, rimnet, [("chi", "in_chi"), ("mask", "in_mask")]),
        (find_lesions, rimnet, [("out_instances", "in_instances"), ("out_flair", "in_flair")]),
        (find_lesions, outputnode, [("out_instances", "instances"), ("out_flair", "flair")]),
        (rimnet, outputnode, [("out_table", "table"), ("out_columns", "columns")]),
        (find_lesions, reports, [("out_record", "in1")]),
        (rimnet, reports, [("out_record", "in2")]),
        (reports, outputnode, [("out", "record_lesions")]),
    ])
    # fmt: on
    return workflow
