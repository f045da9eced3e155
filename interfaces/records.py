"""The record of an acquisition: what was done, how it went, and its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    DynamicTraitedSpec,
    File,
    InputMultiObject,
    isdefined,
    traits,
)

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec, files_of
from qsm_nipype.methods import STEPS
from qsm_nipype.ranges import judge_all, judged
from qsm_nipype.record import Finding, Number
from qsm_nipype.system.files import write_json
from qsm_nipype.verdict import distinct, judge, of_numbers, reported
from qsm_nipype.volume import Volume, load

#: The maps that a quality measure may take, beside masks.
_MAPS = ("noise", "residual", "chi", "r2star", "total_field", "local_field")
#: What a node cost, which says nothing about the acquisition.
_COST = ("seconds", "cpu_seconds", "peak_gb")


class _RecordInputSpec(DynamicTraitedSpec, QSMInputSpec):
    acquisition = traits.Dict(mandatory=True, desc="static part: entities, sources, scanner")
    steps = traits.List(traits.Dict, mandatory=True, desc="step, method, label, parameters")
    in_mask = File(exists=True, desc="brain mask")
    in_mask_chi = File(exists=True, desc="voxels with susceptibility")
    in_noise = File(exists=True, desc="noise of the field (ppm)")
    in_residual = File(exists=True, desc="residual of the field fit (rad)")
    in_chi = traits.List(File(exists=True), desc="susceptibility (ppm), by inversion")
    in_r2star = File(exists=True, desc="R2* (1/s)")
    in_total_field = File(exists=True, desc="total field (ppm)")
    in_local_field = File(exists=True, desc="local field (ppm)")


class _RecordOutputSpec(QSMOutputSpec):
    out_acquisition = File(exists=True, desc="JSON; its parts are those of qsm_nipype.record")


class JoinRecords(QSMInterface):
    """Join what the steps' nodes reported; one port `from_STEP` for each of `methods.STEPS`.

    Such a port takes the `out_record` of the step's node, or of several: as many as the step has
    entries in `steps`, else all of them belong to its one entry, which takes its parameters from
    the first.
    """

    input_spec = _RecordInputSpec
    output_spec = _RecordOutputSpec

    def __init__(self, **inputs: Any) -> None:
        super().__init__(**inputs)
        for step in STEPS:
            self.inputs.add_trait(f"from_{step}", InputMultiObject(File(exists=True)))
        self.inputs.trait_set(trait_change_notify=False)

    def _run(self, cwd: Path) -> dict[str, Any]:
        reports = {step: self._reports(step) for step in STEPS}
        record: dict[str, Any] = dict(self.inputs.acquisition)
        for own in reports["read"]:
            reading = _without_cost(own)
            record["phase_reading"] = {k: v for k, v in reading.items() if k != "numbers"}
        record["steps"] = _with_reports(self.inputs.steps, reports)
        record["runtimes"] = {
            step: round(sum(own.get("seconds", 0.0) for own in nodes), 2)
            for step, nodes in reports.items()
            if nodes
        }
        record["references"] = [reference_fields(own) for own in reports["reference"]]
        every = [own for nodes in reports.values() for own in nodes]
        volumes = self._volumes()
        if "mask" in volumes:
            record["acquisition"] = {**record["acquisition"], **geometry(volumes["mask"])}
        record["numbers"] = self._numbers(volumes, next(iter(record["references"]), {}))
        record["numbers"] |= seen_numbers(volumes, record.get("acquisition", {}))
        for own in every:
            record["numbers"] |= own.get("numbers", {})
        record["numbers"] = judge_all(record["numbers"])
        record["segmentation"] = {
            own.get("method", "dentate"): segmentation_fields(own)
            for own in reports["segmentation"]
        }
        record |= self._verdict(record, reports)
        return {"out_acquisition": write_json(cwd / "acquisition.json", record)}

    def _reports(self, step: str) -> list[dict[str, Any]]:
        paths = files_of(getattr(self.inputs, f"from_{step}"))
        return [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]

    def _verdict(
        self, record: Mapping[str, Any], reports: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, Any]:
        """What was found before the run, by the nodes, and by the numbers; and its sum."""
        found = [Finding(**known) for known in record.get("findings", [])]
        found += [
            f for step, nodes in reports.items() for own in nodes for f in reported(own, step)
        ]
        found += of_numbers({name: Number(**own) for name, own in record["numbers"].items()})
        findings = distinct(found)
        return {"findings": [asdict(f) for f in findings], "verdict": asdict(judge(findings))}

    def _volumes(self) -> dict[str, Volume]:
        volumes = {}
        for name in ("mask", "mask_chi", *_MAPS):
            path = getattr(self.inputs, f"in_{name}")
            if isdefined(path):
                volumes[name] = load(path[0] if isinstance(path, list) else path)
        return volumes

    def _numbers(self, volumes: dict[str, Volume], reference: dict[str, Any]) -> dict[str, Any]:
        from qsm_nipype.core.quality import reference_number, volume_numbers

        size = next(iter(volumes.values())).voxel_size if volumes else (1.0, 1.0, 1.0)
        found = volume_numbers({name: v.data for name, v in volumes.items()}, size)
        if reference.get("ReferenceMean") is not None:
            region, mean = reference["ReferenceRegion"], reference["ReferenceMean"]
            sd = reference["ReferenceStandardDeviation"]
            found["reference"] = reference_number(region, mean, sd)
        return found


def seen_numbers(volumes: Mapping[str, Volume], scan: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader would see in the maps, as numbers with their usual ranges.

    `scan` is `record.Scan` as JSON: echo times and field strength tell how far a turn of phase is.
    """
    if "mask" not in volumes:
        return {}
    import torch

    from qsm_nipype.core.quality import look, measured, turn_of

    tensors = {name: torch.as_tensor(v.data) for name, v in volumes.items()}
    maps = {name: x for name, x in tensors.items() if name in _MAPS}
    masks = {name: x > 0.5 for name, x in tensors.items() if name.startswith("mask")}
    times, b0, like = scan.get("echo_times"), scan.get("field_strength"), volumes["mask"]
    turn = turn_of(times, b0) if times and b0 else None
    seen = look(maps, masks, like.voxel_size, like.b0_dir, turn=turn, b0=b0 or 3.0)
    if seen is None:
        return {}
    return {name: judged(name, value) for name, value in measured(seen).items()}


