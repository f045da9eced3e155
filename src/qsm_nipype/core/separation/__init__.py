"""Paramagnetic and diamagnetic susceptibility apart: χ⁺ ≥ 0 and χ⁻ ≤ 0 whose sum is χ.

`rates` makes R2′ of R2* and R2, `joint` inverts field and R2′ together, `published` holds the
forms of the literature. Every method takes `(field, mask, voxel_size, b0_dir)` and what else it
needs by name, and returns `Sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

#: Relaxivity D_r (1/s per ppm) at `RELAXIVITY_B0` T of either source: R2′ = D_r(|χ⁺| + |χ⁻|).
#: 137 is what [Shin2021]_ found in nuclei in vivo; [Kim2025]_ found 114 against COSMOS.
RELAXIVITY, RELAXIVITY_B0 = 137.0, 3.0


@dataclass(frozen=True)
class Sources:
    """`paramagnetic` (≥ 0) and `diamagnetic` (≤ 0) susceptibility `(X, Y, Z)` in ppm.

    Zero outside the mask. `parameters` holds what the
    method chose by itself.
    """

    paramagnetic: Tensor
    diamagnetic: Tensor
    iterations: int = 0
    converged: bool = True
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def chi(self) -> Tensor:
        """The sum (ppm)."""
        return self.paramagnetic + self.diamagnetic


def relaxivity_at(b0: float, relaxivity: float) -> float:
    """D_r (1/s per ppm) at `b0` T of a `relaxivity` at 3 T: proportional, as static dephasing is.

    Raises ValueError for what is not above zero.
    """
    if not relaxivity > 0 or not b0 > 0:
        raise ValueError(f"relaxivity and B0 must be above 0, not {relaxivity:g} and {b0:g}")
    return relaxivity * b0 / RELAXIVITY_B0
