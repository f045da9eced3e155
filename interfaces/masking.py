"""Masks: from the magnitude, from phase quality, a user's own, and what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiPath, isdefined, traits

from qsm_nipype.dataset.own_arrays import read_mask_on
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import Volume, load, load_like, save

_CORE = "qsm_nipype.core.masking"


class _MaskOutputSpec(QSMOutputSpec):
    out_mask = File(exists=True, desc="mask")


class _MagnitudeInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="magnitude, echoes last")


class _MagnitudeMaskInputSpec(_MagnitudeInputSpec):
    threshold = traits.Float(parameter=True, desc="intensity above which there is signal")


class MagnitudeMask(QSMInterface):
    """Where there is signal: the whole head."""

    input_spec = _MagnitudeMaskInputSpec
    output_spec = _MaskOutputSpec
    function = f"{_CORE}:magnitude_mask"

    def _run(self, cwd: Path) -> dict[str, Any]:
        magnitude = load(self.inputs.in_file)
        mask = resolve(self.function)(
            magnitude.tensor(self.device), magnitude.voxel_size, **self.parameters()
        )
        return {"out_mask": _save(cwd, mask, magnitude)}


class _BrainMaskInputSpec(_MagnitudeInputSpec):
    fraction = traits.Float(parameter=True, desc="tightness of the surface, 0 to 1")


class BrainMask(MagnitudeMask):
    """The brain, from the magnitude alone."""

    input_spec = _BrainMaskInputSpec
    function = f"{_CORE}:brain_mask"


class _QualityMaskInputSpec(_BrainMaskInputSpec):
    in_quality = File(exists=True, mandatory=True, desc="phase quality in [0, 1]")
    threshold = traits.Float(parameter=True, desc="quality below which phase is not trusted")


class QualityMask(QSMInterface):
    """The brain where the phase can be trusted."""

    input_spec = _QualityMaskInputSpec
    output_spec = _MaskOutputSpec
    function = f"{_CORE}:quality_mask"

    def _run(self, cwd: Path) -> dict[str, Any]:
        magnitude = load(self.inputs.in_file)
        quality = load_like(magnitude, self.inputs.in_quality).tensor(self.device)
        mask = resolve(self.function)(
            magnitude.tensor(self.device),
            magnitude.voxel_size,
            quality=quality,
            **self.parameters(),
        )
        return {"out_mask": _save(cwd, mask, magnitude)}


class _TrimMaskInputSpec(QSMInputSpec):
    in_mask = File(exists=True, mandatory=True, desc="mask")
    in_reliability = File(exists=True, mandatory=True, desc="reliability of the field, 0 to 1")
    in_quality = File(exists=True, mandatory=True, desc="ROMEO's quality of the phase, 0 to 1")
    in_field = File(exists=True, mandatory=True, desc="total field (ppm)")
    threshold = traits.Float(parameter=True, desc="reliability below which a patch is left out")
    jump = traits.Float(parameter=True, desc="largest step of the field at the surface (ppm)")
    erosion = traits.Float(parameter=True, desc="thickness taken off the surface (mm)")


class _TrimMaskOutputSpec(_MaskOutputSpec):
    out_brain = File(exists=True, desc="the mask without dropout at its surface")


class TrimMask(QSMInterface):
    """A mask without the voxels whose field cannot be trusted."""

    input_spec = _TrimMaskInputSpec
    output_spec = _TrimMaskOutputSpec
    function = f"{_CORE}:reliable_mask"

    def _run(self, cwd: Path) -> dict[str, Any]:
        volume = load(self.inputs.in_mask)
        whole = volume.mask(self.device)
        reliability = load_like(volume, self.inputs.in_reliability).tensor(self.device)
        mask = resolve(self.function)(
            whole,
            volume.voxel_size,
            reliability=reliability,
            field=load_like(volume, self.inputs.in_field).tensor(self.device),
            **self.parameters(),
        )
        numbers, warnings = self._judge(whole, mask, reliability, volume.voxel_size)
        brain = resolve(f"{_CORE}:without_dropout")(
            whole,
            volume.voxel_size,
            reliability=reliability,
            quality=load_like(volume, self.inputs.in_quality).tensor(self.device),
        )
        return {
            "out_mask": _save(cwd, mask, volume),
            "out_brain": save(cwd / "brain.nii", brain, volume),
            "record": {"numbers": numbers, "warnings": list(warnings)},
        }

    def _judge(
        self, whole: Any, kept: Any, reliability: Any, voxel_size: Sequence[float]
    ) -> tuple[dict[str, Any], Any]:
        """Numbers and warnings of what was `kept`. Raises DataError where that is hardly any."""
        from qsm_nipype.core import masking, quality

        numbers, warnings = quality.trimming(
            *(x.cpu().numpy() for x in (whole, kept, reliability))
        )
        share = numbers["mask_reliable"]["value"]
        if share < quality.REFUSED_SHARE:
            amount = f"only {share:.1f} %" if share else "no voxel"
            causes = masking.small_cause(whole, voxel_size) + quality.CAUSES
            raise DataError(
                f"{self.inputs.in_mask}: {amount} of the mask has a reliable field; {causes}; "
                "look at the phase, or relax --set trim.reliable.threshold=0"
            )
        return numbers, warnings


class _UserMaskInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the user's mask")
    in_reference = File(exists=True, mandatory=True, desc="image on the grid of the data")


class UserMask(QSMInterface):
    """A mask that the user made, after checking that it fits the data."""

    input_spec = _UserMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        reference = load(self.inputs.in_reference)
        shape, name = reference.data.shape[:3], Path(reference.path).name
        mask = read_mask_on(self.inputs.in_file, reference.affine, shape, name)
        return {"out_mask": _save(cwd, mask.data, reference)}


class _EditMaskInputSpec(QSMInputSpec):
    in_masks = InputMultiPath(File(exists=True), mandatory=True, desc="masks to intersect")
    operations = traits.Str(desc="such as erode:1,fill (see docs/masks.md)")


class EditMask(QSMInterface):
    """The intersection of masks, after the operations of the mask language."""

    input_spec = _EditMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        first, *others = self.inputs.in_masks
        volume = load(first)
        mask = volume.mask(self.device)
        for path in others:
            mask &= load_like(volume, path).mask(self.device)
        text = self.inputs.operations if isdefined(self.inputs.operations) else ""
        mask = resolve(f"{_CORE}:apply_operations")(mask, volume.voxel_size, text)
        if not mask.any():
            raise DataError(f"{first}: nothing is left of the mask; use gentler operations")
        return {"out_mask": _save(cwd, mask, volume)}


def _save(cwd: Path, mask: Any, like: Volume) -> str:
    return save(cwd / "mask.nii", mask, like)
