"""Noise that varies in space."""

from __future__ import annotations

import numpy as np

from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.scanner.space import from_middle


def g_factor(head: Head, where: np.ndarray) -> np.ndarray:
    """Noise `(X, Y, Z)` of parallel imaging: twice as high in the middle as at the rim.

    Its root mean square is 1 over `where`, so that a protocol's SNR keeps its meaning. That
    noise grows where receivers tell places apart least is [Pruessmann1999]_; its shape is assumed.
    """
    g = 1 + np.clip(1 - from_middle(head) ** 2, 0, 1)
    level = float(np.sqrt(np.mean(g[where] ** 2))) if where.any() else 1.0
    return (g / level).astype(np.float32)
