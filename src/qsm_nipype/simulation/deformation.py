"""Random smooth deformations and poses of a head, as maps of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsm_nipype.simulation.head import rotation_matrix
from qsm_nipype.simulation.shapes import Noise, smooth_noise


@dataclass(frozen=True)
class Deformation:
    """Scanner mm → head mm: shift, rotation, scaling per axis, and a smooth displacement."""

    rotation: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    displacement: Noise
    amplitude: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points `(3, …)` float32 in scanner space → the same points in head space."""
        flat = points.reshape(3, -1) - self.shift[:, None].astype(np.float32)
        flat = ((self.rotation.T / self.scale[:, None]).astype(np.float32) @ flat).reshape(
            points.shape
        )
        if self.amplitude:
            flat += np.float32(self.amplitude) * self.displacement.at(flat)
        return flat


def random_deformation(
    rng: np.random.Generator,
    *,
    amplitude: float = 2.0,
    wavelength: float = 70.0,
    size: float = 0.95,
    scaling: float = 0.06,
    rotation: float = 8.0,
    shift: float = 3.0,
) -> Deformation:
    """A pose and shape: mean size, and twice the SDs of scaling and rotation (°), shift SD (mm).

    MNI-like brains are larger than most; a mean `size` of 0.95 makes 1.5 L.
    """
    angles = np.clip(rng.normal(0, rotation / 2, 3), -2 * rotation, 2 * rotation)
    common = rng.normal(0, scaling / 2)
    scale = size * np.clip(1.0 + common + rng.normal(0, scaling / 2, 3), 0.85, 1.15)
    return Deformation(
        rotation=rotation_matrix(angles),
        scale=scale,
        shift=rng.normal(0, shift, 3),
        displacement=smooth_noise(rng, wavelength, channels=3),
        amplitude=amplitude,
    )


def grid_points(shape: Sequence[int] | np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Scanner coordinates `(3, X, Y, Z)` float32 of a grid's voxel centres."""
    index = np.indices(tuple(shape)).reshape(3, -1).astype(np.float32)
    points = affine[:3, :3].astype(np.float32) @ index + affine[:3, 3:].astype(np.float32)
    return points.reshape(3, *shape)
