"""Whether the memory that may be used suffices for the largest step of each acquisition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qsm_nipype.dataset.acquisitions import Acquisition, Refusal
from qsm_nipype.settings import Settings

#: More than any step of data/methods.yml asks for: GB whatever the size, bytes for each voxel, and
#: for each voxel of each echo.
_FIXED_GB, _BYTES, _BYTES_OF_ECHO = 1.5, 800.0, 100.0


def within_memory(
    settings: Settings, acquisitions: Sequence[Acquisition], refusals: Sequence[Refusal]
) -> tuple[list[Acquisition], list[Refusal]]:
    """The acquisitions whose steps fit, and `refusals` with the others."""
    lacking = short_of_memory(settings, acquisitions)
    names = {item.label for item in lacking}
    return [a for a in acquisitions if a.label not in names], [*refusals, *lacking]


def short_of_memory(
    settings: Settings, acquisitions: Sequence[Acquisition], *, limit: float | None = None
) -> list[Refusal]:
    """Acquisitions with a step that asks for more memory than may be used, and what would do.

    `limit` (GB) is --mem by default, else what this machine, control group or job allows. Jobs of
    a scheduler, one for each node, ask for their own memory: nothing is compared there.
    """
    if settings.plugin not in ("MultiProc", "Linear") or settings.use_plugin is not None:
        return []
    from qsm_nipype.execution.plugin import OWN_GB
    from qsm_nipype.execution.resources import available_memory_gb

    limit = limit or settings.mem or available_memory_gb()
    known: dict[tuple[int, ...], tuple[float, str]] = {}
    found = []
    for item in sorted(acquisitions, key=lambda a: a.label):
        own = item.own
        size = (item.voxels, len(item.echo_times), item.coils, len(own.atlases),
                own.lesions is not None)  # fmt: skip
        if _at_most(item) + OWN_GB <= limit:
            continue
        if size not in known:
            known[size] = _largest(settings, item)
        largest, step = known[size]
        if largest + OWN_GB > limit:
            shape = "×".join(str(n) for n in item.shape)
            found.append(
                Refusal(
                    item.entities,
                    f"the step {step} needs about {largest:.1f} GB for {shape} voxels with "
                    f"{len(item.echo_times)} echoes, and {limit:g} GB may be used; give "
                    f"--mem {math.ceil(largest + OWN_GB)} on a machine that has them",
                )
            )
    return found


def _at_most(acquisition: Acquisition) -> float:
    """Memory (GB) that no step of an acquisition exceeds, known without making its graph."""
    volumes = len(acquisition.echo_times) * acquisition.coils
    return _FIXED_GB + acquisition.voxels * (_BYTES + _BYTES_OF_ECHO * volumes) / 1e9


def _largest(settings: Settings, acquisition: Acquisition) -> tuple[float, str]:
    """Memory (GB) that the most demanding node asks for, and its name."""
    from qsm_nipype.workflows.base import init_acquisition_wf

    workflow: Any = init_acquisition_wf(settings, acquisition)
    nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
    return max((float(node.mem_gb), str(node.name)) for node in nodes)
