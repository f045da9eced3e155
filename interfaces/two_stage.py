"""The two steps of a two-stage reconstruction that are neither background nor inversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import load, save

_CORE = "qsm_nipype.core.two_stage"


class _LeaveOutInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="susceptibility of the first pass (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="where the total field is reliable")
    threshold = traits.Float(parameter=True, mandatory=True, desc="strongest source left in (ppm)")
    radius = traits.Float(parameter=True, desc="ball that a source must hold to count (mm)")
    margin = traits.Float(parameter=True, desc="left out around a source (mm)")


class _LeaveOutOutputSpec(QSMOutputSpec):
    out_mask = File(exists=True, desc="the mask without strong sources")


class LeaveOutStrongSources(QSMInterface):
    """A mask without haemorrhages and other strong sources."""

    input_spec = _LeaveOutInputSpec
    output_spec = _LeaveOutOutputSpec
    function = f"{_CORE}:without_strong_sources"

    def _run(self, cwd: Path) -> dict[str, Any]:
        chi, mask = load(self.inputs.in_file), load(self.inputs.in_mask)
        whole = mask.mask(self.device)
        kept = resolve(self.function)(
            chi.tensor(self.device), whole, chi.voxel_size, **self.parameters()
        )
        notes = (
            [f"no source above {self.inputs.threshold:g} ppm was left out of the second stage"]
            if bool((kept == whole).all())
            else []
        )
        return {"out_mask": save(cwd / "mask.nii", kept, mask), "record": {"notes": notes}}


class _JoinStagesInputSpec(QSMInputSpec):
    in_robust = File(exists=True, mandatory=True, desc="χ without the strong sources (ppm)")
    in_inside = File(exists=True, mandatory=True, desc="where that is known")
    in_filled = File(exists=True, mandatory=True, desc="χ of the whole mask (ppm)")
    in_mask = File(exists=True, mandatory=True, desc="where that is known")


class _JoinStagesOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="susceptibility (ppm)")


class JoinStages(QSMInterface):
    """One map from both stages."""

    input_spec = _JoinStagesInputSpec
    output_spec = _JoinStagesOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        filled = load(self.inputs.in_filled)
        chi = resolve(f"{_CORE}:join_stages")(
            load(self.inputs.in_robust).tensor(self.device),
            load(self.inputs.in_inside).mask(self.device),
            filled.tensor(self.device),
            load(self.inputs.in_mask).mask(self.device),
        )
        return {"out_file": save(cwd / "chi.nii", chi, filled)}
