"""Voxel size and the direction of B0 from an affine, and lengths per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Edge lengths (mm) of a voxel of the `affine` (4, 4) from voxels to mm."""
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())  # type: ignore[return-value]


def voxel_axes(affine: np.ndarray) -> np.ndarray:
    """Unit vectors (3, 3) along the voxel axes in the scanner's coordinates, as columns."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def b0_direction(affine: np.ndarray) -> tuple[float, float, float]:
    """Unit direction of the scanner's z axis along the voxel axes of `affine` (4, 4).

    Normalising the columns first is what makes it right for anisotropic oblique voxels; the
    inverse of the scaled affine is not.
    """
    direction = np.linalg.solve(voxel_axes(affine), (0.0, 0.0, 1.0))
    return tuple((direction / np.linalg.norm(direction)).tolist())  # type: ignore[return-value]


def relative_voxel_size(voxel_size: Sequence[float]) -> tuple[float, float, float]:
    """Voxel edges relative to their geometric mean, which makes gradients per voxel."""
    x, y, z = (float(v) for v in voxel_size)
    mean = (x * y * z) ** (1 / 3)
    return x / mean, y / mean, z / mean
