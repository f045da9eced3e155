"""From the total field to susceptibility with its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qsm_nipype import methods
from qsm_nipype.chain.choices import NONE, Parameters, Weights, call, check_threshold
from qsm_nipype.chain.data import ScanParameters, as_mask
from qsm_nipype.core import two_stage as two_stages
from qsm_nipype.core.background import LocalField
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.reference import Referenced, reference
from qsm_nipype.errors import DataError
from qsm_nipype.settings import Settings


@dataclass(frozen=True)
class Inverted:
    """`chi` (ppm) before referencing, known where `mask`; the `local_field` (ppm) it comes from.

    All are `(X, Y, Z)`; `local_field` is None for methods that start from the total field.
    """

    chi: Tensor
    mask: Tensor
    local_field: Tensor | None = None


def remove_background(
    total_field: Tensor,
    mask: Tensor,
    scan: ScanParameters,
    *,
    field_noise: Tensor | None = None,
    method: str = Settings.background,
    parameters: Parameters = NONE,
) -> LocalField:
    """The field (ppm) of the sources inside `mask` (bool), and where the method knows it.

    `total_field` and its SD `field_noise` are `(X, Y, Z)` in ppm. Raises DataError, UsageError.
    """
    mask = as_mask(mask, total_field, "mask")
    data = total_field, mask, scan.voxel_size, scan.b0_dir
    return call("background", method, parameters, *data, noise=field_noise)


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
    parameters: Parameters = NONE,
    weights: Weights = NONE,
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
    return call("inversion", method, parameters, *data, **known)


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
    parameters: Parameters = NONE,
    weights: Weights = NONE,
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
    parameters: Parameters = NONE,
) -> Tensor:
    """χ (ppm) made again without the sources above `threshold` ppm of `first`, then filled in.

    `make` is what made `first` from the mask `trimmed`: `susceptibility` with everything else
    given. With a `threshold` of 0 there is no second stage. Raises UsageError below 0.
    """
    check_threshold(threshold)
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
    parameters: Parameters = NONE,
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
