"""Background field removal: total field → local field, one module per family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LocalField:
    """`field` `(X, Y, Z)` in ppm, zero outside `mask`: where the method has one."""

    field: Tensor
    mask: Tensor
    iterations: int = 0


def finite_inside(field: Tensor, inside: Tensor) -> Tensor:
    """`field` where `inside` and finite, zero elsewhere."""
    return torch.where(inside & torch.isfinite(field), field, 0.0)
