"""The reconstruction in memory: `reconstruct` from phase to χ, and each of its steps.

Arrays and tensors in, tensors out: no files, no Nipype. Echoes are the last axis, phase is in rad
(positive where the field is stronger), fields and χ in ppm, times in s, lengths in mm. Tensors
stay on their device; numpy arrays become float32 on the CPU. Every step takes the name of a
method of the registry (`qsm-nipype methods` lists them), and `parameters` by STEP.METHOD as in
`{"inversion.tkd": {"threshold": 0.2}}`; what is not given has the pipeline's default.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from qsm_nipype import methods
from qsm_nipype.core import quality as quality_measures
from qsm_nipype.core import region_values
from qsm_nipype.core import two_stage as two_stages
from qsm_nipype.core.background import LocalField
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.mask_language import parse_masks, parse_operations
from qsm_nipype.core.masking import apply_operations, small_cause, without_dropout
from qsm_nipype.core.offsets import Offsets
from qsm_nipype.core.reading.phase import in_radians
from qsm_nipype.core.reference import Referenced, reference
from qsm_nipype.core.swi import Weighted
from qsm_nipype.core.unwrapping import Unwrapped, quality_map, signal_mask
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.settings import Settings

Parameters = Mapping[str, Mapping[str, Any]]
Weights = Mapping[str, "str | os.PathLike[str]"]

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class ScanParameters:
    """How a gradient echo was acquired; what cannot be is refused.

    `echo_times` in s, increasing; `b0` in T; `voxel_size` in mm; `b0_dir` is the direction of B0
    along the voxel axes, of any length. Raises DataError.
    """

    echo_times: tuple[float, ...]
    b0: float
    voxel_size: tuple[float, float, float]
    b0_dir: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        times = self.echo_times
        if not times or not all(a < b < math.inf for a, b in zip((0.0, *times), times)):  # noqa: B905  one is longer
            raise DataError(
                f"echo_times {_shown(times)}: give the time of every echo in s, each later than "
                "the one before"
            )
        if not 0 < self.b0 < math.inf:
            raise DataError(f"b0 {self.b0:g}: give the field strength in T, above 0")
        if len(self.voxel_size) != 3 or not all(0 < v < math.inf for v in self.voxel_size):
            raise DataError(
                f"voxel_size {_shown(self.voxel_size)}: give three lengths in mm, above 0"
            )
        direction = self.b0_dir
        if len(direction) != 3 or not 0 < math.hypot(*direction) < math.inf:
            raise DataError(f"b0_dir {_shown(direction)}: give three numbers, not all zero")

    @property
    def echo_time(self) -> float:
        """The effective echo time: the mean of all, in s."""
        return sum(self.echo_times) / len(self.echo_times)


@dataclass(frozen=True)
class Inverted:
    """`chi` (ppm) before referencing, known where `mask`; the `local_field` (ppm) it comes from.

    All are `(X, Y, Z)`; `local_field` is None for methods that start from the total field.
    """

    chi: Tensor
    mask: Tensor
    local_field: Tensor | None = None


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
    parameters: Parameters = _NONE,
    weights: Weights = _NONE,
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
    scan = ScanParameters(_numbers(echo_times), float(b0), *map(_three, (voxel_size, b0_dir)))
    names = {"offset": offset, "unwrapping": unwrapping, "fit": fit, "trim": trim}
    check_choices({**names, "background": background, "inversion": inversion}, parameters)
    _check_masks("" if mask is not None else mask_method, mask_operations)
    _check_threshold(two_stage)
    _check_reference(reference, region)
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


# ---- data in ----------------------------------------------------------------------------------


def as_echoes(phase: Any, magnitude: Any, scan: ScanParameters) -> tuple[Tensor, Tensor]:
    """Phase and magnitude as finite tensors `(X, Y, Z, E)`, E as many as echo times.

    One echo may be `(X, Y, Z)`. Raises DataError for other shapes, or a phase that is infinite or
    without a number.
    """
    phase, magnitude = (_tensor(x) for x in (phase, magnitude))
    if phase.dim() == 3:
        phase = phase[..., None]
    if magnitude.dim() == 3:
        magnitude = magnitude[..., None]
    if phase.dim() != 4:
        raise DataError(f"phase: shape {_shown(phase.shape)}; give (X, Y, Z, echoes)")
    if magnitude.shape != phase.shape:
        raise DataError(
            f"magnitude: shape {_shown(magnitude.shape)} differs from the phase's "
            f"{_shown(phase.shape)}; give the magnitude of the same echoes"
        )
    if phase.shape[3] != len(scan.echo_times):
        raise DataError(
            f"phase: {phase.shape[3]} echoes for {len(scan.echo_times)} echo times; give one "
            "volume for each echo time"
        )
    if not bool(torch.isfinite(phase).any()):
        raise DataError("phase: no voxel has a number; look at how it was read")
    if bool(torch.isinf(phase).any()):
        raise DataError("phase: it has infinite values; set them to NaN if nothing was measured")
    magnitude = torch.nan_to_num(magnitude, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
    return torch.nan_to_num(phase), magnitude


def as_mask(mask: Any, like: Tensor, name: str) -> Tensor:
    """A mask `(X, Y, Z)` as bool on the grid of `like` `(X, Y, Z[, E])`: see `region_values`.

    Raises DataError, in which `name` says whose shape differs, or who has no voxel.
    """
    given = torch.as_tensor(mask)
    if given.shape[:3] != like.shape[:3]:
        raise DataError(
            f"{name}: shape {_shown(given.shape)} is not the data's {_shown(like.shape[:3])}; "
            "give it on the voxels of the data"
        )
    inside = region_values.binary(given.detach().cpu().numpy(), name)
    return torch.as_tensor(inside).to(like.device)


def _tensor(x: Any) -> Tensor:
    return torch.as_tensor(x).to(torch.float32)


def _numbers(values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError) as exc:
        raise DataError(f"{values!r}: {exc}; give a sequence of numbers") from exc


def _three(values: Any) -> tuple[float, float, float]:
    return _numbers(values)  # type: ignore[return-value]  # ScanParameters counts them


def _shown(values: Sequence[float]) -> str:
    return f"({', '.join(f'{v:g}' for v in values)})"


# ---- methods by name --------------------------------------------------------------------------


def check_choices(names: Mapping[str, str], parameters: Parameters = _NONE) -> None:
    """Refuse methods (by step) and parameters that the registry does not have: UsageError."""
    for step, name in names.items():
        methods.get(step, name)
    methods.check_parameters({key: {} for key in parameters})
    for key, values in parameters.items():
        known = methods.get(*key.split(".", 1)).parameters()
        methods.check_parameters({key: {n: v for n, v in values.items() if n not in known}})


def _check_masks(method: str, operations: str) -> None:
    """Refuse unknown masks and operations before anything is computed. Raises UsageError."""
    parse_operations(operations)
    for part in parse_masks(method) if method else ():
        methods.get("mask", part.name)


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < math.inf:
        raise UsageError(f"two_stage {threshold:g}: give a susceptibility above 0 ppm, or 0")


def _check_reference(kind: str, region: Any) -> None:
    kinds = Settings.__dataclass_fields__["reference"].metadata["choices"]
    if kind not in kinds:
        raise UsageError(f"reference {kind!r}: choose from {', '.join(kinds)}")
    if kind in ("csf", "region") and region is None:
        raise UsageError(f"reference {kind!r}: give its mask as region")


def _call(step: str, name: str, parameters: Parameters, *args: Any, **known: Any) -> Any:
    """The core function of a method, given `args`, what it takes of `known`, its parameters."""
    check_choices({step: name}, parameters)
    method = methods.get(step, name)
    function = resolve(method.function)
    return function(*args, **accepted(function, **known), **parameters.get(method.key, {}))


# ---- from phase to field ----------------------------------------------------------------------


def map_field(
    phase: Tensor,
    magnitude: Tensor,
    scan: ScanParameters,
    *,
    offset: str = Settings.offset,
    unwrapping: str = Settings.unwrapping,
    fit: str = Settings.fit,
    parameters: Parameters = _NONE,
) -> tuple[Offsets, Unwrapped, FieldMap]:
    """`remove_offset`, `unwrap` and `fit_field`, one after the other, and what each found."""
    common = {"parameters": parameters}
    removed = remove_offset(phase, magnitude, scan, method=offset, **common)
    unwrapped = unwrap(removed.phase, magnitude, scan, method=unwrapping, **common)
    return removed, unwrapped, fit_field(unwrapped.phase, magnitude, scan, method=fit, **common)


def remove_offset(
    phase: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.offset,
    parameters: Parameters = _NONE,
) -> Offsets:
    """Take the part of the `phase` away that does not change with echo time.

    `phase` (rad) and `magnitude` `(X, Y, Z, E)`. Raises DataError, UsageError.
    """
    phase, magnitude = as_echoes(phase, magnitude, scan)
    phase = in_radians(phase)
    data = phase, magnitude, scan.echo_times, scan.voxel_size
    return _call("offset", method, parameters, *data)


def unwrap(
    phase: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.unwrapping,
    parameters: Parameters = _NONE,
) -> Unwrapped:
    """Unwrap the `phase` of every echo where there is signal.

    `phase` (rad) and `magnitude` `(X, Y, Z, E)`; the quality is ROMEO's for every method. Raises
    DataError, UsageError.
    """
    phase, magnitude = as_echoes(phase, magnitude, scan)
    phase = in_radians(phase)
    keep, times = signal_mask(magnitude), scan.echo_times
    known = {"echo_times": times, "magnitude": magnitude, "mask": keep}
    found = _call("unwrapping", method, parameters, phase, **known)
    if isinstance(found, Unwrapped):
        return found
    quality = quality_map(phase, times, magnitude=magnitude, mask=keep)
    return Unwrapped(found, quality, keep, "individual", 0, {}, 0)


def fit_field(
    unwrapped: Any,
    magnitude: Any,
    scan: ScanParameters,
    *,
    method: str = Settings.fit,
    parameters: Parameters = _NONE,
) -> FieldMap:
    """The total field (ppm) and its noise from the `unwrapped` phase of all echoes.

    `unwrapped` (rad) and `magnitude` `(X, Y, Z, E)`. Raises DataError, UsageError.
    """
    unwrapped, magnitude = as_echoes(unwrapped, magnitude, scan)
    return _call("fit", method, parameters, unwrapped, magnitude, scan.echo_times, scan.b0)


# ---- masks ------------------------------------------------------------------------------------


def make_mask(
    magnitude: Tensor,
    quality: Tensor,
    scan: ScanParameters,
    *,
    method: str = Settings.mask,
    parameters: Parameters = _NONE,
    weights: Weights = _NONE,
) -> Tensor:
    """The intersection of the masks that `method` names, each after its own operations → bool.

    `magnitude` `(X, Y, Z)` or `(X, Y, Z, E)`, `quality` of the phase `(X, Y, Z)` from 0 to 1.
    Raises UsageError for unknown names, DataError for an empty mask, WeightsError.
    """
    image = combined_magnitude(magnitude)
    mask = torch.ones_like(image, dtype=torch.bool)
    for part in parse_masks(method):
        if methods.get("mask", part.name).network is None:
            found = _call("mask", part.name, parameters, image, scan.voxel_size, quality=quality)
        else:
            found = _mask_by_network(part.name, image, scan, parameters, weights)
        mask &= edit_mask(found, scan, part.operations)
    return mask


def _mask_by_network(
    name: str, image: Tensor, scan: ScanParameters, parameters: Parameters, weights: Weights
) -> Tensor:
    """The mask of a network, which knows heads along their third axis: here that most along B0."""
    along = max(range(3), key=lambda axis: abs(scan.b0_dir[axis]))
    order = [axis for axis in range(3) if axis != along] + [along]
    known = _mask_network(name, weights, image.device)
    edges = [scan.voxel_size[axis] for axis in order]
    found = _call("mask", name, parameters, image.permute(order).contiguous(), edges, **known)
    return found.permute([order.index(axis) for axis in range(3)]).contiguous()


def _mask_network(name: str, weights: Weights, device: torch.device) -> dict[str, Any]:
    network = str(methods.get("mask", name).network)
    from qsm_nipype.models.mask import load_network
    from qsm_nipype.models.registry import read_weights

    made, edge = load_network(read_weights(network, weights.get(network)))
    return {"network": made.to(device), "network_voxel": edge}


def edit_mask(mask: Tensor, scan: ScanParameters, operations: str) -> Tensor:
    """`mask` after `operations` such as "erode:1,fill". Raises DataError if nothing is left."""
    mask = apply_operations(mask, scan.voxel_size, operations)
    if not bool(mask.any()):
        raise DataError("mask: nothing is left of it; use another method, or gentler operations")
    return mask


def trim_mask(
    mask: Tensor,
    fitted: FieldMap,
    scan: ScanParameters,
    *,
    method: str = Settings.trim,
    parameters: Parameters = _NONE,
) -> tuple[Tensor, tuple[str, ...]]:
    """The part of `mask` (bool) whose field is reliable, and warnings where that is little.

    Raises DataError where that is hardly any.
    """
    found = {"reliability": fitted.reliability, "field": fitted.field}
    kept = _call("trim", method, parameters, mask, scan.voxel_size, **found)
    numbers, warnings = quality_measures.trimming(
        *(x.cpu().numpy() for x in (mask, kept, fitted.reliability))
    )
    share = numbers["mask_reliable"]["value"]
    if share < quality_measures.REFUSED_SHARE:
        causes = small_cause(mask, scan.voxel_size) + quality_measures.CAUSES
        raise DataError(
            f"mask: {share:.1f} % of it has a reliable field; {causes}; look at "
            f"the phase, or relax the parameters of trim.{method}"
        )
    return kept, warnings


# ---- from field to χ --------------------------------------------------------------------------


def remove_background(
    total_field: Tensor,
    mask: Tensor,
    scan: ScanParameters,
    *,
    field_noise: Tensor | None = None,
    method: str = Settings.background,
    parameters: Parameters = _NONE,
) -> LocalField:
    """The field (ppm) of the sources inside `mask` (bool), and where the method knows it.

    `total_field` and its SD `field_noise` are `(X, Y, Z)` in ppm. Raises DataError, UsageError.
    """
    mask = as_mask(mask, total_field, "mask")
    data = total_field, mask, scan.voxel_size, scan.b0_dir
    return _call("background", method, parameters, *data, noise=field_noise)


def invert(  # noqa: PLR0913  all that an inversion may use, each named
    field: Tensor,
    mask: Tensor,
    scan: ScanParameters,
    *,
    region: Tensor | None = None,
    field_noise: Tensor | None = None,
    magnitude: Tensor | None = None,
    csf: Tensor | None = None,
    method: str = Settings.inversion[0],
    parameters: Parameters = _NONE,
    weights: Weights = _NONE,
) -> Solution:
    """χ (ppm) inside `mask` (bool) from the `field` that is known there, `(X, Y, Z)` in ppm.

    Sources of the field may lie in `region` (bool), which holds the mask and more: where
    background removal was told that there are some. None: in the mask only. `field` is the local
    one, or the total one for a method that starts from that. `field_noise` (SD in ppm),
    `magnitude` (`(X, Y, Z)` or echoes last) and `csf` (bool, whose χ MEDI makes uniform) go to
    the methods that use them. Raises DataError, UsageError, WeightsError.
    """
    mask = as_mask(mask, field, "mask")
    known = {
        "noise": field_noise,
        "magnitude": None if magnitude is None else combined_magnitude(magnitude),
        "csf": csf,
        "region": region,
        "b0": scan.b0,
        "echo_time": scan.echo_time,
        **_inversion_network(method, weights),
    }
    data = field, mask, scan.voxel_size, scan.b0_dir
    return _call("inversion", method, parameters, *data, **known)


def _inversion_network(name: str, weights: Weights) -> dict[str, Any]:
    network = methods.get("inversion", name).network
    if network is None:
        return {}
    from qsm_nipype.models.qsmgan import load_network
    from qsm_nipype.models.registry import read_weights

    return {"generator": load_network(read_weights(network, weights.get(network)))}


def susceptibility(  # noqa: PLR0913  all that the two steps may use, each named
    total_field: Tensor,
    mask: Tensor,
    scan: ScanParameters,
    *,
    field_noise: Tensor | None = None,
    magnitude: Tensor | None = None,
    csf: Tensor | None = None,
    background: str = Settings.background,
    inversion: str = Settings.inversion[0],
    parameters: Parameters = _NONE,
    weights: Weights = _NONE,
) -> Inverted:
    """`remove_background`, then `invert`; an inversion of the total field needs no first step."""
    common: dict[str, Any] = {"field_noise": field_noise, "parameters": parameters}
    used: dict[str, Any] = {"magnitude": magnitude, "csf": csf, "weights": weights}
    field, local, region = total_field, None, mask
    if not methods.get("inversion", inversion).from_total_field:
        found = remove_background(field, mask, scan, method=background, **common)
        field, mask, local = found.field, found.mask, found.field
    solution = invert(field, mask, scan, region=region, method=inversion, **used, **common)
    return Inverted(solution.chi, mask, local)


def add_second_stage(
    first: Inverted,
    trimmed: Tensor,
    make: Callable[[Tensor], Inverted],
    scan: ScanParameters,
    *,
    threshold: float = Settings.two_stage,
    parameters: Parameters = _NONE,
) -> Tensor:
    """χ (ppm) made again without the sources above `threshold` ppm of `first`, then filled in.

    `make` is what made `first` from the mask `trimmed`: `susceptibility` with everything else
    given. With a `threshold` of 0 there is no second stage. Raises UsageError below 0.
    """
    _check_threshold(threshold)
    if threshold == 0:
        return first.chi
    own = parameters.get("two_stage.robust", {})
    kept = two_stages.without_strong_sources(
        first.chi, trimmed, scan.voxel_size, **{**own, "threshold": threshold}
    )
    robust = make(kept)
    return two_stages.join_stages(robust.chi, robust.mask, first.chi, first.mask)


def set_reference(
    chi: Tensor,
    mask: Tensor,
    *,
    kind: str = Settings.reference,
    region: Tensor | None = None,
    parameters: Parameters = _NONE,
) -> Referenced:
    """χ (ppm) less its mean over the `kind` of reference, zero outside `mask` (bool).

    `region` (bool) is the mask of "csf" or "region". Raises DataError.
    """
    try:
        return reference(
            chi, mask, kind=kind, region=region, **parameters.get(f"reference.{kind}", {})
        )
    except ValueError as exc:
        raise DataError(f"reference: {exc}; give another region, or refer to the brain") from exc


def weight_magnitude(
    magnitude: Any,
    mask: Any,
    scan: ScanParameters,
    *,
    method: str,
    parameters: Parameters = _NONE,
    **maps: Tensor,
) -> Weighted:
    """Susceptibility-weighted image of `magnitude` `(X, Y, Z, E)` and its projection in `mask`.

    `maps` are what the method needs: `phase` (wrapped, rad), `total_field` or `chi` (ppm).
    """
    brain = as_mask(mask, magnitude, "mask")
    data = _tensor(magnitude), brain, scan.voxel_size, scan.b0_dir
    return _call("swi", method, parameters, *data, echo_times=scan.echo_times, **maps)
