"""Referencing: susceptibility is known up to a constant, which a region of known value sets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Referenced:
    """`chi` `(X, Y, Z)` in ppm relative to the region; its mean and SD (ppm) before that."""

    chi: Tensor
    mean: float
    sd: float
    voxels: int


def reference(chi: Tensor, mask: Tensor, *, region: Tensor | None = None) -> Referenced:
    """Subtract the mean of `chi` (ppm) over `region` inside `mask`, None: the whole mask.

    Voxels outside `mask` stay zero. Raises ValueError when the region has no voxel in the mask.
    """
    inside = mask if region is None else mask & region
    values = chi[inside].double()
    if values.numel() == 0:
        raise ValueError("the reference region has no voxel inside the mask")
    mean, sd = float(values.mean()), float(values.std(correction=0))
    return Referenced(((chi - mean) * mask).to(chi.dtype), mean, sd, values.numel())
