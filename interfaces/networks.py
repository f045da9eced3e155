"""Networks as nodes: QSMGAN for the dipole inversion, QSMmask-net for the brain mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, Str, TraitedSpec, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.interfaces.volume import Volume, load, same_grid, save


class _NetworkInputSpec(QSMInputSpec):
    weights = Str(desc="weight file or checkpoint folder; undefined: the shipped weights")


def _weights(network: str, inputs: Any) -> Any:
    from qsm_nipype.models.registry import read_weights

    return read_weights(network, inputs.weights if isdefined(inputs.weights) else None)


class _QSMGANInputSpec(_NetworkInputSpec):
    in_file = File(exists=True, mandatory=True, desc="local field, ppm")
    in_mask = File(exists=True, mandatory=True, desc="brain mask")
    in_noise = File(exists=True, desc="standard deviation of the field, ppm")
    patch = traits.Int(parameter=True, desc="edge of the network's input, voxels")
    consistency = traits.Float(parameter=True, desc="weight of the network against the field")


class _QSMGANOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="susceptibility, ppm")


class QSMGAN(QSMInterface):
    """Local field → susceptibility by the QSMGAN (see `qsm_nipype.models.qsmgan`)."""

    input_spec = _QSMGANInputSpec
    output_spec = _QSMGANOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.qsmgan import qsmgan, trained

        field, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        _refuse_other_grid(mask, field)
        noise = None
        if isdefined(self.inputs.in_noise):
            noise = load(self.inputs.in_noise).tensor(self.device)
        solution = qsmgan(
            field.tensor(self.device),
            mask.mask(self.device),
            field.voxel_size,
            field.b0_dir,
            generator=trained(_weights("qsmgan", self.inputs)),
            noise=noise,
            **self.parameters(),
        )
        return {"out_file": save(cwd / "chi.nii.gz", solution.chi, field)}


class _QSMMaskNetInputSpec(_NetworkInputSpec):
    in_magnitude = File(exists=True, mandatory=True, desc="whole-head magnitude")
    threshold = traits.Float(parameter=True, desc="probability above which a voxel is brain")


class _QSMMaskNetOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc="brain mask")


class QSMMaskNet(QSMInterface):
    """Magnitude → brain mask by QSMmask-net (see `qsm_nipype.models.mask`).

    The network sees the image turned to RAS+, as in training; the mask returns to the grid and
    affine of the input.
    """

    input_spec = _QSMMaskNetInputSpec
    output_spec = _QSMMaskNetOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        import torch

        from qsm_nipype.models.mask import MaskNet, segment
        from qsm_nipype.models.weights import fill

        magnitude = load(self.inputs.in_magnitude)
        turned, back = _to_ras(magnitude)
        network = fill(MaskNet(), _weights("mask", self.inputs)).to(self.device)
        mask = segment(torch.as_tensor(turned, device=self.device), network, **self.parameters())
        return {"out_mask": save(cwd / "mask.nii.gz", back(mask.cpu().numpy()), magnitude)}


def _to_ras(volume: Volume) -> tuple[Any, Any]:
    """The data with axes to the right, front and top, and the function that turns them back."""
    import numpy as np
    from nibabel import orientations

    here = orientations.io_orientation(volume.affine)
    ras = orientations.axcodes2ornt("RAS")
    there = orientations.ornt_transform(here, ras)
    turned = orientations.apply_orientation(volume.data, there)
    home = orientations.ornt_transform(ras, here)
    return np.ascontiguousarray(
        turned, dtype=np.float32
    ), lambda a: orientations.apply_orientation(a, home)


def _refuse_other_grid(mask: Volume, field: Volume) -> None:
    if not same_grid(mask, field):
        raise DataError(
            f"{mask.path}: the mask lies on another grid than {field.path}; resample it to that"
        )
