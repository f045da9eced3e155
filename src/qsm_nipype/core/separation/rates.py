"""R2′, the part of the decay that a spin echo brings back: R2* less R2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.core.signal_noise import noise_level

#: Share of R2* that is R2′ where R2 was not measured, between that of white matter and that of the
#: pallidum at 3 T.
REVERSIBLE_SHARE = 0.45
#: Least noise of R2′ (1/s): no measured rate is better known.
LEAST_NOISE = 0.5


@dataclass(frozen=True)
class Reversible:
    """`rate` R2′ `(X, Y, Z)` in 1/s, none below zero; its `noise` (SD, 1/s) and what was cut.

    `negative` is the share of the mask's voxels where R2 was above R2*.
    """

    rate: Tensor
    noise: float
    negative: float


def reversible(r2star: Tensor, mask: Tensor, *, r2: Tensor) -> Reversible:
    """R2′ = R2* − R2 in the `mask`, zero where noise makes it negative and outside. All in 1/s."""
    inside = mask.bool() & torch.isfinite(r2) & torch.isfinite(r2star)
    found = torch.where(inside, r2star - r2, 0.0)
    count = max(1, int(inside.sum()))
    return Reversible(
        found.clamp_min(0), rate_noise(found, inside), float((found < 0).sum()) / count
    )


def assumed_reversible(
    r2star: Tensor, mask: Tensor, *, share: float = REVERSIBLE_SHARE
) -> Reversible:
    """R2′ from gradient echoes alone: everywhere the same `share` of R2* (1/s) is reversible.

    In truth the share is 0.3 in white matter, 0.6 in the pallidum, and other in oedema, lesions
    and fluid.
    """
    return reversible(r2star, mask, r2=(1 - share) * r2star)


def rate_noise(rate: Tensor, mask: Tensor) -> float:
    """SD (1/s) of the noise of a `rate` from neighbours in the `mask`; at least 0.5."""
    values = torch.where(torch.isfinite(rate), rate, 0.0)
    return max(noise_level(values, mask.bool()), LEAST_NOISE)