def segmentation_fields(own: dict[str, Any]) -> dict[str, Any]:
    """Sidecar fields of a segmentation: whether it was found, and the box that was searched."""
    box = own.get("box", {})
    said = [finding.text for finding in reported(own)]
    fields = {"Status": own.get("status"), "Notes": said or None}
    fields |= {"BoxFirstVoxel": box.get("first"), "BoxSize": box.get("size")}
    return {name: value for name, value in fields.items() if value is not None}


def geometry(volume: Volume) -> dict[str, Any]:
    """How the voxels lie in the scanner: storage order, tilt (degrees), direction of B0."""
    import nibabel as nib
    import numpy as np

    tilt = np.degrees(np.max(nib.affines.obliquity(volume.affine)))
    return {
        "orientation": "".join(nib.aff2axcodes(volume.affine)),
        "obliquity": round(float(tilt), 2),
        "b0_dir": [round(v, 4) for v in volume.b0_dir],
    }


def _without_cost(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in _COST}


def _with_reports(
    steps: Sequence[Mapping[str, Any]], reports: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """`steps` with the parameters that were chosen on the way and what each step reported."""
    found = []
    for place, entry in enumerate(steps):
        nodes = list(reports[entry["step"]])
        same = [i for i, other in enumerate(steps) if other["step"] == entry["step"]]
        if len(same) > 1:
            nodes = nodes[same.index(place) :][:1]
        step = dict(entry)
        chosen = nodes[0].get("parameters", {}) if nodes else {}
        step["parameters"] = {**chosen, **step.get("parameters", {})}
        if nodes:
            step["record"] = _without_cost(nodes[0])
        found.append(step)
    return found


def reference_fields(own: dict[str, Any]) -> dict[str, Any]:
    """Sidecar fields of the reference region."""
    return {
        "ReferenceRegion": own.get("kind", "brain"),
        "ReferenceMean": own.get("mean"),
        "ReferenceStandardDeviation": own.get("sd"),
        "ReferenceVoxels": own.get("voxels"),
    }
