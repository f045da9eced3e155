"""Background field removal: total field → local field, one class per method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.volume import load, load_like, save

_CORE = "qsm_nipype.core.background"


class _BackgroundInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="total field (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="mask of the brain")
    in_noise = File(exists=True, desc="standard deviation of the field's noise (ppm)")


class _BackgroundOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="local field (ppm), zero outside out_mask")
    out_mask = File(exists=True, desc="where the method could tell the local field")


class BackgroundRemoval(QSMInterface):
    """Base of the methods: a subclass names its core function and lists its parameters."""

    input_spec = _BackgroundInputSpec
    output_spec = _BackgroundOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        total = load(self.inputs.in_file)
        mask = load_like(total, self.inputs.in_mask).mask(self.device)
        if not mask.any():
            raise DataError(f"{self.inputs.in_mask}: the mask is empty; give one of the brain")
        method = resolve(self.function)
        optional = {}
        if isdefined(self.inputs.in_noise):
            optional["noise"] = load_like(total, self.inputs.in_noise).tensor(self.device)
        local = method(
            total.tensor(self.device),
            mask,
            total.voxel_size,
            total.b0_dir,
            **accepted(method, **optional),
            **self.parameters(),
        )
        return {
            "out_file": save(cwd / "localfield.nii", local.field, total),
            "out_mask": save(cwd / "mask.nii", local.mask, total),
            "record": {"iterations": local.iterations},
        }


class _SHARPInputSpec(_BackgroundInputSpec):
    radius = traits.Float(parameter=True, desc="radius of the ball (mm)")
    threshold = traits.Float(parameter=True, desc="smallest kernel value that is deconvolved")


class SHARP(BackgroundRemoval):
    """Spherical mean value filtering with one ball."""

    input_spec = _SHARPInputSpec
    function = f"{_CORE}.sharp:sharp"


class _VSHARPInputSpec(_BackgroundInputSpec):
    max_radius = traits.Float(parameter=True, desc="radius of the largest ball (mm)")
    min_radius = traits.Float(parameter=True, desc="radius of the smallest ball (mm)")
    step = traits.Float(parameter=True, desc="step between the radii (mm)")
    threshold = traits.Float(parameter=True, desc="smallest kernel value that is deconvolved")


class VSHARP(BackgroundRemoval):
    """Spherical mean value filtering with the largest ball that fits."""

    input_spec = _VSHARPInputSpec
    function = f"{_CORE}.sharp:vsharp"


class _RESHARPInputSpec(_BackgroundInputSpec):
    radius = traits.Float(parameter=True, desc="radius of the ball (mm)")
    regularization = traits.Float(parameter=True, desc="weight of the Tikhonov term")
    tolerance = traits.Float(parameter=True, desc="relative residual at which to stop")
    max_iterations = traits.Int(parameter=True, desc="most iterations")


class RESHARP(BackgroundRemoval):
    """Regularised spherical mean value filtering."""

    input_spec = _RESHARPInputSpec
    function = f"{_CORE}.sharp:resharp"


class _ISMVInputSpec(_BackgroundInputSpec):
    radius = traits.Float(parameter=True, desc="radius of the ball (mm)")
    tolerance = traits.Float(parameter=True, desc="relative residual at which to stop")
    max_iterations = traits.Int(parameter=True, desc="most iterations")


class ISMV(BackgroundRemoval):
    """Iterative spherical mean value: a background that equals its own mean."""

    input_spec = _ISMVInputSpec
    function = f"{_CORE}.ismv:ismv"


class _LBVInputSpec(_BackgroundInputSpec):
    tolerance = traits.Float(parameter=True, desc="relative residual at which to stop")
    max_iterations = traits.Int(parameter=True, desc="most iterations")


class LBV(BackgroundRemoval):
    """Laplacian boundary value method."""

    input_spec = _LBVInputSpec
    function = f"{_CORE}.lbv:lbv"


class _PDFInputSpec(_BackgroundInputSpec):
    regularization = traits.Float(parameter=True, desc="weight of the Tikhonov term")
    padding = traits.Float(parameter=True, desc="room for sources beyond the mask (mm)")
    tolerance = traits.Float(parameter=True, desc="relative residual at which to stop")
    max_iterations = traits.Int(parameter=True, desc="most iterations")


class PDF(BackgroundRemoval):
    """Projection onto the dipole fields of sources outside the mask."""

    input_spec = _PDFInputSpec
    function = f"{_CORE}.pdf:pdf"


class LBVTFI(BackgroundRemoval):
    """LBV refined by linear total field inversion."""

    input_spec = _PDFInputSpec
    function = f"{_CORE}.tfi:lbv_tfi"


class _ISMVTFIInputSpec(_PDFInputSpec):
    radius = traits.Float(parameter=True, desc="radius of iSMV's ball (mm)")


class ISMVTFI(BackgroundRemoval):
    """iSMV refined by linear total field inversion."""

    input_spec = _ISMVTFIInputSpec
    function = f"{_CORE}.tfi:ismv_tfi"


class _ISMVTVInputSpec(_ISMVInputSpec):
    regularization = traits.Float(parameter=True, desc="weight of total variation (ppm)")
    harmonic = traits.Float(parameter=True, desc="weight of the Laplacian of the harmonic field")
    erosion = traits.Float(parameter=True, desc="what the mask loses (mm)")


class ISMVTV(BackgroundRemoval):
    """iSMV refined by an inversion with total variation."""

    input_spec = _ISMVTVInputSpec
    function = f"{_CORE}.variation:ismv_tv"
