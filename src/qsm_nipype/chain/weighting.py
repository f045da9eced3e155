"""Susceptibility-weighted images of a scan."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qsm_nipype.chain.choices import NONE, Parameters, call
from qsm_nipype.chain.data import ScanParameters, as_mask, tensor
from qsm_nipype.core.swi import Weighted


def weight_magnitude(
    magnitude: Any,
    mask: Any,
    scan: ScanParameters,
    *,
    method: str,
    parameters: Parameters = NONE,
    **maps: Tensor,
) -> Weighted:
    """Susceptibility-weighted image of `magnitude` `(X, Y, Z, E)` and its projection in `mask`.

    `maps` are what the method needs: `phase` (wrapped, rad), `total_field` or `chi` (ppm).
    """
    brain = as_mask(mask, magnitude, "mask")
    data = tensor(magnitude), brain, scan.voxel_size, scan.b0_dir
    return call("swi", method, parameters, *data, echo_times=scan.echo_times, **maps)
