"""A brain made of a T1-weighted template without skull, such as CIT168's [Pauli2018]_.

Fluid, grey and white matter by intensity; nuclei are painted by `simulation.deep_grey`, veins and
the dentate nuclei drawn at their MNI places. Around the brain there is muscle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage as ndi

from qsm_nipype.errors import DataError
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.colin import Sampled
from qsm_nipype.simulation.nuclei import paint_midbrain_and_dentate
from qsm_nipype.simulation.shapes import largest_part
from qsm_nipype.simulation.vessels import paint_vessels

#: Intensities of CIT168's template that part fluid from grey and grey from white matter.
FLUID_BELOW, WHITE_ABOVE = 95.0, 168.0
_TISSUE = (lab.CSF, lab.GREY_MATTER, lab.WHITE_MATTER)


@dataclass(frozen=True)
class Template:
    """T1 intensity, and signed distances to the brain's hull and to fluid deep in it."""

    t1: Sampled
    hull: Sampled
    ventricle: Sampled


@lru_cache(maxsize=1)
def load_template(folder: Path) -> Template:
    """CIT168's T1w brain. Raises DataError where the file is absent."""
    path = folder / "CIT168_CIT168toMNI152-2009c_T1w_brain.nii.gz"
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give the folder of the CIT168 subcortical atlas (CC BY 4.0)"
        )
    image: Any = nib.load(path)
    t1 = np.asarray(image.dataobj).astype(np.float32)
    seen = ndi.distance_transform_edt(~np.pad(t1 > 20, 8)) <= 5
    filled = ndi.binary_fill_holes(seen)
    brain = largest_part(ndi.distance_transform_edt(filled) > 5)
    hull = ndi.distance_transform_edt(~brain) - ndi.distance_transform_edt(brain)
    t1 = np.pad(t1, 8)
    fluid = (t1 < FLUID_BELOW) & (hull < -18)
    parts, _ = ndi.label(fluid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = np.isin(parts, np.flatnonzero(sizes > 400))
    ventricle = ndi.distance_transform_edt(~large) - ndi.distance_transform_edt(large)
    affine = np.asarray(image.affine, dtype=float).copy()
    affine[:3, 3] -= 8 * affine[:3, :3] @ np.ones(3)
    return Template(
        *(Sampled(v.astype(np.float32), affine) for v in (t1, hull, ventricle)),
    )


def paint_template(
    points: np.ndarray, rng: np.random.Generator, template: Template
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and brain mask of the template at `points` `(3, X, Y, Z)` in MNI mm."""
    fluid, white = FLUID_BELOW + rng.uniform(-12, 12), WHITE_ABOVE + rng.uniform(-6, 6)
    t1, hull = template.t1.at(points), template.hull.at(points)
    classes = (t1 >= fluid).astype(np.uint8) + (t1 >= white)
    labels = np.where(hull < 0, np.asarray(_TISSUE, dtype=np.uint8)[classes], lab.MUSCLE)
    labels = labels.astype(np.uint8)
    brain = (hull < 0) & (points[2] > -71)
    nuclei, veins = rng.spawn(2)
    paint_midbrain_and_dentate(labels, points, nuclei)
    paint_vessels(labels, points, template.hull.at, template.ventricle.at, veins)
    brain &= ~((labels == lab.VEIN) & (hull > -4))
    return labels, largest_part(brain)
