"""Referencing of susceptibility."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.interfaces.volume import load, same_grid, save


class _ReferenceInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="susceptibility (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="voxels with a susceptibility")
    region = traits.Enum("brain", "region", "none", usedefault=True, desc="what is set to zero")
    in_region = File(exists=True, desc="mask of the region, for region='region'")


class _ReferenceOutputSpec(TraitedSpec):
    out_file = File(desc="susceptibility relative to the region (ppm)")
    out_record = File(desc="mean and SD of the region before referencing (JSON)")


class Reference(QSMInterface):
    """Set the mean susceptibility of a region to zero; its mean ± SD is always written."""

    input_spec = _ReferenceInputSpec
    output_spec = _ReferenceOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.reference import reference

        chi, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        region = None
        if self.inputs.region == "region":
            if not isdefined(self.inputs.in_region):
                raise DataError("the reference region has no mask; give it with -d reference=PATH")
            volume = load(self.inputs.in_region)
            if not same_grid(volume, mask):
                raise DataError(f"{volume.path}: not on the grid of the data; resample it to that")
            region = volume.mask()
        try:
            result = reference(chi.tensor(), mask.mask(), region=region)
        except ValueError as exc:
            raise DataError(f"{self.inputs.in_mask}: {exc}; choose another region") from exc
        kept = self.inputs.region == "none"
        record = {
            "region": self.inputs.region,
            "mean": result.mean,
            "sd": result.sd,
            "voxels": result.voxels,
        }
        path = cwd / "reference.json"
        path.write_text(json.dumps(record), encoding="utf-8")
        return {
            "out_file": save(cwd / "chi.nii", chi.data if kept else result.chi, chi),
            "out_record": str(path),
        }
