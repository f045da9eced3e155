"""Dipole inversion nodes: local (or total) field → susceptibility, one small class per method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.volume import Volume, load, load_like, save


class _InversionInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="local field (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="voxels with a valid field")
    in_region = File(exists=True, desc="where sources of the field may lie; default: in_mask")
    in_noise = File(exists=True, desc="noise SD of the field (ppm)")
    in_magnitude = File(exists=True, desc="echo-combined magnitude")
    b0 = traits.Float(desc="main field strength (T)")
    echo_time = traits.Float(desc="effective echo time (s)")
    b0_dir = traits.Tuple(
        *[traits.Float()] * 3, desc="B0 direction along the voxel axes; default from the affine"
    )
    out_file = File("chi.nii", usedefault=True, desc="susceptibility (ppm)")


class _InversionOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="susceptibility (ppm)")


class DipoleInversion(QSMInterface):
    """Base of the inversion nodes; a subclass names its core function as `module:function`."""

    input_spec = _InversionInputSpec
    output_spec = _InversionOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        invert = resolve(self.function)
        field = load(self.inputs.in_file)
        direction = self.inputs.b0_dir if isdefined(self.inputs.b0_dir) else field.b0_dir
        solution = invert(
            field.tensor(self.device),
            load_like(field, self.inputs.in_mask).mask(self.device),
            field.voxel_size,
            direction,
            **accepted(invert, **self._optional(field)),
            **self.parameters(),
        )
        record = {
            "method": type(self).__name__,
            "iterations": solution.iterations,
            "converged": solution.converged,
            "parameters": {**self.parameters(), **solution.parameters},
        }
        return {
            "out_file": save(cwd / self.inputs.out_file, solution.chi, field),
            "record": record,
        }

    def _optional(self, field: Volume) -> dict[str, Any]:
        """The inputs that were given, by the names the core functions know them by."""
        from qsm_nipype.core.masking import combined_magnitude

        found: dict[str, Any] = {}
        if isdefined(self.inputs.in_noise):
            found["noise"] = load_like(field, self.inputs.in_noise).tensor(self.device)
        if isdefined(self.inputs.in_region):
            found["region"] = load_like(field, self.inputs.in_region).mask(self.device)
        if isdefined(self.inputs.in_magnitude):
            magnitude = load_like(field, self.inputs.in_magnitude).tensor(self.device)
            found["magnitude"] = combined_magnitude(magnitude)
        for name in ("b0", "echo_time"):
            if isdefined(getattr(self.inputs, name)):
                found[name] = getattr(self.inputs, name)
        return found


class _TKDInputSpec(_InversionInputSpec):
    threshold = traits.Float(parameter=True, desc="smallest |D| divided by")
    correct = traits.Bool(parameter=True, desc="undo the underestimation of the truncation")


class TKD(DipoleInversion):
    """Truncated k-space division."""

    input_spec = _TKDInputSpec
    function = "qsm_nipype.core.inversion.direct:tkd"


class _RegularizedInputSpec(_InversionInputSpec):
    regularization = traits.Float(parameter=True, desc="weight λ; default from the noise")


class Tikhonov(DipoleInversion):
    """Closed-form ℓ2 inversion with a gradient penalty."""

    input_spec = _RegularizedInputSpec
    function = "qsm_nipype.core.inversion.direct:tikhonov"


class _IterativeInputSpec(_RegularizedInputSpec):
    tolerance = traits.Float(parameter=True, desc="relative change at which to stop")
    max_iterations = traits.Int(parameter=True, desc="iterations at most")


class TV(DipoleInversion):
    """Total variation with a linear data term."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.inversion.tv:tv"


class L1TV(DipoleInversion):
    """Total variation with an ℓ1 data term: robust against voxels whose field is wrong."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.inversion.l1:l1tv"


class _RTSInputSpec(_IterativeInputSpec):
    threshold = traits.Float(parameter=True, desc="smallest |D| of the well-conditioned part")


class RTS(DipoleInversion):
    """Rapid two-step: well-conditioned k-space first, total variation for the rest."""

    input_spec = _RTSInputSpec
    function = "qsm_nipype.core.inversion.rts:rts"


class HDQSM(DipoleInversion):
    """Hybrid data fidelity: an ℓ1 data term first, then ℓ2 started and weighted by it."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.inversion.hdqsm:hdqsm"


