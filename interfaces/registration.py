"""Rigid registration of volumes: another image of the session in the acquisition's space."""

from __future__ import annotations

from qsm_nipype.core.registration import Rigid, rigid
from qsm_nipype.errors import DataError
from qsm_nipype.volume import Volume


def register(fixed: Volume, moving: Volume, *, threads: int = 1) -> Rigid:
    """`rigid` between two volumes; echoes of the fixed one are combined.

    Raises DataError when the images do not agree after it, which says that they show different
    heads or that a coordinate system is wrong.
    """
    import numpy as np

    still, moved = (
        v.data if v.data.ndim == 3 else np.sqrt(np.square(v.data).sum(-1)) for v in (fixed, moving)
    )
    found = rigid(still, fixed.affine, moved, moving.affine, threads=threads)
    if not found.trusted:
        raise DataError(
            f"{moving.path}: could not be aligned with {fixed.path} (mutual information "
            f"{found.similarity:.3f}, of 1 to 2); check that both show the same head, or give it "
            "in GRE space"
        )
    return found
