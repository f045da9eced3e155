"""The record of an acquisition: what was done, how it went, and the numbers that tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import DynamicTraitedSpec, File, TraitedSpec, isdefined, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.methods import STEPS
from qsm_nipype.system.files import write_json
from qsm_nipype.volume import Volume, load

#: Steps whose node leaves a record; "read" and "reference" are not in the registry.
RECORDED = ("read", *STEPS, "reference", "lesions")


class _RecordInputSpec(DynamicTraitedSpec, QSMInputSpec):
    acquisition = traits.Dict(mandatory=True, desc="static part: entities, sources, scanner")
    steps = traits.List(traits.Dict, mandatory=True, desc="step, method, label, parameters")
    in_mask = File(exists=True, desc="brain mask")
    in_mask_chi = File(exists=True, desc="voxels with susceptibility")
    in_noise = File(exists=True, desc="noise of the field (ppm)")
    in_residual = File(exists=True, desc="residual of the field fit (rad)")
    in_chi = traits.List(File(exists=True), desc="susceptibility (ppm), by inversion")
    in_r2star = File(exists=True, desc="R2* (1/s)")


class _RecordOutputSpec(TraitedSpec):
    out_record = File(desc="JSON; its parts are those of record.AcquisitionRecord")


class AcquisitionRecord(QSMInterface):
    """Join what the steps left beside their outputs; one port `from_STEP` for each step.

    Such a port takes any output of that step's node (a list where there are several nodes): the
    node's record and `timing.json` lie beside it.
    """

    input_spec = _RecordInputSpec
    output_spec = _RecordOutputSpec

    def __init__(self, **inputs: Any) -> None:
        super().__init__(**inputs)
        for step in RECORDED:
            self.inputs.add_trait(f"from_{step}", traits.Either(File, traits.List(File)))
        self.inputs.trait_set(trait_change_notify=False)

    def _run(self, cwd: Path) -> dict[str, Any]:
        record: dict[str, Any] = {**self.inputs.acquisition, "runtimes": {}}
        found = {step: self._beside(step) for step in RECORDED}
        record["phase_reading"] = found["read"][0][0] if found["read"] else {}
        steps, used = [], dict.fromkeys(RECORDED, 0)
        for entry in self.inputs.steps:
            step = dict(entry)
            index = used[step["step"]]
            used[step["step"]] += 1
            if index < len(found[step["step"]]):
                own, _ = found[step["step"]][index]
                step["parameters"] = {**own.get("parameters", {}), **step.get("parameters", {})}
                step["record"] = own
            steps.append(step)
        record["steps"] = steps
        for step, entries in found.items():
            seconds = [timing.get("wall_s", 0.0) for _, timing in entries]
            if seconds:
                record["runtimes"][step] = round(sum(seconds), 2)
        record["references"] = [reference_fields(own) for own, _ in found["reference"]]
        told = [w for nodes in found.values() for own, _ in nodes for w in own.get("warnings", [])]
        record["warnings"] = list(dict.fromkeys([*record.get("warnings", []), *told]))
        volumes = self._volumes()
        if "mask" in volumes:
            record["acquisition"] = {**record["acquisition"], **geometry(volumes["mask"])}
        record["numbers"] = self._numbers(volumes, next(iter(record["references"]), {}))
        for own, _ in found["segmentation"]:
            record["segmentation"] = segmentation_fields(own)
        for entries in found.values():
            for own, _ in entries:
                record["numbers"] |= own.get("numbers", {})
        return {"out_record": write_json(cwd / "acquisition.json", record)}

    def _beside(self, step: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        value = getattr(self.inputs, f"from_{step}")
        if value is None or not isdefined(value):  # an Either's default is None
            return []
        files = [value] if isinstance(value, str) else value
        return [(_own_record(Path(f)), _timing(Path(f))) for f in files]

    def _volumes(self) -> dict[str, Volume]:
        volumes = {}
        for name in ("mask", "mask_chi", "noise", "residual", "chi", "r2star"):
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


def segmentation_fields(own: dict[str, Any]) -> dict[str, Any]:
    """Sidecar fields of a segmentation: whether it was found, and the box that was searched."""
    box = own.get("box", {})
    fields = {"Status": own.get("status"), "Notes": own.get("warnings") or None}
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


def _timing(sibling: Path) -> dict[str, Any]:
    path = sibling.with_name("timing.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _own_record(sibling: Path) -> dict[str, Any]:
    """The record beside a node's output; Nipype's own JSON files begin with an underscore."""
    found = sorted(p for p in sibling.parent.glob("*.json") if p.name[0] not in "_.")
    found = [p for p in found if p.name != "timing.json"]
    return json.loads(found[0].read_text(encoding="utf-8")) if found else {}


def reference_fields(own: dict[str, Any]) -> dict[str, Any]:
    """Sidecar fields of the reference region."""
    return {
        "ReferenceRegion": own.get("kind", "brain"),
        "ReferenceMean": own.get("mean"),
        "ReferenceStandardDeviation": own.get("sd"),
        "ReferenceVoxels": own.get("voxels"),
    }
