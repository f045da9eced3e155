"""What zero means: susceptibility relative to a reference region."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Referenced:
    """`chi` `(X, Y, Z)` in ppm, and the reference region before its mean was subtracted.

    `mean` and `sd` are those of the region relative to the whole mask's mean (ppm), `voxels` its
    size; `subtracted` is the number (ppm) taken off the input.
    """

    chi: Tensor
    kind: str
    mean: float
    sd: float
    voxels: int
    subtracted: float


def reference(
    chi: Tensor,
    mask: Tensor,
    *,
    kind: str = "brain",
    region: Tensor | None = None,
    erosion: int = 0,
) -> Referenced:
    """`chi` `(X, Y, Z)` in ppm relative to a reference region, zero outside `mask`.

    `kind` is "brain" (the mean over `mask`), "csf" or "region" (the mean over `region`, for
    instance the lateral ventricles, within the mask, after `erosion` voxels are taken off its
    surface), or "none" (nothing is subtracted). Mean and SD of the region relative to the whole
    mask are returned in every case, as the consensus asks [QSMConsensus2024]_; for "none" they
    are the `region`'s when one is given, else the mask's. Raises ValueError for an unknown kind,
    a missing region, or one without a voxel in the mask.
    """
    if kind not in ("brain", "csf", "region", "none"):
        raise ValueError(f"unknown reference {kind!r}: brain, csf, region or none")
    mask = mask.bool()
    if not bool(mask.any()):
        raise ValueError("the mask is empty")
    where = mask
    if kind in ("csf", "region") and region is None:
        raise ValueError(f"the reference {kind!r} needs a region")
    if region is not None and kind != "brain":
        where = erode(region.bool() & mask, erosion)
        if not bool(where.any()):
            raise ValueError("the reference region has no voxel in the mask")
    values = chi[where].double()
    mean, brain = float(values.mean()), float(chi[mask].double().mean())
    subtracted = 0.0 if kind == "none" else mean
    return Referenced(
        chi=torch.where(mask, chi - subtracted, chi.new_zeros(())),
        kind=kind,
        mean=mean - brain,
        sd=float(values.std(correction=0)),
        voxels=int(where.sum()),
        subtracted=subtracted,
    )


def erode(region: Tensor, voxels: int) -> Tensor:
    """`region` without the voxels within `voxels` steps (faces) of its surface."""
    for _ in range(voxels):
        padded = torch.nn.functional.pad(region, (1,) * 6)
        inner = slice(1, -1)
        kept = region.clone()
        for axis in range(3):
            for start, stop in ((0, -2), (2, None)):
                index = [inner] * 3
                index[axis] = slice(start, stop)
                kept &= padded[tuple(index)]
        region = kept
    return region
