"""Susceptibility-weighted imaging, by phase or by χ, with its minimum intensity projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.volume import Volume, load, load_like, save


class _SWIInputSpec(QSMInputSpec):
    in_magnitude = File(exists=True, mandatory=True, desc="echoes last")
    in_mask = File(exists=True, mandatory=True, desc="brain")
    echo_times = traits.List(traits.Float, mandatory=True, desc="echo times (s)")
    weighting = traits.Enum("te", "snr", parameter=True, desc="how echoes are joined")
    thickness = traits.Range(
        low=0.0, parameter=True, desc="of the minimum intensity projection (mm)"
    )


class _SWIOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="susceptibility-weighted image")
    out_projection = File(exists=True, desc="its minimum intensity projection")


class _SWI(QSMInterface):
    output_spec = _SWIOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        weight = resolve(self.function)
        magnitude = load(self.inputs.in_magnitude)
        mask = load_like(magnitude, self.inputs.in_mask)
        found = weight(
            magnitude.tensor(),
            mask.mask(),
            magnitude.voxel_size,
            magnitude.b0_dir,
            echo_times=self.inputs.echo_times,
            **accepted(weight, **self._maps(magnitude)),
            **self.parameters(),
        )
        return {
            "out_file": save(cwd / "swi.nii", found.image, mask),
            "out_projection": save(cwd / "minip.nii", found.projection, mask),
        }

    def _maps(self, magnitude: Volume) -> dict[str, Any]:
        """The phase, field or susceptibility that was given, by the core functions' names."""
        found = {}
        for name, port in (("phase", "in_phase"), ("total_field", "in_field"), ("chi", "in_chi")):
            value = self.inputs.trait_get().get(port)
            if value is not None and isdefined(value):
                path = value if isinstance(value, str) else value[0]
                found[name] = load_like(magnitude, path).tensor()
        return found


class _HomodyneInputSpec(_SWIInputSpec):
    in_phase = File(exists=True, mandatory=True, desc="wrapped phase, echoes last (rad)")
    sigma = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="width of the Gaussian low pass (mm)"
    )
    power = traits.Range(
        low=1, parameter=True, desc="times that the mask multiplies the magnitude"
    )


class HomodyneSWI(_SWI):
    """Phase mask of a homodyne filter."""

    input_spec = _HomodyneInputSpec
    function = "qsm_nipype.core.swi.phase:homodyne"


class _ClearInputSpec(_SWIInputSpec):
    in_field = File(exists=True, mandatory=True, desc="total field of the unwrapped phase (ppm)")
    sigma = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="width of the Gaussian low pass (mm)"
    )
    strength = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="of the sigmoid phase mask"
    )
    smoothness = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="of the receive sensitivity (mm)"
    )
    knee = traits.Range(
        low=0.0, parameter=True, desc="of the softplus, of the 80th percentile; 0: none"
    )


class ClearSWI(_SWI):
    """CLEAR-SWI: high-passed unwrapped phase, magnitude without sensitivity."""

    input_spec = _ClearInputSpec
    function = "qsm_nipype.core.swi.phase:clear"


class _ChiInputSpec(_SWIInputSpec):
    in_chi = traits.Either(
        File(exists=True),
        traits.List(File(exists=True)),
        mandatory=True,
        desc="susceptibility (ppm); of several, the first",
    )
    power = traits.Range(
        low=1, parameter=True, desc="times that the mask multiplies the magnitude"
    )


class _TrueInputSpec(_ChiInputSpec):
    lower = traits.Float(parameter=True, desc="susceptibility at which the mask is 1 (ppm)")
    upper = traits.Float(parameter=True, desc="susceptibility at which the mask is 0 (ppm)")


class TrueSWI(_SWI):
    """True susceptibility-weighted imaging."""

    input_spec = _TrueInputSpec
    function = "qsm_nipype.core.swi.chi:true_swi"


class _SMWIInputSpec(_ChiInputSpec):
    threshold = traits.Range(
        low=0.0,
        exclude_low=True,
        parameter=True,
        desc="susceptibility at which the mask is 0 (ppm)",
    )


class SMWI(_SWI):
    """Paramagnetic susceptibility map-weighted imaging."""

    input_spec = _SMWIInputSpec
    function = "qsm_nipype.core.swi.chi:smwi"


class DiamagneticSMWI(_SWI):
    """Diamagnetic susceptibility map-weighted imaging."""

    input_spec = _SMWIInputSpec
    function = "qsm_nipype.core.swi.chi:smwi_diamagnetic"
