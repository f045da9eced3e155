"""Predicted and measured peak memory of every node, for every method, at two sizes of a head.

python benchmarks/memory.py OUT [--voxel-size 2 1.25] [--only tv whtv]

Each size is one graph with all methods of all steps on one simulated head of four echoes;
iterative methods do two iterations, since more take no more memory. Nodes run one after the
other, each in a process of its own, as under MultiProc. Measured is the process's peak of
resident memory at the end of its work, predicted what the node declares to the plugins. The last
column is what the larger size suggests: bytes for each voxel (with e: and echo) beyond the
interpreter's, with a tenth on top. Networks without weights are left out. Exit code 1 when a
prediction is more than 30 % off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe

from qsm_nipype import methods
from qsm_nipype.dataset.acquisitions import Acquisition, Selection, find_acquisitions
from qsm_nipype.errors import QSMError
from qsm_nipype.execution.multiproc import MultiProcPlugin
from qsm_nipype.run.engine import configure_nipype
from qsm_nipype.settings import Settings
from qsm_nipype.workflows.background import init_background_wf
from qsm_nipype.workflows.base import init_acquisition_wf
from qsm_nipype.workflows.fieldmap import init_fieldmap_wf
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.masking import init_masking_wf
from qsm_nipype.workflows.nodes import INTERPRETER_GB, Resources
from qsm_nipype.workflows.relaxometry import init_relaxometry_wf
from qsm_nipype.workflows.separation import init_separation_wf
from qsm_nipype.workflows.swi import init_swi_wf
from qsm_nipype.workflows.vessels import init_vessels_wf

LIMIT = 0.3
OF_EACH_ECHO = {"read", "pictures"} | {m.name for m in methods.METHODS if m.per_echo}


@dataclass(frozen=True)
class Peak:
    """Of one node at one size; GB."""

    voxels: int
    predicted: float
    measured: float


def main() -> int:
    """Run the graphs, print the table."""
    options = parser().parse_args()
    found: dict[str, list[Peak]] = {}
    for size in options.voxel_size:
        for name, peak in peaks(options.out / f"{size:g}mm", size, options.only):
            found.setdefault(name, []).append(peak)
    return show(found)


def parser() -> argparse.ArgumentParser:
    """Where, and which sizes."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--voxel-size", type=float, nargs="*", default=[2.0, 1.25], help="mm")
    made.add_argument("--only", nargs="*", help="these methods besides the default ones")
    return made


def peaks(out: Path, voxel_size: float, only: list[str] | None) -> Iterator[tuple[str, Peak]]:
    """Name and peak of each node at one size."""
    bids = out / "bids"
    if not bids.exists():
        command = [sys.executable, "-m", "qsm_nipype", "simulate", str(bids)]
        subprocess.run([*command, "--voxel-size", str(voxel_size), "--seed", "1"], check=True)
    (acquisition,), _ = find_acquisitions(bids, Selection())
    settings = Settings(
        bids, out / "out", work_dir=out / "work", parameters=brief(), save_unwrapped=True
    )
    configure_nipype(settings)
    graph = every_method(settings, acquisition, only)
    with contextlib.suppress(RuntimeError):  # a node that failed is missing from the table
        graph.run(plugin=MultiProcPlugin({"n_procs": 1, "memory_gb": 64, "gpu_ids": []}))
    for node in graph._get_all_nodes():
        inside = "/".join(node.fullname.split(".")[-2:])
        report = f"{type(node.interface).__name__}.json"
        place = next(Path(graph.base_dir).glob(f"**/{inside}/{report}"), None)
        if place is not None:
            measured = json.loads(place.read_text())["peak_gb"] * 1024**3 / 1e9
            name = node.name.removeprefix("reference_") if "_wf_" in node.fullname else node.name
            yield name, Peak(acquisition.voxels, node.mem_gb, measured)
        elif node.interface.inputs.traits().get("num_threads"):
            print(f"{node.fullname} has not run; see {out / 'out' / 'logs'}", file=sys.stderr)


def brief() -> dict[str, dict[str, Any]]:
    """Two iterations of whatever iterates."""
    return {
        method.key: {"max_iterations": 2}
        for method in methods.METHODS
        if "max_iterations" in method.parameters()
    }


