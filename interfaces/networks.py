"""Networks as nodes: QSMGAN for the dipole inversion, QSMmask-net for the brain mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, Str, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.interfaces.inversion import DipoleInversion, _InversionInputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import Volume, canonical, load, save

_WEIGHTS = "weight file or checkpoint folder; undefined: the shipped weights"


def _weights(network: str, inputs: Any) -> Any:
    from qsm_nipype.models.registry import read_weights

    return read_weights(network, inputs.weights if isdefined(inputs.weights) else None)


class _QSMGANInputSpec(_InversionInputSpec):
    weights = Str(desc=_WEIGHTS)
    patch = traits.Int(parameter=True, desc="edge of the network's input, voxels")
    consistency = traits.Float(parameter=True, desc="weight of the network against the field")


class QSMGAN(DipoleInversion):
    """Local field → susceptibility by the QSMGAN (see `qsm_nipype.models.qsmgan`)."""

    input_spec = _QSMGANInputSpec
    function = "qsm_nipype.models.qsmgan:qsmgan"

    def _optional(self, field: Volume) -> dict[str, Any]:
        """The network beside the optional volumes."""
        from qsm_nipype.models.qsmgan import load_network

        return super()._optional(field) | {
            "generator": load_network(_weights("qsmgan", self.inputs))
        }


class _DeepbetInputSpec(QSMInputSpec):
    in_magnitude = File(exists=True, mandatory=True, desc="whole-head magnitude, echoes last")
    threshold = traits.Float(parameter=True, desc="probability above which a voxel is brain")


class _QSMMaskNetInputSpec(_DeepbetInputSpec):
    weights = Str(desc=_WEIGHTS)


class _BrainOutputSpec(QSMOutputSpec):
    out_mask = File(exists=True, desc="brain mask")


class Deepbet(QSMInterface):
    """Magnitude → brain mask by the public networks of deepbet, turned to RAS+ for them."""

    input_spec = _DeepbetInputSpec
    output_spec = _BrainOutputSpec
    function = "qsm_nipype.models.deepbet:deepbet_mask"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.masking import combined_magnitude

        magnitude = load(self.inputs.in_magnitude)
        turned, back = canonical(magnitude)
        image = combined_magnitude(turned.tensor(self.device))
        mask = resolve(self.function)(image, turned.voxel_size, **self.parameters())
        return {"out_mask": save(cwd / "mask.nii", back(mask.cpu().numpy()), magnitude)}


class QSMMaskNet(QSMInterface):
    """Magnitude → brain mask by QSMmask-net (see `qsm_nipype.models.mask`).

    The network sees the image turned to RAS+, as in training; the mask returns to the grid and
    affine of the input.
    """

    input_spec = _QSMMaskNetInputSpec
    output_spec = _BrainOutputSpec
    function = "qsm_nipype.models.mask:segment"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.masking import combined_magnitude
        from qsm_nipype.models.mask import load_network

        magnitude = load(self.inputs.in_magnitude)
        turned, back = canonical(magnitude)
        network, edge = load_network(_weights("mask", self.inputs))
        image = combined_magnitude(turned.tensor(self.device))
        mask = resolve(self.function)(
            image, turned.voxel_size, network.to(self.device), edge, **self.parameters()
        )
        if not mask.any():
            raise DataError(
                f"{self.inputs.in_magnitude}: the network finds no brain; use --mask quality, or "
                "give your own by -d masks=PATH"
            )
        return {"out_mask": save(cwd / "mask.nii", back(mask.cpu().numpy()), magnitude)}
