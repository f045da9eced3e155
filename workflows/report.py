"""The pictures of an acquisition for the subject's page."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.interfaces.reportlets import MAPS, AcquisitionPictures
from qsm_nipype.workflows.nodes import Resources, make


def init_report_wf(
    output_dir: Path, label: str, resources: Resources, *, name: str = "report_wf"
) -> pe.Workflow:
    """Draw what a reader checks, and complete the acquisition's record with it.

    ::

        maps, record ─► pictures ─► record

    Inputs
    ------
    record, written
        of the acquisition, without pictures (JSON); images already in the dataset
    raw_phase, unwrapped
        echoes last (rad)
    magnitude
        echoes last
    residual
        of the field fit (rad)
    total_field, local_field
        (ppm)
    chi
        susceptibility, one file for each inversion (ppm)
    agreement
        standard deviation over the inversions (ppm)
    r2star
        (1/s)
    r2prime, paramagnetic, diamagnetic
        (1/s), χ⁺ and χ⁻ (ppm)
    veins, bleeds
        mask; candidates for bleeds and calcifications 1, 2 …
    swi, minip
        susceptibility-weighted images and their projections, one file for each method
    mask, mask_chi
        of the brain; where susceptibility was computed
    dentate, dentate_box
        nuclei (1 left, 2 right); box that was searched for them
    deepgrey
        deep grey nuclei (`core.deep_grey.NAMES`)
    lesions, lesions_table, flair
        lesions 1, 2 …; one row for each (TSV); FLAIR on their grid

    Outputs
    -------
    record
        of the acquisition with its pictures (JSON)
    """
    workflow = pe.Workflow(name=name)
    fields = [*MAPS, "chi", "lesions_table", "swi", "minip"]
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["record", "written", *fields]), name="inputnode"
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=["record"]), name="outputnode")
    draw = AcquisitionPictures(out_dir=str(output_dir), label=label)
    pictures = make(draw, "pictures", resources, bytes_per_voxel=100, threads=1)
    # fmt: off
    workflow.connect([
        (inputnode, pictures, [("record", "in_record"), ("written", "written")]),
        (inputnode, pictures, [(field, f"in_{field}") for field in fields]),
        (pictures, outputnode, [("out_acquisition", "record")]),
    ])
    # fmt: on
    return workflow
