"""The magnitude that is weighted: echoes joined, receive sensitivity out, noise pressed down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.swi.filters import low_pass

#: How the echoes are joined.
WEIGHTINGS = ("te", "snr")
#: Tissue differs from the sensitivity by less than this share; weight of the median elsewhere.
_TISSUE, _FLOOR = 0.3, 1e-3
_SAMPLE = 300_000


def joined_echoes(magnitude: Tensor, echo_times: Sequence[float], weighting: str) -> Tensor:
    """One magnitude `(X, Y, Z)` of the echoes `(X, Y, Z, E)`; one echo stays as it is.

    `weighting` "snr" is the root of the mean square, in which an echo counts by its signal; "te"
    the mean weighted by echo time (s), which has more T2* contrast and more noise. Raises
    ValueError for another name.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting {weighting!r}: give one of {', '.join(WEIGHTINGS)}")
    if magnitude.dim() == 3 or magnitude.shape[-1] == 1:
        return magnitude.reshape(magnitude.shape[:3]).clone()
    if weighting == "snr":
        return combined_magnitude(magnitude) / math.sqrt(magnitude.shape[-1])
    times = torch.tensor([float(t) for t in echo_times]).to(magnitude)
    return magnitude @ (times / times.sum())


def receive_sensitivity(
    image: Tensor, mask: Tensor, voxel_size: Sequence[float], *, sigma: float
) -> Tensor:
    """The slow variation (`sigma` mm) of `image` `(X, Y, Z)` over the tissue in `mask` (bool).

    Twice a Gaussian mean over the mask; the second time without what differs from the first by
    more than 30 % (vessels, bleeds, cerebrospinal fluid), which is no sensitivity. Far from the
    mask it is the median of the tissue.
    """
    low = low_pass(mask, voxel_size, sigma, image)
    level = quantile(image[mask], 0.5)
    bias, tissue = torch.full_like(image, level), mask
    for _ in range(2):
        inside = tissue.to(image.dtype)
        bias = (low(image * inside) + _FLOOR * level) / (low(inside) + _FLOOR)
        bias = bias.clamp_min(1e-6 * level + 1e-30)
        tissue = mask & ((image / bias - 1).abs() < _TISSUE)
    return bias


def softplus(image: Tensor, offset: float, *, steepness: float = 2.0) -> Tensor:
    """log(1 + exp(f(x − offset)))/f less its value at 0, f = `steepness`/`offset`.

    Near the identity above `offset` and flat below it, so that noise stays dark [Eckstein2021]_.
    """
    scale = steepness / offset
    at_zero = math.log1p(math.exp(-steepness)) / scale
    return torch.nn.functional.softplus(image - offset, beta=scale, threshold=50.0) - at_zero


def quantile(values: Tensor, share: float) -> float:
    """The `share`-quantile of `values`, of a regular sample where there are very many."""
    step = max(1, values.numel() // _SAMPLE)
    return float(values.flatten()[::step].quantile(share))