class _ILSQRInputSpec(_InversionInputSpec):
    threshold = traits.Float(parameter=True, desc="|D| below which streaks are estimated")
    tolerance = traits.Float(parameter=True, desc="relative residual at which to stop")
    max_iterations = traits.Int(parameter=True, desc="LSQR iterations at most")


class ILSQR(DipoleInversion):
    """Least squares by LSQR, less the streaks estimated from its ill-conditioned k-space."""

    input_spec = _ILSQRInputSpec
    function = "qsm_nipype.core.inversion.ilsqr:ilsqr"


class NonlinearTV(DipoleInversion):
    """Total variation with the data term in the complex signal (FANSI)."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.inversion.nonlinear:nltv"


class NonlinearTGV(DipoleInversion):
    """Total generalised variation with the data term in the complex signal (FANSI)."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.inversion.nonlinear:nltgv"


class _HarmonicInputSpec(_IterativeInputSpec):
    harmonic = traits.Float(parameter=True, desc="weight β that holds the background harmonic")


class _WeakHarmonicInputSpec(_HarmonicInputSpec):
    tail = traits.Float(
        parameter=True,
        desc="steps of χ beyond this many times the field's RMS cost their logarithm (0: none)",
    )


class WeakHarmonicTV(DipoleInversion):
    """Total variation that removes what is left of the background field."""

    input_spec = _WeakHarmonicInputSpec
    function = "qsm_nipype.core.inversion.harmonic:whtv"


class _MEDIInputSpec(_IterativeInputSpec):
    in_csf = File(
        exists=True, desc="CSF, whose χ is asked to be uniform and is then zero (MEDI+0)"
    )
    merit = traits.Bool(parameter=True, desc="let voxels that no field explains lose weight")


class MEDI(DipoleInversion):
    """Morphology enabled dipole inversion: total variation off the magnitude's edges."""

    input_spec = _MEDIInputSpec
    function = "qsm_nipype.core.inversion.medi:medi"

    def _optional(self, field: Volume) -> dict[str, Any]:
        found = super()._optional(field)
        if isdefined(self.inputs.in_csf):
            found["csf"] = load_like(field, self.inputs.in_csf).mask(self.device)
        return found


class SingleStepTGV(DipoleInversion):
    """Total generalised variation from the total field in one step."""

    input_spec = _HarmonicInputSpec
    function = "qsm_nipype.core.inversion.tgv:tgv"


class _AgreementInputSpec(QSMInputSpec):
    in_files = InputMultiObject(
        File(exists=True), mandatory=True, desc="χ maps (ppm) of two or more methods"
    )
    in_mask = File(exists=True, mandatory=True, desc="voxels to compare")
    out_mean = File("mean.nii", usedefault=True, desc="mean over the methods (ppm)")
    out_file = File("agreement.nii", usedefault=True, desc="SD over the methods (ppm)")


class _AgreementOutputSpec(QSMOutputSpec):
    out_mean = File(exists=True, desc="mean over the methods (ppm)")
    out_file = File(exists=True, desc="SD over the methods (ppm)")


class Agreement(QSMInterface):
    """Voxel by voxel mean and SD of the χ maps of several inversions."""

    input_spec = _AgreementInputSpec
    output_spec = _AgreementOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.inversion.agreement import agreement

        mask = load(self.inputs.in_mask)
        maps = [load_like(mask, path) for path in self.inputs.in_files]
        mean, spread = agreement(
            [volume.tensor(self.device) for volume in maps], mask.mask(self.device)
        )
        return {
            "out_mean": save(cwd / self.inputs.out_mean, mean, mask),
            "out_file": save(cwd / self.inputs.out_file, spread, mask),
        }
