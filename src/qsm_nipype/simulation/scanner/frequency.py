"""White matter's own frequency: anisotropic susceptibility, and what no dipole makes."""

from __future__ import annotations

import numpy as np
import torch

from qsm_nipype.core.fourier import fast_length, frequencies, irfft
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.shapes import smooth_noise

#: χ∥ − χ⊥ of white matter in ppm: 0.0136 to 0.0192 by a torque balance [VanGelderen2015]_
ANISOTROPY = 0.015
#: SD in ppm of the frequency of microstructure, which is larger than that of anisotropy
#: [Wharton2015]_ (amount assumed): fibres across B0 precess 10 ppb below those along it
MICROSTRUCTURE = 0.003


def fibres(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Smooth random unit vectors `(3, X, Y, Z)` in scanner space; zero outside white matter."""
    points = grid_points(head.labels.shape, head.affine)  # type: ignore[arg-type]
    vectors = smooth_noise(rng, 50.0, channels=3).at(points)
    vectors += 0.4 * smooth_noise(rng, 20.0, channels=3).at(points)
    length = np.sqrt((vectors**2).sum(0))
    white = head.brain & (head.labels == lab.WHITE_MATTER)
    return np.where(white, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


def anisotropic_field(
    head: Head, direction: np.ndarray, *, difference: float = ANISOTROPY
) -> np.ndarray:
    """Field in ppm of the traceless tensor Δχ (e eᵀ − 1/3), e = `direction` [Liu2010]_.

    F[δB] = b·F[χb]/3 − (k·b) k·F[χb]/k²; the mean susceptibility stays that of `Tissue.chi`.
    """
    axes = head.affine[:3, :3] / np.linalg.norm(head.affine[:3, :3], axis=0)
    b = torch.tensor(head.b0_dir, dtype=torch.float32)
    there = (direction != 0).any(axis=0)
    along = torch.from_numpy(direction[2])  # e·b: B0 is the scanner's z axis
    shape = [fast_length(round(1.2 * n)) for n in along.shape]
    k = frequencies(shape, head.voxel_size, along)
    straight, dotted = torch.zeros(()), torch.zeros(())
    for axis in range(3):
        own = torch.from_numpy(np.tensordot(axes[:, axis].astype(np.float32), direction, 1))
        source = difference * (own * along - b[axis] / 3 * torch.from_numpy(there))
        spectrum = torch.fft.rfftn(source, s=shape)
        straight = straight + b[axis] / 3 * spectrum
        dotted = dotted + k[axis] * spectrum
    k2 = (k[0] ** 2 + k[1] ** 2 + k[2] ** 2).clamp_min(1e-12)
    straight = straight - (k[0] * b[0] + k[1] * b[1] + k[2] * b[2]) / k2 * dotted
    x, y, z = along.shape
    return irfft(straight, shape)[:x, :y, :z].numpy()


def microstructure(direction: np.ndarray, *, spread: float = MICROSTRUCTURE) -> np.ndarray:
    """Frequency −c sin²θ in ppm of fibres at θ to B0, of SD `spread` in white matter, mean zero.

    The mean is left out: white matter's susceptibility is taken from maps that hold it already.
    """
    there = (direction != 0).any(axis=0)
    if not there.any():
        return np.zeros(there.shape, np.float32)
    across = 1 - direction[2][there] ** 2
    across -= across.mean()
    found = np.zeros(there.shape, np.float32)
    found[there] = -spread / max(float(across.std()), 1e-6) * across
    return found
