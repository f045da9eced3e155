"""Veins and candidates for bleeds on the susceptibility map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype.workflows.nodes import Resources, make_method


def init_vessels_wf(
    resources: Resources,
    *,
    vessels: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "vessels_wf",
) -> pe.Workflow:
    """Find veins, and spots that may be bleeds or calcifications.

    ::

        χ, mask ─► veins, bleeds ─► masks, table

    Inputs
    ------
    chi, mask
        susceptibility (ppm), one file for each inversion, of which the first serves; where known

    Outputs
    -------
    veins
        mask
    bleeds, bleeds_table, bleeds_columns
        spots 1, 2 …; one row for each (TSV); what its columns mean (JSON)
    record_vessels
        what each method found (JSON)
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=["chi", "mask"]), name="inputnode")
    fields = ["veins", "bleeds", "bleeds_table", "bleeds_columns", "record_vessels"]
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    reports = pe.Node(niu.Merge(len(vessels)), name="all_records", run_without_submitting=True)
    links: list[Any] = [(reports, outputnode, [("out", "record_vessels")])]
    tables = [("out_table", "bleeds_table"), ("out_columns", "bleeds_columns")]
    for number, method in enumerate(vessels, start=1):
        find = make_method("vessels", method, resources, parameters=parameters)
        written = [("out_file", method), *(tables if method == "bleeds" else [])]
        links += [
            (inputnode, find, [("chi", "in_chi"), ("mask", "in_mask")]),
            (find, outputnode, written),
            (find, reports, [("out_record", f"in{number}")]),
        ]
    workflow.connect(links)
    return workflow
