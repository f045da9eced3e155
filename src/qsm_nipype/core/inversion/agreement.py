"""How well several inversions of one field agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def agreement(maps: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Voxel-wise mean and SD (ppm) over χ `maps` `(X, Y, Z)` in ppm; zero outside `mask`.

    Each map is first referenced to its own mean in the mask, because inversions differ by an
    arbitrary constant; the mean map keeps the average of these constants. The SD is that of
    the given methods (divided by their number). Raises ValueError for fewer than two maps.
    """
    if len(maps) < 2:
        raise ValueError("agreement needs at least two susceptibility maps")
    mask = mask.bool()
    total, square = torch.zeros_like(maps[0]), torch.zeros_like(maps[0])
    for chi in maps:
        inside = torch.where(mask, chi, chi.new_zeros(()))
        total += inside
    mean = total / len(maps)
    common = _offset(mean, mask)
    for chi in maps:
        square += (chi - _offset(chi, mask) - mean + common).square()
    spread = torch.where(mask, (square / len(maps)).sqrt(), mean.new_zeros(()))
    return mean, spread


def _offset(chi: Tensor, mask: Tensor) -> float:
    return float(chi[mask].mean()) if bool(mask.any()) else 0.0
