"""A map that the user gives: read in ppm on its own grid, with its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, InputMultiPath, isdefined, traits

from qsm_nipype.dataset.given import read_map
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.volume import load_like, save

#: Sources of a local field may lie so far (mm) outside the mask that comes with it: whatever
#: removed the background took a layer of the mask, and left the layer's field in the rest.
REGION_MARGIN = 4.0


class _ReadGivenInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the map")
    in_mask = File(exists=True, desc="the user's mask; undefined: where the map has a value")
    in_magnitudes = InputMultiPath(File(exists=True), desc="on the map's grid, by echo")
    unit = traits.Str("ppm", usedefault=True, desc="the map's unit, for the record")
    factor = traits.Float(1.0, usedefault=True, desc="what makes ppm of the map")


class _ReadGivenOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="the map (ppm), zero outside the mask")
    out_mask = File(exists=True, desc="where it has a value")
    out_region = File(exists=True, desc="where sources of a local field may lie")
    out_magnitude = File(exists=True, desc="echoes last; the map itself where there are none")


class ReadGiven(QSMInterface):
    """The user's map in ppm, the mask that it is known in, and the magnitude beside it."""

    input_spec = _ReadGivenInputSpec
    output_spec = _ReadGivenOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        import torch

        from qsm_nipype.core.morphology import dilate

        own = self.inputs.in_mask if isdefined(self.inputs.in_mask) else None
        volume = read_map(self.inputs.in_file, self.inputs.factor, own)
        inside = volume.data != 0
        given = save(cwd / "given.nii", volume.data, volume)
        mask = save(cwd / "mask.nii", inside, volume)
        tensor = torch.as_tensor(np.ascontiguousarray(inside))
        region = dilate(tensor, volume.voxel_size, REGION_MARGIN)
        magnitude = given
        if isdefined(self.inputs.in_magnitudes) and self.inputs.in_magnitudes:
            echoes = [load_like(volume, path).data for path in self.inputs.in_magnitudes]
            stack = [echo[..., None] if echo.ndim == 3 else echo for echo in echoes]
            magnitude = save(cwd / "magnitude.nii", np.concatenate(stack, axis=-1), volume)
        return {
            "out_file": given,
            "out_mask": mask,
            "out_region": save(cwd / "region.nii", region, volume),
            "out_magnitude": magnitude,
            "record": {"parameters": {"unit": self.inputs.unit}},
        }
