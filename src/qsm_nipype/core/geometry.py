"""Voxel size and the direction of B0 from an affine, grids compared, and lengths per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Edge lengths (mm) of a voxel of the `affine` (4, 4) from voxels to mm."""
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())  # type: ignore[return-value]


def voxel_axes(affine: np.ndarray) -> np.ndarray:
    """Unit vectors (3, 3) along the voxel axes in the scanner's coordinates, as columns."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def displacement(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Largest shift, in voxels of `a`, between the corners that two affines give a volume.

    `a` and `b` (4, 4) from voxels to mm, `shape` (X, Y, Z). Infinite where `a` has no inverse.
    """
    ends = [(0, max(int(n) - 1, 1)) for n in shape[:3]]
    corners = np.array([(x, y, z, 1) for x in ends[0] for y in ends[1] for z in ends[2]], float).T
    try:
        moved = np.linalg.solve(a, b @ corners) - corners
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.abs(moved[:3]).max())


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
