"""What every head is: a label map with a brain mask in scanner space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qsm_nipype.core.geometry import b0_direction, voxel_size


@dataclass(frozen=True)
class Head:
    """`labels` `(X, Y, Z)` uint8, `brain` bool of the same shape, `affine` voxel → scanner mm.

    `brain` includes ventricles and sulci: the mask a perfect brain extraction gives. Pathologies
    add `chi_offset` (ppm on top of the label's susceptibility) and `instances` (1, 2 … per
    finding), both `(X, Y, Z)`.
    """

    labels: np.ndarray
    brain: np.ndarray
    affine: np.ndarray
    chi_offset: np.ndarray | None = None
    instances: np.ndarray | None = None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm."""
        return voxel_size(self.affine)

    @property
    def b0_dir(self) -> tuple[float, float, float]:
        """Unit direction of the scanner's z axis along the voxel axes."""
        return b0_direction(self.affine)


def grid_affine(
    shape: ArrayLike,
    voxel_size: ArrayLike,
    *,
    angles: ArrayLike = (0.0, 0.0, 0.0),
    center: ArrayLike = (0.0, -12.0, 5.0),
) -> np.ndarray:
    """Affine of a grid of `shape` whose middle lies at `center` (mm, scanner), turned by `angles`.

    `angles` in degrees about x, y and z: an oblique slab.
    """
    step = np.broadcast_to(np.asarray(voxel_size, dtype=float), 3)
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(angles) * step
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def rotation_matrix(angles: ArrayLike) -> np.ndarray:
    """Rz·Ry·Rx for `angles` in degrees about x, y and z."""
    a, b, c = np.deg2rad(angles)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx
