"""Structures on the susceptibility map, and every map's statistics in every region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.dataset.own_files import Atlas
from qsm_nipype.interfaces.segmentation import AlignLabels
from qsm_nipype.interfaces.statistics import RegionStatistics
from qsm_nipype.methods import get
from qsm_nipype.workflows.nodes import Resources, make, make_method

#: What a segmentation's node hands out: port → field of `outputnode`.
_OUTPUTS = {
    "dentate": {
        "out_labels": "dentate",
        "out_box": "dentate_box",
        "out_cerebellum": "cerebellum",
    },
    "deepgrey": {"out_labels": "deepgrey"},
}
_MAPS = ("chi", "mask_chi", "mask", "r2star", "t2star", "paramagnetic", "diamagnetic")


def init_segmentation_wf(
    entities: Mapping[str, str],
    resources: Resources,
    *,
    segmentations: Sequence[str] = (),
    atlases: Sequence[Atlas] = (),
    inversions: Sequence[str],
    weights: Mapping[str, str] | None = None,
    name: str = "segmentation_wf",
) -> pe.Workflow:
    """Segment the nuclei, align the user's labels, and measure every map in all of them.

    ::

        χ ─► dentate, deep grey ───┐
        magnitude ─► user's labels ┴► statistics ◄─ χ, R2*, T2*

    `weights` are the user's networks: name → file.

    Inputs
    ------
    chi, mask_chi
        susceptibility, one file for each inversion (ppm); where it was computed
    mask
        of the brain
    magnitude
        echoes last
    r2star, t2star
        (1/s), (s); only where there are several echoes
    paramagnetic, diamagnetic
        χ⁺ and χ⁻ (ppm), where they were separated

    Outputs
    -------
    dentate, cerebellum, dentate_box
        labels (1 left, 2 right); masks of the cerebellum and of the box that was searched
    deepgrey
        labels of the deep grey nuclei (`core.deep_grey.NAMES`)
    aligned
        the user's labels on the acquisition's grid
    regions, regions_columns
        statistics, a row for each region and map (TSV); what its columns mean (JSON)
    record_segmentation, record_regions
        of each segmentation; of the labels' alignment and the statistics (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=[*_MAPS, "magnitude"]), name="inputnode")
    fields = ["dentate", "cerebellum", "dentate_box", "deepgrey", "aligned"]
    fields += ["regions", "regions_columns", "record_segmentation", "record_regions"]
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    measure = RegionStatistics(
        entities=dict(entities),
        inversions=list(inversions),
        segmentations=[*segmentations, *(atlas.name for atlas in atlases)],
        tables=["" for _ in segmentations] + [str(atlas.table or "") for atlas in atlases],
    )
    statistics = make(measure, "statistics", resources, bytes_per_voxel=45, threads=1)
    reports = pe.Node(niu.Merge(len(atlases) + 1), name="all_records")
    reports.run_without_submitting = True
    join = pe.Node(niu.Merge(max(1, len(segmentations) + len(atlases))), name="labels")
    join.run_without_submitting = True
    # fmt: off
    workflow.connect([
        (inputnode, statistics, [(field, f"in_{field}") for field in _MAPS]),
        (statistics, outputnode, [("out_table", "regions"),
                                  ("out_dictionary", "regions_columns")]),
        (statistics, reports, [("out_record", f"in{len(atlases) + 1}")]),
        (reports, outputnode, [("out", "record_regions")]),
    ])
    if segmentations or atlases:
        workflow.connect(join, "out", statistics, "in_labels")
    found = pe.Node(niu.Merge(max(1, len(segmentations))), name="found")
    found.run_without_submitting = True
    for place, method in enumerate(segmentations, start=1):
        nuclei = _segmenter(method, resources, weights or {})
        workflow.connect([
            (inputnode, nuclei, [("chi", "in_file"), ("mask_chi", "in_mask")]),
            (nuclei, join, [("out_labels", f"in{place}")]),
            (nuclei, outputnode, list(_OUTPUTS[method].items())),
            (nuclei, found, [("out_record", f"in{place}")]),
        ])
    if segmentations:
        workflow.connect(found, "out", outputnode, "record_segmentation")
    aligned = pe.Node(niu.Merge(max(1, len(atlases))), name="aligned")
    aligned.run_without_submitting = True
    for place, atlas in enumerate(atlases, start=1):
        align = _aligner(atlas, resources, f"align{place}")
        workflow.connect([
            (inputnode, align, [("magnitude", "in_reference")]),
            (align, join, [("out_labels", f"in{len(segmentations) + place}")]),
            (align, aligned, [("out_labels", f"in{place}")]),
            (align, reports, [("out_record", f"in{place}")]),
        ])
    if atlases:
        workflow.connect(aligned, "out", outputnode, "aligned")
    # fmt: on
    return workflow


def _segmenter(method: str, resources: Resources, weights: Mapping[str, str]) -> pe.Node:
    node: Any = make_method("segmentation", method, resources)
    own = weights.get(get("segmentation", method).network or "")
    if own is not None:
        node.inputs.weights = own
    return node


def _aligner(atlas: Atlas, resources: Resources, name: str) -> pe.Node:
    interface = AlignLabels(in_labels=str(atlas.file.absolute()))
    if atlas.anatomical is not None:
        interface.inputs.in_anatomical = str(atlas.anatomical.absolute())
    return make(interface, name, resources, bytes_per_voxel=80)