def usable(step: str, settings: Settings, only: list[str] | None) -> list[str]:
    """Methods of a step beside the chosen ones; networks where there are weights."""
    chosen = {method.name for method in settings.chosen()}
    found = []
    for name in methods.names(step):
        method = methods.get(step, name)
        if name in chosen or method.extra or (only is not None and name not in only):
            continue
        if method.network is not None:
            from qsm_nipype.models.registry import read_weights

            try:
                read_weights(method.network, None)
            except QSMError:
                continue
        found.append(name)
    return found


def every_method(
    settings: Settings, acquisition: Acquisition, only: list[str] | None
) -> pe.Workflow:
    """The default chain, and beside it each other method on the chain's own data."""
    chain = init_acquisition_wf(settings, acquisition)
    graph = pe.Workflow("memory", base_dir=str(settings.work_dir.absolute()))
    graph.add_nodes([chain])
    size = Resources(acquisition.voxels, len(acquisition.echo_times))
    times, b0, same = acquisition.echo_times, acquisition.b0, {"parameters": settings.parameters}
    factories: dict[str, Callable[..., pe.Workflow]] = {
        "unwrapping": lambda m, **k: init_fieldmap_wf(
            times, b0, size, unwrapping=m, fit=Settings.fit, **k
        ),
        "fit": lambda m, **k: init_fieldmap_wf(
            times, b0, size, unwrapping=Settings.unwrapping, fit=m, **k
        ),
        "mask": lambda m, **k: init_masking_wf(size, mask=m, trim=Settings.trim, **k),
        "background": lambda m, **k: init_background_wf(size, background=m, **k),
        "inversion": lambda m, **k: init_inversion_wf(
            b0, times[1], size, inversions=(m,), reference=Settings.reference, **k
        ),
        "relaxometry": lambda m, **k: init_relaxometry_wf(times, size, relaxometry=m, **k),
        "swi": lambda m, **k: init_swi_wf(times, size, methods=(m,), **k),
        "separation": lambda m, **k: init_separation_wf(b0, None, size, separation=m, **k),
        "vessels": lambda m, **k: init_vessels_wf(size, vessels=(m,), **k),
    }
    made = [
        factory(method, name=f"{step}_wf_{method}", **same)
        for step, factory in factories.items()
        for method in usable(step, settings, only)
    ]
    for workflow in made:
        for port in workflow.get_node("inputnode").interface._fields:
            graph.connect(chain, SOURCES[port], workflow, f"inputnode.{port}")
    return graph


#: Where the chain has what the variants take.
SOURCES = {
    "phase": "phase_wf.outputnode.phase",
    "magnitude": "phase_wf.outputnode.magnitude",
    "quality": "fieldmap_wf.outputnode.quality",
    "reliability": "fieldmap_wf.outputnode.reliability",
    "total_field": "fieldmap_wf.outputnode.total_field",
    "field_noise": "fieldmap_wf.outputnode.field_noise",
    "mask": "masking_wf.outputnode.trimmed",
    "trimmed": "masking_wf.outputnode.trimmed",
    "local_field": "background_wf.outputnode.local_field",
    "chi": "inversion_wf.outputnode.chi",
    "brain": "masking_wf.outputnode.mask",
    "r2star": "relaxometry_wf.outputnode.r2star",
}


def show(found: dict[str, list[Peak]]) -> int:
    """Print a row for each node; returns 1 if one is badly predicted."""
    print(f"{'node':<18}{'million':>9}{'predicted':>11}{'measured':>10}{'ratio':>7}{'bytes':>9}")
    print(f"{'':<18}{'voxels':>9}{'GB':>11}{'GB':>10}{'':>7}{'/voxel':>9}")
    bad = 0
    for name, peaks_ in found.items():
        top = max(peaks_, key=lambda p: p.voxels)
        count = 4 if name.removesuffix("_fit") in OF_EACH_ECHO else 1
        need = 1.1 * max(0.0, top.measured - INTERPRETER_GB) * 1e9 / top.voxels / count
        for peak in peaks_:
            ratio = peak.predicted / peak.measured
            bad += abs(ratio - 1) > LIMIT
            mark = "  <<" if abs(ratio - 1) > LIMIT else ""
            suggestion = f"{need:>8.0f}{'e' if count > 1 else ' '}" if peak is top else ""
            print(
                f"{name:<18}{peak.voxels / 1e6:>9.2f}{peak.predicted:>11.2f}"
                f"{peak.measured:>10.2f}{ratio:>7.2f}{suggestion}{mark}"
            )
    print(f"{bad} of {sum(map(len, found.values()))} are more than {100 * LIMIT:.0f} % off")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
