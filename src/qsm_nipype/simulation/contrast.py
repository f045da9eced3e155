"""T1-weighted and FLAIR images of the same head, as at 3 T."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.tissue import Tissue


def t1w(head: Head, tissue: Tissue, rng: np.random.Generator, *, snr: float = 40.0) -> np.ndarray:
    """MPRAGE-like image `(X, Y, Z)`: inversion 0.9 s before a fast gradient-echo readout.

    The inversion turns 0.85 of the magnetisation.
    """
    turned, inversion, repetition = 0.85, 0.9, 2.3
    recovery = 1 - (1 + turned) * np.exp(-inversion * tissue.r1)
    recovery += turned * np.exp(-repetition * tissue.r1)
    return _finish(head, np.abs(tissue.m0 * recovery) * np.exp(-0.003 * tissue.r2star), rng, snr)


def flair(
    head: Head, tissue: Tissue, rng: np.random.Generator, *, snr: float = 40.0
) -> np.ndarray:
    """FLAIR image `(X, Y, Z)`: inversion nulls the fluid, long echo brightens lesions."""
    inversion, repetition, echo = 2.45, 9.0, 0.12
    recovery = 1 - 2 * np.exp(-inversion * tissue.r1) + np.exp(-repetition * tissue.r1)
    return _finish(head, np.abs(tissue.m0 * recovery) * np.exp(-echo * tissue.r2), rng, snr)


def _finish(head: Head, image: np.ndarray, rng: np.random.Generator, snr: float) -> np.ndarray:
    """Receive bias, Rician noise at `snr` of white matter."""
    white = head.labels == lab.WHITE_MATTER
    level = float(image[white].mean()) if white.any() else float(image.max())
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    a, b, c, d, e, f = 0.12 * rng.normal(size=6)
    bias = np.exp(
        (a * x + d * x**2)[:, None, None] + (b * y + e * y**2)[:, None] + (c * z + f * z**2)
    )
    image = gaussian_filter(image * bias, 0.3)
    real = image + level / snr * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = level / snr * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, imaginary).astype(np.float32)
