"""Referencing node: what zero susceptibility means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.dataset.own_arrays import read_mask_on
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import load, load_like, save


class _ReferenceInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="susceptibility (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="voxels with a valid susceptibility")
    in_region = File(exists=True, desc="reference region: a mask, or a label image with `labels`")
    labels = traits.List(traits.Int(), desc="labels of in_region that make the region")
    kind = traits.Enum(
        "brain", "csf", "region", "none", usedefault=True, desc="what is taken as zero"
    )
    erosion = traits.Int(parameter=True, desc="voxels taken off the region's surface")
    out_file = File("chi_ref.nii", usedefault=True, desc="referenced susceptibility (ppm)")


class _ReferenceOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="referenced susceptibility (ppm)")


class Reference(QSMInterface):
    """Subtract the mean of a reference region and record its mean ± SD."""

    input_spec = _ReferenceInputSpec
    output_spec = _ReferenceOutputSpec
    function = "qsm_nipype.core.reference:reference"

    def _run(self, cwd: Path) -> dict[str, Any]:
        chi, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        try:
            result = resolve(self.function)(
                chi.tensor(self.device),
                mask.mask(self.device),
                region=self._region(chi),
                kind=self.inputs.kind,
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
            "record": record,
        }

    def _region(self, chi: Any) -> Any:
        if not isdefined(self.inputs.in_region):
            return None
        import torch

        path = self.inputs.in_region
        if not isdefined(self.inputs.labels):
            region = read_mask_on(path, chi.affine, chi.data.shape[:3], Path(chi.path).name)
            return torch.as_tensor(region.data, device=self.device)
        volume = load_like(chi, path)
        labels = torch.tensor(self.inputs.labels, device=self.device)
        return torch.isin(volume.tensor(self.device).round().long(), labels)
