"""From the files as the scanner wrote them to wrapped phase without offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from qsm_nipype import methods
from qsm_nipype.interfaces.phase import ReadPhase
from qsm_nipype.workflows.nodes import Resources, make, make_method


def init_phase_wf(
    files: Mapping[str, Sequence[str]],
    metadata: Sequence[Mapping[str, Any]],
    echo_times: Sequence[float],
    resources: Resources,
    *,
    offset: str,
    reading: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "phase_wf",
) -> pe.Workflow:
    """Read magnitude and phase, bring phase to radians, remove its offset.

    `reading` holds further inputs of `ReadPhase`: the number of coils, sign and unit of the phase.

    ::

        files ─► read ─► offset ─► phase, magnitude

    Inputs
    ------
    none: `files` (part → paths by echo, then by coil) and `metadata` are fixed.

    Outputs
    -------
    phase
        wrapped, without offset, echoes last (rad)
    raw_phase
        as read, wrapped (rad)
    magnitude
        echoes last
    record_read, record_offset
        how the phase was read, how its offset was removed (JSON)
    """
    workflow = pe.Workflow(name=name)
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=["phase", "raw_phase", "magnitude", "record_read", "record_offset"]
        ),
        name="outputnode",
    )
    reader = ReadPhase(
        **{f"{part}_files": list(paths) for part, paths in files.items() if paths},
        metadata=[dict(entry) for entry in metadata],
        **(reading or {}),
    )
    size = methods.get("read", "stored").memory * reader.inputs.coils
    read = make(reader, "read", resources, bytes_per_voxel=size, per_echo=True)
    remove = make_method(
        "offset", offset, resources, parameters=parameters, echo_times=list(echo_times)
    )
    # fmt: off
    workflow.connect([
        (read, remove, [("out_phase", "in_phase"), ("out_magnitude", "in_magnitude")]),
        (read, outputnode, [("out_magnitude", "magnitude"), ("out_phase", "raw_phase"),
                            ("out_record", "record_read")]),
        (remove, outputnode, [("out_phase", "phase"), ("out_record", "record_offset")]),
    ])
    # fmt: on
    return workflow
