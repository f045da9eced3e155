"""R2* and T2* maps from multi-echo magnitude."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.volume import Volume, load, load_like, save


class _DecayInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="magnitude, echoes last")
    in_mask = File(exists=True, mandatory=True, desc="voxels to fit")
    echo_times = traits.List(traits.Float, mandatory=True, desc="echo times (s)")
    longest = traits.Float(parameter=True, desc="longest T2* (s)")


class _LogLinearInputSpec(_DecayInputSpec):
    reweightings = traits.Int(parameter=True, desc="refits with weights from the fitted decay")
    sigma = traits.Float(parameter=True, desc="noise SD of the signal; undefined: measured")
    in_field = File(exists=True, desc="total field (ppm): its gradients feign a decay")
    b0 = traits.Float(desc="main field strength (T)")


class DecayOutputSpec(QSMOutputSpec):
    """Maps of the decay."""

    r2star = File(desc="R2* (1/s)")
    t2star = File(desc="T2* (s)")


class _Decay(QSMInterface):
    output_spec = DecayOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        magnitude, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        fit = resolve(self.function)
        decay = fit(
            magnitude.tensor(),
            mask.mask(),
            self.inputs.echo_times,
            **accepted(fit, **self._field(mask)),
            **self.parameters(),
        )
        return {
            "r2star": save(cwd / "r2star.nii", decay.r2star, mask),
            "t2star": save(cwd / "t2star.nii", decay.t2star, mask),
        }

    def _field(self, mask: Volume) -> dict[str, Any]:
        """The total field and B0, where they were given."""
        known = self.inputs.trait_get()
        file, b0 = known.get("in_field"), known.get("b0")
        if not isdefined(file) or not isdefined(b0) or not file or not b0:
            return {}
        return {"total_field": load_like(mask, file).tensor(), "b0": b0}


class LogLinearDecay(_Decay):
    """Weighted log-linear fit."""

    input_spec = _LogLinearInputSpec
    function = "qsm_nipype.core.relaxometry:loglinear"


class ARLO(_Decay):
    """Auto-regression on linear operations, for three or more equally spaced echoes."""

    input_spec = _DecayInputSpec
    function = "qsm_nipype.core.relaxometry:arlo"
