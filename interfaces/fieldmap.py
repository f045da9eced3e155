"""Phase offsets, unwrapping and field fit as Nipype interfaces; echoes are the last axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import Volume, load, save


def _echoes(path: str, echo_times: list[float]) -> Volume:
    """A 4-D image with one volume per echo time. Raises DataError."""
    image = load(path)
    data = image.data[..., None] if image.data.ndim == 3 else image.data
    if data.ndim != 4 or data.shape[3] != len(echo_times):
        raise DataError(
            f"{path}: {data.shape[3] if data.ndim == 4 else 'not'} echoes for "
            f"{len(echo_times)} echo times; give one volume per echo time"
        )
    return Volume(data, image.affine, image.path)


def _signal(inputs: Any, phase: Volume, device: str) -> Any:
    """The magnitude of all echoes as a tensor; ones where there is none."""
    import torch

    if not isdefined(inputs.in_magnitude):
        return torch.ones(phase.data.shape, device=device)
    image = _echoes(inputs.in_magnitude, inputs.echo_times)
    if image.data.shape != phase.data.shape:
        raise DataError(
            f"{inputs.in_magnitude}: shape {image.data.shape} differs from the phase's "
            f"{phase.data.shape}; give the magnitude of the same echoes"
        )
    return image.tensor(device).clamp_min(0)


def _mask(inputs: Any, device: str) -> Any:
    return load(inputs.in_mask).mask(device) if isdefined(inputs.in_mask) else None


class _EchoInputSpec(QSMInputSpec):
    in_phase = File(exists=True, mandatory=True, desc="phase (rad), echoes last")
    in_magnitude = File(exists=True, desc="magnitude of the same echoes")
    in_mask = File(exists=True, desc="where to work (default: where there is signal)")
    echo_times = traits.List(traits.Float, mandatory=True, desc="echo times (s)")


class _MCPC3DSInputSpec(_EchoInputSpec):
    bipolar = traits.Bool(
        parameter=True, desc="readout direction alternates between echoes (unset: the data tell)"
    )
    smoothing = traits.Float(parameter=True, desc="SD of the offset's Gaussian (mm)")


class _MCPC3DSOutputSpec(QSMOutputSpec):
    out_phase = File(exists=True, desc="phase with the offset removed (rad, wrapped)")
    out_offset = File(exists=True, desc="removed offset (rad)")


class MCPC3DS(QSMInterface):
    """Remove the smooth phase offset, and the odd/even phase of bipolar readouts."""

    input_spec = _MCPC3DSInputSpec
    output_spec = _MCPC3DSOutputSpec
    function = "qsm_nipype.core.offsets:mcpc3ds"

    def _run(self, cwd: Path) -> dict[str, Any]:
        phase = _echoes(self.inputs.in_phase, self.inputs.echo_times)
        result = resolve(self.function)(
            phase.tensor(self.device),
            _signal(self.inputs, phase, self.device),
            self.inputs.echo_times,
            phase.voxel_size,
            mask=_mask(self.inputs, self.device),
            **self.parameters(),
        )
        return {
            "out_phase": save(cwd / "phase_offset_removed.nii", result.phase, phase),
            "out_offset": save(cwd / "phase_offset.nii", result.offset, phase),
            "record": dict(
                method="MCPC-3D-S",
                parameters={"bipolar": result.alternating is not None},
                notes=list(result.notes),
                warnings=list(result.warnings),
            ),
        }


class _RomeoInputSpec(_EchoInputSpec):
    mode = traits.Enum("auto", "template", "individual", parameter=True, desc="see core")
    template = traits.Range(low=0, parameter=True, desc="index of the leading echo")


class _UnwrapOutputSpec(QSMOutputSpec):
    out_unwrapped = File(exists=True, desc="unwrapped phase (rad), echoes last")
    out_quality = File(exists=True, desc="voxel quality in [0, 1]")
    out_mask = File(exists=True, desc="where the phase was unwrapped")


class Romeo(QSMInterface):
    """Unwrap all echoes by ROMEO."""

    input_spec = _RomeoInputSpec
    output_spec = _UnwrapOutputSpec
    function = "qsm_nipype.core.unwrapping:romeo"

    def _run(self, cwd: Path) -> dict[str, Any]:
        phase = _echoes(self.inputs.in_phase, self.inputs.echo_times)
        result = resolve(self.function)(
            phase.tensor(self.device),
            self.inputs.echo_times,
            magnitude=_signal(self.inputs, phase, self.device),
            mask=_mask(self.inputs, self.device),
            **self.parameters(),
        )
        return {
            "out_unwrapped": save(cwd / "unwrapped.nii", result.phase, phase),
            "out_quality": save(cwd / "quality.nii", result.quality, phase),
            "out_mask": save(cwd / "unwrapped_mask.nii", result.mask, phase),
            "record": dict(
                method="ROMEO",
                mode=result.mode,
                template=result.template,
                inconsistency=result.inconsistency,
                regions=result.regions,
            ),
        }


class LaplacianUnwrap(QSMInterface):
    """Unwrap every echo by its Laplacian; the quality is still ROMEO's."""

    input_spec = _EchoInputSpec
    output_spec = _UnwrapOutputSpec
    function = "qsm_nipype.core.unwrapping:laplacian"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.unwrapping import quality_map, signal_mask

        phase = _echoes(self.inputs.in_phase, self.inputs.echo_times)
        wrapped = phase.tensor(self.device)
        magnitude = _signal(self.inputs, phase, self.device)
        mask = _mask(self.inputs, self.device)
        mask = signal_mask(magnitude) if mask is None else mask
        quality = quality_map(wrapped, self.inputs.echo_times, magnitude=magnitude, mask=mask)
        unwrapped = resolve(self.function)(wrapped, mask=mask)
        return {
            "out_unwrapped": save(cwd / "unwrapped.nii", unwrapped, phase),
            "out_quality": save(cwd / "quality.nii", quality, phase),
            "out_mask": save(cwd / "unwrapped_mask.nii", mask, phase),
            "record": dict(method="Laplacian", mode="individual"),
        }


