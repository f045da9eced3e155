"""The reconstruction in memory: `reconstruct` from phase to χ, and each of its steps.

Arrays and tensors in, tensors out: no files, no Nipype. Echoes are the last axis, phase is in rad
(positive where the field is stronger), fields and χ in ppm, times in s, lengths in mm. Tensors
stay on their device; numpy arrays become float32 on the CPU. Every step takes the name of a
method of the registry (`qsm-nipype methods` lists them), and `parameters` by STEP.METHOD as in
`{"inversion.tkd": {"threshold": 0.2}}`; what is not given has the pipeline's default.
"""

from qsm_nipype.chain.choices import Parameters, Weights, check_choices
from qsm_nipype.chain.data import ScanParameters, as_echoes, as_mask
from qsm_nipype.chain.field import fit_field, map_field, remove_offset, unwrap
from qsm_nipype.chain.masks import edit_mask, make_mask, trim_mask
from qsm_nipype.chain.separation import find_vessels, separate_sources
from qsm_nipype.chain.susceptibility import (
    Inverted,
    add_second_stage,
    invert,
    remove_background,
    set_reference,
    susceptibility,
)
from qsm_nipype.chain.weighting import weight_magnitude
from qsm_nipype.chain.whole import Maps, reconstruct

__all__ = [
    "Inverted",
    "Maps",
    "Parameters",
    "ScanParameters",
    "Weights",
    "add_second_stage",
    "as_echoes",
    "as_mask",
    "check_choices",
    "edit_mask",
    "find_vessels",
    "fit_field",
    "invert",
    "make_mask",
    "map_field",
    "reconstruct",
    "remove_background",
    "remove_offset",
    "separate_sources",
    "set_reference",
    "susceptibility",
    "trim_mask",
    "unwrap",
    "weight_magnitude",
]
