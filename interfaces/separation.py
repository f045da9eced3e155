"""R2′ of an acquisition, and its paramagnetic and diamagnetic susceptibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from qsm_nipype.dataset.r2_files import on_grid_of, read_r2, read_spin_echoes
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.volume import Volume, load, load_like, save


class _R2PrimeInputSpec(QSMInputSpec):
    in_r2star = File(exists=True, mandatory=True, desc="(1/s)")
    in_mask = File(exists=True, mandatory=True, desc="brain")
    in_magnitude = File(exists=True, mandatory=True, desc="gradient echoes, last axis echo")
    out_r2prime = File("r2prime.nii", usedefault=True, desc="R2′ (1/s)")


class _R2PrimeOutputSpec(QSMOutputSpec):
    r2prime = File(exists=True, desc="R2′ (1/s)")
    r2 = File(desc="R2 on the grid of the gradient echoes (1/s)")
    t2 = File(desc="T2 likewise (s)")


class _R2Prime(QSMInterface):
    input_spec = _R2PrimeInputSpec
    output_spec = _R2PrimeOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.separation.rates import assumed_reversible, reversible

        r2star = load(self.inputs.in_r2star)
        mask = load_like(r2star, self.inputs.in_mask).mask()
        r2, record = self._r2(load(self.inputs.in_magnitude))
        files = {}
        if r2 is None:
            found = assumed_reversible(r2star.tensor(), mask, **self.parameters())
        else:
            rate = r2.tensor() * mask
            known = rate > 0
            found = reversible(r2star.tensor(), mask & known, r2=rate)
            inverse = (1 / rate.clamp_min(1e-3)) * known
            files = {
                "r2": save(cwd / "r2.nii", rate, r2star),
                "t2": save(cwd / "t2.nii", inverse, r2star),
            }
        numbers = {
            "r2prime_noise": _number(found.noise, "1/s", "noise of R2′, from neighbours"),
            "r2prime_negative": _number(
                found.negative, "", "share of the brain where R2 was above R2*"
            ),
        }
        out = save(cwd / self.inputs.out_r2prime, found.rate, r2star)
        record = {"parameters": self.parameters(), "numbers": numbers, **record}
        return {"r2prime": out, **files, "record": record}

    def _r2(self, magnitude: Volume) -> tuple[Volume | None, dict[str, Any]]:
        """R2 (1/s) on the grid of the gradient echoes, and what to say of it."""
        raise TypeError(f"{type(self).__name__} does not say where R2 comes from")


def _number(value: float, unit: str, description: str) -> dict[str, Any]:
    return {"value": round(float(value), 4), "unit": unit, "description": description}


class _AssumedInputSpec(_R2PrimeInputSpec):
    share = traits.Range(low=0.0, high=1.0, parameter=True, desc="of R2* that is reversible")


class AssumedR2Prime(_R2Prime):
    """R2′ from R2* alone, as a share of it."""

    input_spec = _AssumedInputSpec
    function = "qsm_nipype.core.separation.rates:assumed_reversible"

    def _r2(self, magnitude: Volume) -> tuple[Volume | None, dict[str, Any]]:
        return None, {}


class _GivenInputSpec(_R2PrimeInputSpec):
    in_files = traits.List(File(exists=True), mandatory=True, desc="map of R2 or T2")


class GivenR2Prime(_R2Prime):
    """R2* less the user's R2, registered where it lies on another grid."""

    input_spec = _GivenInputSpec
    function = "qsm_nipype.core.separation.rates:reversible"

    def _r2(self, magnitude: Volume) -> tuple[Volume | None, dict[str, Any]]:
        (file,) = self.inputs.in_files
        given = read_r2(file)
        return _aligned(given, given, magnitude, self.inputs.num_threads)


class _EchoesInputSpec(_GivenInputSpec):
    echo_times = traits.List(traits.Float, mandatory=True, desc="of the spin echoes (s)")
    refocusing = traits.Float(desc="nominal angle of the pulses (degrees)")
    longest = traits.Float(parameter=True, desc="longest T2 (s)")


class SpinEchoR2Prime(_R2Prime):
    """R2* less R2 from multi-echo spin echoes, registered to the gradient echoes."""

    input_spec = _EchoesInputSpec
    function = "qsm_nipype.core.spin_echo:spin_echo_r2"

    def _r2(self, magnitude: Volume) -> tuple[Volume | None, dict[str, Any]]:
        from dataclasses import replace

        from qsm_nipype.core.unwrapping import signal_mask

        times = list(self.inputs.echo_times)
        echoes = read_spin_echoes(self.inputs.in_files, len(times))
        known = {"refocusing": self.inputs.refocusing} if isdefined(self.inputs.refocusing) else {}
        found = resolve(self.function)(
            echoes.tensor(), signal_mask(echoes.tensor()[..., 0]), echoes.voxel_size,
            echo_times=times, **known, **self.parameters(),
        )  # fmt: skip
        rate = replace(echoes, data=found.r2.numpy())
        first = replace(echoes, data=echoes.data[..., 0])
        return _aligned(rate, first, magnitude, self.inputs.num_threads)