class _FitInputSpec(_EchoInputSpec):
    b0 = traits.Float(mandatory=True, desc="field strength (T)")
    intercept = traits.Bool(parameter=True, desc="fit a phase offset per voxel, too")
    repair = traits.Bool(parameter=True, desc="repair 2π outliers")


class _FitOutputSpec(QSMOutputSpec):
    total_field = File(exists=True, desc="total field (ppm)")
    field_noise = File(exists=True, desc="SD of the field (ppm)")
    residual = File(exists=True, desc="RMS of the echoes about the fit (rad)")
    reliability = File(exists=True, desc="0..1; 0.5 at 0.3 rad residual or phase noise")


class _Fit(QSMInterface):
    output_spec = _FitOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        phase = _echoes(self.inputs.in_phase, self.inputs.echo_times)
        result = resolve(self.function)(
            phase.tensor(self.device),
            _signal(self.inputs, phase, self.device),
            self.inputs.echo_times,
            self.inputs.b0,
            mask=_mask(self.inputs, self.device),
            **self.parameters(),
        )
        return {
            "total_field": save(cwd / "total_field.nii", result.field, phase),
            "field_noise": save(cwd / "field_noise.nii", result.noise, phase),
            "residual": save(cwd / "residual.nii", result.residual, phase),
            "reliability": save(cwd / "reliability.nii", result.reliability, phase),
            "record": dict(
                method=self.function.partition(":")[2],
                noise_of_signal=result.sigma,
                repaired_voxels=result.repaired,
                **self.parameters(),
            ),
        }


class LinearFit(_Fit):
    """Magnitude-weighted straight line through the unwrapped phase."""

    input_spec = _FitInputSpec
    function = "qsm_nipype.core.fieldmap:linear_fit"


class _NonlinearFitInputSpec(_FitInputSpec):
    max_iterations = traits.Range(low=1, parameter=True, desc="Gauss-Newton steps")


class NonlinearFit(_Fit):
    """Fit of the complex signal, from the same inputs."""

    input_spec = _NonlinearFitInputSpec
    function = "qsm_nipype.core.fieldmap:nonlinear_fit"
