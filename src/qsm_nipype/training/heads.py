"""Head anatomies from which the mask network's training images are made, kept in a cache.

An anatomy is what does not change from image to image: labels, distance to the brain's surface,
steepness of the field, and for Colin27 the real T1-weighted image. Everything else (contrast,
pose, noise, field of view) is drawn anew at every training step by `synthesis`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from qsm_nipype.training.cache import fill_cache

#: Box of the anatomies, mm, from the top of the head to the neck, and its middle in the scanner.
BOX = (192.0, 240.0, 216.0)
CENTRE = (0.0, -12.0, -8.0)
#: Distances are kept up to this many mm from the surface, in tenths of a mm.
DISTANCE_LIMIT = 12.7


@dataclass(frozen=True)
class Anatomy:
    """A head in the box `BOX` around `CENTRE`: arrays `(X, Y, Z)` of voxels of `voxel` mm.

    `labels` (uint8, `qsm_nipype.simulation.labels`), `distance` to the surface of the brain
    (int8, tenths of mm, negative inside), `slope` |∇B| (float16, ppm per mm), `t1` the image of
    Colin27 (uint8; zero in a procedural head).
    """

    labels: np.ndarray
    distance: np.ndarray
    slope: np.ndarray
    t1: np.ndarray
    voxel: float

    @classmethod
    def load(cls, path: Path) -> Anatomy:
        """Read one `anatomy-*.npz`."""
        with np.load(path) as data:
            arrays = {name: data[name] for name in ("labels", "distance", "slope", "t1")}
            return cls(**arrays, voxel=float(data["voxel"]))


def procedural_anatomy(rng: np.random.Generator, voxel: float) -> Anatomy:
    """A random head from formulas, often with bleeds, calcifications and lesions."""
    from qsm_nipype.simulation.anatomy import paint_head

    return _anatomy(rng, voxel, lambda points: (*paint_head(points, rng), None))


def colin_anatomy(rng: np.random.Generator, voxel: float, folder: Path) -> Anatomy:
    """Colin27 in a random shape, with its T1-weighted image in the same shape."""
    from qsm_nipype.simulation.colin import load_colin, paint_colin

    colin = load_colin(folder)
    return _anatomy(
        rng, voxel, lambda points: (*paint_colin(points, rng, colin), colin.t1.at(points))
    )


def _anatomy(
    rng: np.random.Generator, voxel: float, paint: Callable[[np.ndarray], tuple]
) -> Anatomy:
    from qsm_nipype.simulation.deformation import grid_points, random_deformation
    from qsm_nipype.simulation.head import Head, grid_affine
    from qsm_nipype.simulation.pathology import haemorrhage, random_pathology
    from qsm_nipype.simulation.signal import fields
    from qsm_nipype.simulation.tissue import random_contrast, tissue_maps

    shape = tuple(round(edge / voxel) for edge in BOX)
    affine = grid_affine(shape, voxel, center=CENTRE)
    pose = random_deformation(rng, amplitude=2.0, rotation=0.0, shift=0.0, scaling=0.04)
    points = pose(grid_points(shape, affine))
    labels, brain, t1 = paint(points)
    head = Head(labels, brain, affine)
    if rng.random() < 0.5:
        head, _ = haemorrhage(head, rng)
    head, _ = random_pathology(head, rng)
    tissue = tissue_maps(head, rng, contrast=random_contrast(rng))
    total = fields(head, tissue.chi).total
    slope = np.sqrt(sum(g**2 for g in np.gradient(total, voxel)))
    brain = ndimage.binary_fill_holes(brain)
    distance = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
    tenths = np.clip(10 * voxel * distance, -10 * DISTANCE_LIMIT, 10 * DISTANCE_LIMIT)
    if t1 is None:
        t1 = np.zeros(shape)
    return Anatomy(
        head.labels,
        np.rint(tenths).astype(np.int8),
        np.minimum(slope, 60).astype(np.float16),
        np.clip(t1, 0, 255).astype(np.uint8),
        voxel,
    )


def make_cache(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    voxel: float = 1.5,
    templates: Path | None = None,
    workers: int = 0,
) -> list[Path]:
    """Simulate `count` anatomies into `folder` (those already there are kept).

    Every third is Colin27 where `templates` holds it; the others are procedural heads.
    """
    if templates is not None:
        from qsm_nipype.simulation.colin import load_colin

        load_colin(templates)  # once, for all workers

    def make(number: int) -> dict[str, Any]:
        rng = np.random.default_rng([seed, number])
        if templates is not None and number % 3 == 0:
            return vars(colin_anatomy(rng, voxel, templates))
        return vars(procedural_anatomy(rng, voxel))

    made_with = {"seed": seed, "voxel": voxel, "colin27": templates is not None}
    return fill_cache(folder, "anatomy", count, make, made_with=made_with, workers=workers)
