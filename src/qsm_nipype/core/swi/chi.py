"""Susceptibility-weighted imaging by χ instead of phase: no dipole beside a vein is dark.

One mask, two published sets of thresholds: true SWI and susceptibility map-weighted imaging.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from qsm_nipype.core.swi.magnitude import joined_echoes
from qsm_nipype.core.swi.result import Weighted, weighted


def true_swi(  # noqa: PLR0913  what is measured, and the mask's parameters
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    chi: Tensor,
    echo_times: Sequence[float],
    lower: float = 0.0,
    upper: float = 0.45,
    power: int = 2,
    weighting: str = "te",
    thickness: float = 8.0,
) -> Weighted:
    """True susceptibility-weighted image [Liu2014]_.

    `magnitude` `(X, Y, Z, E)`, `chi` (ppm) `(X, Y, Z)`, `mask` of the brain (bool). The mask is 1
    below `lower` ppm, 0 above `upper` and straight between, and multiplies the magnitude `power`
    times. `weighting` and `thickness` (mm): see `joined_echoes` and `minimum_projection`. Raises
    ValueError unless `upper` is above `lower`.
    """
    weight = susceptibility_mask(chi, lower, upper) ** power
    image = joined_echoes(magnitude, echo_times, weighting)
    return weighted(image, weight, mask, voxel_size, b0_dir, thickness)


def smwi(  # noqa: PLR0913  what is measured, and the mask's parameters
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    chi: Tensor,
    echo_times: Sequence[float],
    threshold: float = 1.0,
    power: int = 4,
    weighting: str = "snr",
    thickness: float = 8.0,
) -> Weighted:
    """Paramagnetic susceptibility map-weighted image [Gho2014]_ [Nam2017]_.

    As `true_swi` between 0 and `threshold` ppm, multiplied `power` times: iron and deoxygenated
    blood are dark, calcium is not.
    """
    weight = susceptibility_mask(chi, 0.0, threshold) ** power
    image = joined_echoes(magnitude, echo_times, weighting)
    return weighted(image, weight, mask, voxel_size, b0_dir, thickness)


def smwi_diamagnetic(  # noqa: PLR0913  what is measured, and the mask's parameters
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    chi: Tensor,
    echo_times: Sequence[float],
    threshold: float = 1.0,
    power: int = 4,
    weighting: str = "snr",
    thickness: float = 8.0,
) -> Weighted:
    """Diamagnetic susceptibility map-weighted image [Gho2014]_: `smwi` of −χ.

    The mask darkens calcium and myelin, and neither iron nor blood.
    """
    return smwi(
        magnitude,
        mask,
        voxel_size,
        b0_dir,
        chi=-chi,
        echo_times=echo_times,
        threshold=threshold,
        power=power,
        weighting=weighting,
        thickness=thickness,
    )


def susceptibility_mask(chi: Tensor, lower: float, upper: float) -> Tensor:
    """1 where `chi` (ppm) is below `lower`, 0 above `upper`, straight between."""
    if not upper > lower:
        raise ValueError(f"the upper threshold {upper:g} ppm must be above the lower {lower:g}")
    return ((upper - chi) / (upper - lower)).clamp(0, 1)
