"""The whole reconstruction in memory, from phase to χ in ppm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from qsm_nipype.chain.choices import (
    NONE,
    Parameters,
    Weights,
    check_choices,
    check_masks,
    check_reference,
    check_threshold,
)
from qsm_nipype.chain.data import ScanParameters, as_echoes, as_mask, numbers, three
from qsm_nipype.chain.field import map_field
from qsm_nipype.chain.masks import edit_mask, make_mask, trim_mask
from qsm_nipype.chain.susceptibility import add_second_stage, set_reference, susceptibility
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.masking import without_dropout
from qsm_nipype.core.reference import Referenced
from qsm_nipype.settings import Settings


@dataclass(frozen=True)
class Maps:
    """Everything that `reconstruct` made, `(X, Y, Z)` unless said otherwise.

    `phase` `(X, Y, Z, E)` without its offset, wrapped, and `unwrapped` (rad); `magnitude` of all
    echoes combined; `quality` of the phase and `reliability` of the field, 0 to 1; `total_field`,
    its SD `field_noise` and `local_field` in ppm (None where the inversion takes the total
    field); `residual` of the fit in rad. `mask` is the brain, `trimmed` the part of it whose
    field is reliable, `mask_chi` where χ is known. `inverted` and `chi` are susceptibility in ppm
    before and after the `reference` was subtracted. `warnings` are what a reader should know.
    """

    phase: Tensor
    unwrapped: Tensor
    magnitude: Tensor
    quality: Tensor
    total_field: Tensor
    field_noise: Tensor
    residual: Tensor
    reliability: Tensor
    mask: Tensor
    trimmed: Tensor
    local_field: Tensor | None
    mask_chi: Tensor
    inverted: Tensor
    chi: Tensor
    reference: Referenced
    warnings: tuple[str, ...] = ()


def reconstruct(  # noqa: PLR0913  every choice is named, as on the command line
    phase: Any,
    magnitude: Any,
    *,
    echo_times: Sequence[float],
    b0: float,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    mask: Any = None,
    region: Any = None,
    offset: str = Settings.offset,
    unwrapping: str = Settings.unwrapping,
    fit: str = Settings.fit,
    mask_method: str = Settings.mask,
    mask_operations: str = Settings.mask_operations,
    trim: str = Settings.trim,
    background: str = Settings.background,
    inversion: str = Settings.inversion[0],
    two_stage: float = Settings.two_stage,
    reference: str = Settings.reference,
    parameters: Parameters = NONE,
    weights: Weights = NONE,
) -> Maps:
    """Quantitative susceptibility mapping as the pipeline does it, from phase to χ in ppm.

    `phase` (rad) and `magnitude` (any unit) are `(X, Y, Z, E)`, or `(X, Y, Z)` for one
    echo, as arrays or tensors; not-a-number counts as zero. `echo_times` in s, `b0` in T,
    `voxel_size` in mm, `b0_dir` along the voxel axes.

    `mask` `(X, Y, Z)` is your own mask of the brain, true above one half; without it,
    `mask_method` makes one (`net:dilate:2`: see docs/masks.md), and `mask_operations`
    edit either. The networks among them (`net`, `deepbet`) know heads whose axes lead right, to
    the front and up; `net`, the default, knows the head in a mirror too, and takes the axis most
    along B0 for its own. `two_stage` (ppm; 0: off) makes χ again without stronger sources.
    `reference` is "brain", "csf", "region" or "none"; `region` `(X, Y, Z)` is the mask that "csf"
    and "region" need. `weights` are your own files for networks, by the network's name.

    Raises DataError for data that cannot be used, UsageError for a method or parameter that
    there is not, WeightsError for a network's file.
    """
    scan = ScanParameters(numbers(echo_times), float(b0), *map(three, (voxel_size, b0_dir)))
    names = {"offset": offset, "unwrapping": unwrapping, "fit": fit, "trim": trim}
    check_choices({**names, "background": background, "inversion": inversion}, parameters)
    check_masks("" if mask is not None else mask_method, mask_operations)
    check_threshold(two_stage)
    check_reference(reference, region)
    phase, magnitude = as_echoes(phase, magnitude, scan)
    whole = None if mask is None else as_mask(mask, phase, "mask")
    zero = None if region is None else as_mask(region, phase, "region")

    removed, unwrapped, fitted = map_field(
        phase,
        magnitude,
        scan,
        offset=offset,
        unwrapping=unwrapping,
        fit=fit,
        parameters=parameters,
    )
    combined = combined_magnitude(magnitude)
    if whole is None:
        whole = make_mask(
            combined,
            unwrapped.quality,
            scan,
            method=mask_method,
            parameters=parameters,
            weights=weights,
        )
    whole = edit_mask(whole, scan, mask_operations)
    trimmed, warnings = trim_mask(whole, fitted, scan, method=trim, parameters=parameters)
    brain = whole
    if mask is None:
        brain = without_dropout(
            whole,
            scan.voxel_size,
            reliability=fitted.reliability,
            quality=unwrapped.quality,
        )
    make = partial(
        susceptibility,
        fitted.field,
        scan=scan,
        field_noise=fitted.noise,
        magnitude=combined,
        csf=zero if reference == "csf" else None,
        background=background,
        inversion=inversion,
        parameters=parameters,
        weights=weights,
    )
    first = make(trimmed)
    chi = add_second_stage(first, trimmed, make, scan, threshold=two_stage, parameters=parameters)
    referenced = set_reference(chi, first.mask, kind=reference, region=zero, parameters=parameters)
    return Maps(
        phase=removed.phase,
        unwrapped=unwrapped.phase,
        magnitude=combined,
        quality=unwrapped.quality,
        total_field=fitted.field,
        field_noise=fitted.noise,
        residual=fitted.residual,
        reliability=fitted.reliability,
        mask=brain,
        trimmed=trimmed,
        local_field=first.local_field,
        mask_chi=first.mask,
        inverted=chi,
        chi=referenced.chi,
        reference=referenced,
        warnings=(*removed.notes, *removed.warnings, *warnings),
    )
