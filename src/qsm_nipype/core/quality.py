"""Numbers that tell how an acquisition turned out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Residual (rad) from which a voxel's field is unreliable [Bilgic2024]_.
UNRELIABLE = 0.3


def volume_numbers(
    maps: Mapping[str, np.ndarray], voxel_size: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Quality measures, name → value, unit, description, from those of the maps that there are.

    `maps` (X, Y, Z): mask and mask_chi (above ½), noise and chi (ppm), residual (rad), r2star
    (1/s); `voxel_size` in mm. Everything but the volume of the mask needs the mask.
    """
    if "mask" not in maps:
        return {}
    brain = maps["mask"] > 0.5
    litres = brain.sum() * float(np.prod(voxel_size)) / 1000
    found = {"mask_volume": _number(litres, "cm³", "volume of the brain mask")}
    for name, measure in _MEASURES.items():
        if name in maps and brain.any():
            found |= measure(maps, brain)
    return found


def reference_number(region: str, mean: float, sd: float) -> dict[str, Any]:
    """The reference region's mean relative to the brain's, and its SD, in ppm."""
    text = f"mean relative to the brain's, region: {region}"
    return _number(mean, "ppm", text) | {"sd": float(sd)}


def _number(value: float, unit: str, description: str) -> dict[str, Any]:
    return {"value": float(value), "unit": unit, "description": description}


def _kept(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    share = 100 * ((maps["mask_chi"] > 0.5) & brain).sum() / brain.sum()
    return {"mask_kept": _number(share, "%", "share of the brain mask with a susceptibility")}


def _noise(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    noise = 1000 * float(np.median(maps["noise"][brain]))
    return {"field_noise": _number(noise, "ppb", "median noise of the field")}


def _residual(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    residual = maps["residual"][brain]
    text = f"share of the brain whose residual is above {UNRELIABLE} rad"
    return {
        "residual": _number(np.median(residual), "rad", "median residual of the field fit"),
        "unreliable_fraction": _number(100 * (residual > UNRELIABLE).mean(), "%", text),
    }


def _chi(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    chi = maps["chi"][maps["mask_chi"] > 0.5 if "mask_chi" in maps else brain]
    if not chi.size:
        return {}
    low, high = np.percentile(chi, [1, 99])
    return {
        "chi_sd": _number(chi.std(), "ppm", "standard deviation of susceptibility in the mask"),
        "chi_p01": _number(low, "ppm", "1st percentile of susceptibility"),
        "chi_p99": _number(high, "ppm", "99th percentile of susceptibility"),
    }


def _r2star(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    return {"r2star": _number(np.median(maps["r2star"][brain]), "1/s", "median R2* in the brain")}


_MEASURES = {
    "mask_chi": _kept,
    "noise": _noise,
    "residual": _residual,
    "chi": _chi,
    "r2star": _r2star,
}
