"""Heads by name: the procedural one, which needs no download, and Colin27."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsm_nipype.simulation.anatomy import paint_head
from qsm_nipype.simulation.deformation import grid_points, random_deformation
from qsm_nipype.simulation.head import Head, grid_affine

Shape = tuple[int, int, int]


def procedural(
    seed: int | np.random.Generator,
    shape: Shape = (180, 220, 180),
    voxel_size: float | Sequence[float] = 1.0,
    *,
    angles: Sequence[float] = (0.0, 0.0, 0.0),
    affine: np.ndarray | None = None,
    deform: float = 1.0,
) -> Head:
    """A random head from formulas.

    `angles` (degrees about x, y, z) make an oblique slab; `affine` overrides grid and angles.
    `deform` scales the random pose and deformation; 0 is the upright average head.
    """
    rng = np.random.default_rng(seed)
    if affine is None:
        affine = grid_affine(shape, voxel_size, angles=angles)
    shape_rng, pose_rng = rng.spawn(2)
    pose = random_deformation(
        pose_rng, amplitude=2.0 * deform, scaling=0.06 * deform, rotation=8.0 * deform,
        shift=3.0 * deform,
    )  # fmt: skip
    labels, brain = paint_head(pose(grid_points(shape, affine)), shape_rng)
    return Head(labels, brain, affine)
