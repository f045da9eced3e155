"""Masks of the brain: made, edited, and trimmed to where the field is reliable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsm_nipype import methods
from qsm_nipype.chain.choices import NONE, Parameters, Weights, call
from qsm_nipype.chain.data import ScanParameters
from qsm_nipype.core import quality as quality_measures
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.mask_language import parse_masks
from qsm_nipype.core.masking import apply_operations, small_cause
from qsm_nipype.errors import DataError
from qsm_nipype.settings import Settings


def make_mask(
    magnitude: Tensor,
    quality: Tensor,
    scan: ScanParameters,
    *,
    method: str = Settings.mask,
    parameters: Parameters = NONE,
    weights: Weights = NONE,
) -> Tensor:
    """The intersection of the masks that `method` names, each after its own operations → bool.

    `magnitude` `(X, Y, Z)` or `(X, Y, Z, E)`, `quality` of the phase `(X, Y, Z)` from 0 to 1.
    Raises UsageError for unknown names, DataError for an empty mask, WeightsError.
    """
    image = combined_magnitude(magnitude)
    mask = torch.ones_like(image, dtype=torch.bool)
    for part in parse_masks(method):
        if methods.get("mask", part.name).network is None:
            found = call("mask", part.name, parameters, image, scan.voxel_size, quality=quality)
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
    found = call("mask", name, parameters, image.permute(order).contiguous(), edges, **known)
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
    parameters: Parameters = NONE,
) -> tuple[Tensor, tuple[str, ...]]:
    """The part of `mask` (bool) whose field is reliable, and warnings where that is little.

    Raises DataError where that is hardly any.
    """
    found = {"reliability": fitted.reliability, "field": fitted.field}
    kept = call("trim", method, parameters, mask, scan.voxel_size, **found)
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
