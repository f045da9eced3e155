"""Dipole inversion: local field → susceptibility, one module per family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """`chi` `(X, Y, Z)` in ppm, zero outside the mask, and how it was reached.

    `parameters` holds what the method chose by itself, for instance the regularisation weight
    taken from the measured noise.
    """

    chi: Tensor
    iterations: int = 0
    converged: bool = True
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
