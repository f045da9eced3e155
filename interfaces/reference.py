"""Referencing node: what zero susceptibility means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.system.files import write_json
from qsm_nipype.volume import load, same_grid, save


class _ReferenceInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="susceptibility (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="voxels with a valid susceptibility")
    in_region = File(exists=True, desc="reference region: a mask, or a label image with `labels`")
    labels = traits.List(traits.Int(), desc="labels of in_region that make the region")
    kind = traits.Enum(
        "brain", "csf", "region", "none", parameter=True, desc="what is taken as zero"
    )
    erosion = traits.Int(parameter=True, desc="voxels taken off the region's surface")
    out_file = File("chi_ref.nii", usedefault=True, desc="referenced susceptibility (ppm)")
    out_record = File("reference.json", usedefault=True, desc="mean and SD of the reference")


class _ReferenceOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="referenced susceptibility (ppm)")
    out_record = File(exists=True, desc="kind, mean, SD, voxels, what was subtracted")


class Reference(QSMInterface):
    """Subtract the mean of a reference region and record its mean ± SD."""

    input_spec = _ReferenceInputSpec
    output_spec = _ReferenceOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.reference import reference

        chi, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        try:
            result = reference(
                chi.tensor(self.device),
                mask.mask(self.device),
                region=self._region(chi),
                **self.parameters(),
            )
        except ValueError as error:
            raise DataError(
                f"{self.inputs.in_file}: {error}; give another region or reference to the brain"
            ) from error
        record = {
            **self.parameters(),
            "kind": result.kind,
            "mean": result.mean,
            "sd": result.sd,
            "voxels": result.voxels,
            "subtracted": result.subtracted,
            "units": "ppm",
        }
        return {
            "out_file": save(cwd / self.inputs.out_file, result.chi, chi),
            "out_record": write_json(cwd / self.inputs.out_record, record),
        }

    def _region(self, chi: Any) -> Any:
        if not isdefined(self.inputs.in_region):
            return None
        import torch

        volume = load(self.inputs.in_region)
        if not same_grid(volume, chi):
            raise DataError(
                f"{volume.path}: its grid is not that of {chi.path}; resample it to that grid"
            )
        if not isdefined(self.inputs.labels):
            return volume.mask(self.device)
        labels = torch.tensor(self.inputs.labels, device=self.device)
        return torch.isin(volume.tensor(self.device).round().long(), labels)
