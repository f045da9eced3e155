"""Local fields as real ones are: cut to a mask smaller than the region of their sources."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion

from qsm_nipype.simulation.signal import Scan


def cut_mask(mask: np.ndarray, voxels: int) -> np.ndarray:
    """`mask` without its outer `voxels` layers, counted through faces."""
    return binary_erosion(mask, iterations=voxels) if voxels else mask.copy()


def cut_field(scan: Scan, voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """The true local field in ppm in the cut brain mask, zero outside, and that mask.

    Its sources are those of the whole brain: erosion, trimming or a background method's layer
    took 2 to 8 voxels of the mask away, and left their field in the rest.
    """
    mask = cut_mask(scan.brain, voxels)
    return np.where(mask, scan.truth.local, 0).astype(np.float32), mask
