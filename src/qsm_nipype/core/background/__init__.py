"""Background field removal: total field → local field, one module per family."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LocalField:
    """`field` `(X, Y, Z)` in ppm, zero outside `mask`: the voxels where the method could tell."""

    field: Tensor
    mask: Tensor
    iterations: int = 0
