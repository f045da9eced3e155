"""Rigid registration as a node: another image of the session in the acquisition's space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec

from qsm_nipype.core.registration import Rigid, resample, rigid
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.volume import Volume, load, save

__all__ = ["RegisterRigid", "Rigid", "register", "resample", "rigid"]


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


class _RegisterRigidInputSpec(QSMInputSpec):
    in_fixed = File(exists=True, mandatory=True, desc="image whose space is wanted")
    in_moving = File(exists=True, mandatory=True, desc="image of the same head")


class _RegisterRigidOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the moving image on the fixed one's grid")
    out_transform = File(exists=True, desc="JSON: fixed → moving matrix (RAS mm) and quality")


class RegisterRigid(QSMInterface):
    """Two images of one head → the second on the first's grid (see `core.registration`)."""

    input_spec = _RegisterRigidInputSpec
    output_spec = _RegisterRigidOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        fixed, moving = load(self.inputs.in_fixed), load(self.inputs.in_moving)
        found = register(fixed, moving, threads=self.inputs.num_threads)
        shape = fixed.data.shape[:3]
        moved = resample(moving.data, moving.affine, shape, fixed.affine, found.matrix)
        record = cwd / "transform.json"
        record.write_text(
            json.dumps(
                {
                    "matrix": found.matrix.tolist(),
                    "similarity": round(found.similarity, 4),
                    "similarity_before": round(found.before, 4),
                    "overlap": round(found.overlap, 3),
                }
            ),
            encoding="utf-8",
        )
        return {
            "out_file": save(cwd / "moved.nii", moved, fixed),
            "out_transform": str(record),
        }