def _aligned(
    rate: Volume, image: Volume, magnitude: Volume, threads: int
) -> tuple[Volume, dict[str, Any]]:
    """`rate` on the voxels of `magnitude`, registered by the `image` on its own voxels."""
    from dataclasses import replace

    from qsm_nipype.core.registration import resample
    from qsm_nipype.interfaces.registration import register

    if on_grid_of(rate, magnitude.path):
        return replace(rate, affine=magnitude.affine), {}
    found = register(magnitude, image, threads=threads)
    shape = magnitude.data.shape[:3]
    moved = resample(rate.data, rate.affine, shape, magnitude.affine, found.matrix)
    said = (f"R2 was brought from another grid to that of the gradient echoes, turned by "
            f"{found.rotation:.2g}°")  # fmt: skip
    return replace(magnitude, data=moved), {"notes": [said]}


class _SeparationInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="local field (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="voxels with a valid field")
    in_chi = traits.Either(
        File(exists=True),
        traits.List(File(exists=True)),
        mandatory=True,
        desc="susceptibility (ppm); of several, the first",
    )
    in_r2prime = File(exists=True, mandatory=True, desc="(1/s)")
    in_r2star = File(exists=True, desc="(1/s)")
    in_noise = File(exists=True, desc="noise SD of the field (ppm)")
    in_magnitude = File(exists=True, desc="gradient echoes, last axis echo")
    b0 = traits.Float(desc="main field strength (T)")
    paramagnetic = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="D_r⁺ at 3 T (1/s per ppm)"
    )
    diamagnetic = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="D_r⁻ at 3 T (1/s per ppm)"
    )


class _SeparationOutputSpec(QSMOutputSpec):
    paramagnetic = File(exists=True, desc="χ⁺ (ppm)")
    diamagnetic = File(exists=True, desc="χ⁻ (ppm)")


class _Separation(QSMInterface):
    output_spec = _SeparationOutputSpec
    function = ""

    def _run(self, cwd: Path) -> dict[str, Any]:
        separate = resolve(self.function)
        field = load(self.inputs.in_file)
        mask = load_like(field, self.inputs.in_mask).mask()
        path = self.inputs.in_chi
        chi = load_like(field, path if isinstance(path, str) else path[0]).tensor()
        known = {"chi": chi, **self._maps(field)}
        found = separate(
            field.tensor(), mask, field.voxel_size, field.b0_dir,
            **accepted(separate, **known), **self.parameters(),
        )  # fmt: skip
        apart = float((found.chi - chi)[mask].std()) if bool(mask.any()) else 0.0
        text = "SD of the difference between χ⁺ + χ⁻ and χ"
        return {
            "paramagnetic": save(cwd / "paramagnetic.nii", found.paramagnetic, field),
            "diamagnetic": save(cwd / "diamagnetic.nii", found.diamagnetic, field),
            "record": {
                "iterations": found.iterations,
                "converged": found.converged,
                "parameters": {**self.parameters(), **found.parameters},
                "numbers": {"separation_residual": _number(apart, "ppm", text)},
            },
        }

    def _maps(self, field: Volume) -> dict[str, Any]:
        """What there is beside field and χ, by the core functions' names."""
        from qsm_nipype.core.magnitude import combined_magnitude

        found: dict[str, Any] = {}
        for name in ("r2prime", "r2star", "noise", "magnitude"):
            value = getattr(self.inputs, f"in_{name}")
            if isdefined(value):
                found[name] = load_like(field, value).tensor()
        if "magnitude" in found:
            found["magnitude"] = combined_magnitude(found["magnitude"])
        if isdefined(self.inputs.b0) and self.inputs.b0 > 0:
            found["b0"] = self.inputs.b0
        return found


class _IterativeInputSpec(_SeparationInputSpec):
    regularization = traits.Float(parameter=True, desc="weight λ; default from the noise")
    tolerance = traits.Float(parameter=True, desc="relative change at which to stop")
    max_iterations = traits.Int(parameter=True, desc="iterations at most")


class _JointInputSpec(_IterativeInputSpec):
    tail = traits.Range(low=0.0, parameter=True, desc="where edges cost their logarithm")
    trust = traits.Range(
        low=0.0, exclude_low=True, parameter=True, desc="weight of R2′, of what its noise says"
    )


class JointSeparation(_Separation):
    """Joint inversion of field and R2′."""

    input_spec = _JointInputSpec
    function = "qsm_nipype.core.separation.joint:joint"


class ChiSeparation(_Separation):
    """χ-separation with the magnitude's edges."""

    input_spec = _IterativeInputSpec
    function = "qsm_nipype.core.separation.published:chi_separation"


class _R2starQSMInputSpec(_IterativeInputSpec):
    share = traits.Range(low=0.0, high=1.0, parameter=True, desc="of R2* that is reversible")


class R2starQSM(_Separation):
    """R2*QSM, from gradient echoes alone."""

    input_spec = _R2starQSMInputSpec
    function = "qsm_nipype.core.separation.published:r2star_qsm"


class PointwiseSeparation(_Separation):
    """The closed form, voxel by voxel."""

    input_spec = _SeparationInputSpec
    function = "qsm_nipype.core.separation.published:pointwise"
