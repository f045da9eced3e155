"""Coordinates that several effects share."""

from __future__ import annotations

import numpy as np

from qsm_nipype.simulation.head import Head


def from_middle(head: Head) -> np.ndarray:
    """Distance `(X, Y, Z)` from the brain's middle, 1 on the ellipsoid in its bounding box."""
    squared = np.zeros((1, 1, 1), np.float32)
    for axis, n in enumerate(head.brain.shape):
        hit = np.flatnonzero(head.brain.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if hit.size else (0, n - 1)
        line = (np.arange(n, dtype=np.float32) - (first + last) / 2) / max((last - first) / 2, 1)
        squared = squared + (line**2).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.sqrt(squared)
