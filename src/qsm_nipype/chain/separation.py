"""Both kinds of sources apart, and what stands out on a map: in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qsm_nipype.chain.choices import NONE, Parameters, call
from qsm_nipype.chain.data import ScanParameters, as_mask, tensor
from qsm_nipype.core.separation import Sources


def separate_sources(
    local_field: Any,
    mask: Any,
    scan: ScanParameters,
    *,
    method: str,
    parameters: Parameters = NONE,
    **maps: Tensor,
) -> Sources:
    """χ⁺ and χ⁻ (ppm) from the `local_field` `(X, Y, Z)` in ppm where `mask` holds.

    `maps` are what the method takes: `r2prime` or `r2star` (1/s), `chi` and `noise` (ppm),
    `magnitude` with echoes combined.
    """
    inside = as_mask(mask, local_field, "mask")
    data = tensor(local_field), inside, scan.voxel_size, scan.b0_dir
    return call("separation", method, parameters, *data, b0=scan.b0, **maps)


def find_vessels(
    chi: Any, mask: Any, scan: ScanParameters, *, method: str, parameters: Parameters = NONE
) -> Any:
    """`Veins` or `Spots` of a susceptibility map `chi` `(X, Y, Z)` in ppm, by the `method`."""
    inside = as_mask(mask, chi, "mask")
    return call("vessels", method, parameters, tensor(chi), inside, scan.voxel_size, scan.b0_dir)
