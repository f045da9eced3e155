"""Quality measures of an acquisition: how much of it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Residual (rad) from which a voxel's field is unreliable [Bilgic2024]_.
UNRELIABLE_RESIDUAL = 0.3
#: Share of the mask (%) below which what trimming left is reported, and below which it is refused.
WARNED_SHARE, REFUSED_SHARE = 50.0, 5.0
#: Why the field of most of a brain may not be reliable.
CAUSES = (
    "the echo times may be wrong, the readout may alternate between echoes (bipolar), or the "
    "phase may be that of another image"
)


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


def trimming(
    whole: np.ndarray, kept: np.ndarray, reliability: np.ndarray
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Quality measures of what trimming left of the brain mask `whole`, and warnings.

    `whole`, `kept` (bool) and `reliability` (0 to 1; 0.5 at 0.3 rad of residual or noise) are
    (X, Y, Z). Shares are of `whole`, for the mask that later steps see has lost its bad voxels
    already.
    """
    count = max(1, int(whole.sum()))
    share = 100 * float((kept & whole).sum()) / count
    bad = 100 * float((whole & (reliability < 0.5)).sum()) / count
    limit = f"{UNRELIABLE_RESIDUAL} rad"
    text = f"share of the untrimmed brain mask whose residual or noise is above {limit}"
    numbers = {
        "mask_reliable": _number(share, "%", "share of the brain mask that trimming left"),
        "unreliable_fraction": _number(bad, "%", text),
    }
    if share >= WARNED_SHARE:
        return numbers, ()
    return numbers, (f"trimming left only {share:.0f} % of the brain mask: {CAUSES}",)


def _number(value: float, unit: str, description: str) -> dict[str, Any]:
    return {"value": float(value), "unit": unit, "description": description}


def _kept(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    share = 100 * ((maps["mask_chi"] > 0.5) & brain).sum() / brain.sum()
    text = "share of the brain mask (without dropout) with a susceptibility"
    return {"mask_kept": _number(share, "%", text)}


def _noise(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    noise = 1000 * float(np.median(maps["noise"][brain]))
    return {"field_noise": _number(noise, "ppb", "median noise of the field")}


def _residual(maps: Mapping[str, np.ndarray], brain: np.ndarray) -> dict[str, Any]:
    residual = maps["residual"][brain]
    text = f"share of the brain whose residual is above {UNRELIABLE_RESIDUAL} rad"
    return {
        "residual": _number(np.median(residual), "rad", "median residual of the field fit"),
        "unreliable_fraction": _number(100 * (residual > UNRELIABLE_RESIDUAL).mean(), "%", text),
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
