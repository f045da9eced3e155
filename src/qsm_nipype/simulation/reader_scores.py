"""Scores of a susceptibility map that see what its reader sees, by any mask and outside the brain.

A score inside the map's own mask rewards a mask that leaves the difficult part out, and one that
counts brain voxels only forgives whatever a mask holds beside the brain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import frequencies
from qsm_nipype.simulation import labels as lab

#: tissues whose error is told apart
TISSUES = MappingProxyType(
    {"cortex": (lab.GREY_MATTER,), "white": (lab.WHITE_MATTER,), "veins": (lab.VEIN,),
     "csf": (lab.CSF,)} | {lab.LABELS[n][0]: (n,) for n in lab.NUCLEI}
)  # fmt: skip
#: mm below the edge of the map's mask
DEPTHS = (0.0, 3.0, 6.0, 12.0)
#: ppm that no healthy tissue beside the brain has
STRONG = 0.3


def referenced(
    chi: np.ndarray, truth: np.ndarray, mask: np.ndarray, brain: np.ndarray
) -> np.ndarray:
    """`chi` with the mean of `truth` in `mask` ∩ `brain`, zero outside `mask`.

    The reference of χ is arbitrary; this is the one that costs least.
    """
    both = mask & brain
    shift = float(truth[both].mean() - chi[both].mean()) if both.any() else 0.0
    return np.where(mask, chi + shift, 0.0)


def fixed_nrmse(chi: np.ndarray, truth: np.ndarray, mask: np.ndarray, brain: np.ndarray) -> float:
    """‖χ − truth‖/‖truth‖ in % over every voxel of `brain`, the same for every mask.

    Voxels of the brain outside `mask` have χ = 0, and so the error of saying nothing.
    """
    off = (referenced(chi, truth, mask, brain) - truth)[brain]
    return 100 * float(np.linalg.norm(off) / np.linalg.norm(truth[brain]))


def beside_brain(
    chi: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    labels: np.ndarray,
    voxel_size: Sequence[float],
) -> dict[str, float]:
    """What a map shows outside brain and fluid: mL of it, mL beyond 0.3 ppm, SD in ppb."""
    there = mask & ~brain & (labels != lab.CSF)
    litre = float(np.prod(voxel_size)) / 1000
    strong = int((np.abs(chi[there]) > STRONG).sum())
    spread = 1000 * float(chi[there].std()) if there.any() else 0.0
    return {"ml": litre * int(there.sum()), "ml_strong": litre * strong, "sd_ppb": spread}


def by_tissue(
    chi: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    labels: np.ndarray,
) -> dict[str, float]:
    """Root-mean-square error in ppb of every tissue in the brain; voxels without χ count as 0."""
    off = referenced(chi, truth, mask, brain) - truth
    errors = {}
    for name, which in TISSUES.items():
        here = brain & np.isin(labels, which)
        if here.any():
            errors[name] = 1000 * float(np.sqrt(np.mean(off[here] ** 2)))
    return errors


def by_depth(
    chi: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    voxel_size: Sequence[float],
) -> dict[str, float]:
    """NRMSE in % of shells of `mask` ∩ `brain`, by depth in mm below the edge of `mask`."""
    depth = distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    both, errors = mask & brain, {}
    off = referenced(chi, truth, mask, brain) - truth
    for low, high in zip(DEPTHS, (*DEPTHS[1:], np.inf), strict=True):
        shell = both & (depth > low) & (depth <= high)
        if shell.any():
            name = f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}-"
            errors[name] = 100 * float(np.linalg.norm(off[shell]) / np.linalg.norm(truth[shell]))
    return errors


def nuclei_line(
    chi: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    labels: np.ndarray,
) -> dict[str, float]:
    """Slope and intercept (ppm) of the nuclei's mean χ against their true means."""
    ours = referenced(chi, truth, mask, brain)
    pairs = [
        (float(truth[here].mean()), float(ours[here].mean()))
        for here in (brain & (labels == n) for n in lab.NUCLEI)
        if here.any()
    ]
    if len(pairs) < 2:
        return {"slope": float("nan"), "intercept": float("nan")}
    true, found = np.array(pairs).T
    slope, intercept = np.polyfit(true, found, 1)
    return {"slope": float(slope), "intercept": float(intercept)}


def streaks(
    chi: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
) -> float:
    """Power of `chi` at the cone D(k) = 0, over that of its neighbourhood.

    Above 1 there are streaks, below 1 the cone was emptied; both at once may pass for neither.

    Median over shells of |k| (0.05 to 0.4 of the sampling rate) of the mean power where
    |D| < 0.04, over that where 0.1 < |D| < 0.2. It needs no truth.
    """
    inside = np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32)
    volume = torch.from_numpy(inside)
    power = torch.fft.rfftn(volume).abs().square()
    kernel = dipole_kernel(volume.shape, voxel_size, b0_dir, volume).abs()
    k = frequencies(volume.shape, [1.0, 1.0, 1.0], volume)
    radius = (k[0] ** 2 + k[1] ** 2 + k[2] ** 2).sqrt()
    ratios = []
    for low in np.arange(0.05, 0.4, 0.05):
        shell = (radius >= low) & (radius < low + 0.05)
        cone, near = shell & (kernel < 0.04), shell & (kernel > 0.1) & (kernel < 0.2)
        if cone.any() and near.any():
            ratios.append(float(power[cone].mean() / power[near].mean().clamp_min(1e-30)))
    return float(np.median(ratios))


def reader_scores(
    chi: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    labels: np.ndarray,
    *,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
) -> Mapping[str, float]:
    """Every score of this module for one map, by name ("fixed_nrmse", "outside.ml_strong" …).

    `chi` and `truth` `(X, Y, Z)` in ppm, `truth` without mean over `brain`.
    """
    chi, truth = chi.astype(np.float64), truth.astype(np.float64)
    parts = {
        "outside": beside_brain(chi, mask, brain, labels, voxel_size),
        "tissue": by_tissue(chi, truth, mask, brain, labels),
        "depth": by_depth(chi, truth, mask, brain, voxel_size),
        "nuclei": nuclei_line(chi, truth, mask, brain, labels),
    }
    flat = {f"{part}.{name}": v for part, values in parts.items() for name, v in values.items()}
    kept = float((mask & brain).sum() / max(int(brain.sum()), 1))
    return {
        "fixed_nrmse": fixed_nrmse(chi, truth, mask, brain),
        "kept": 100 * kept,
        "streaks": streaks(chi, mask, voxel_size, b0_dir),
        **flat,
    }
