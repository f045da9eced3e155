"""The transmit field, and poles in the phase of the combined receivers."""

from __future__ import annotations

import numpy as np
import torch

from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.scanner.space import from_middle


def transmit_field(head: Head, b0: float, rng: np.random.Generator) -> np.ndarray:
    """Flip angle `(X, Y, Z)` over the nominal one: ±15 % at 3 T, ±35 % at 7 T.

    High in the middle, low at the rim, with a random slope; mean about 1 in the brain. Measured:
    23 % at 4 T and 42 % at 7 T [Vaughan2001]_.
    """
    r = from_middle(head)
    lines = [np.linspace(-1, 1, n, dtype=np.float32) for n in r.shape]
    a, b, c = 0.3 * rng.normal(size=3)
    slope = a * lines[0][:, None, None] + b * lines[1][:, None] + c * lines[2]
    return np.clip(1 + 0.05 * b0 * (1 - 1.7 * r**2 + slope), 0.2, 1.6).astype(np.float32)


def poles(head: Head, rng: np.random.Generator, *, width: float = 5.0) -> torch.Tensor:
    """Factor `(X, Y, Z)` with a phase pole inside the brain, its opposite outside.

    Receivers summed without knowing their phases cancel along lines around which the phase turns
    once; between the two lines runs a fringe line that ends at them [Robinson2017]_. The
    magnitude falls to zero within `width` mm of a line.
    """
    shape, step = head.labels.shape, head.voxel_size
    half = [n * s / 2 for n, s in zip(shape, step, strict=True)]
    at = [np.linspace(-h, h, n, dtype=np.float32) for h, n in zip(half, shape, strict=True)]
    angle = rng.uniform(0, 2 * np.pi)
    place = np.array([np.cos(angle) * half[0], np.sin(angle) * half[1]])
    lean = rng.normal(0, 0.25, 2)
    factor = np.ones(shape, np.complex64)
    for reach, sign in ((0.5, 1), (1.05, -1)):
        u = at[0][:, None, None] - reach * place[0] - lean[0] * at[2]
        v = at[1][:, None] - reach * place[1] - lean[1] * at[2]
        factor *= (u + 1j * sign * v) / np.sqrt(u**2 + v**2 + width**2)
    return torch.from_numpy(factor)
