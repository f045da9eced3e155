"""Heads by name: the procedural one, which needs no download, and Colin27."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from qsm_nipype.simulation.anatomy import paint_head
from qsm_nipype.simulation.colin import TEMPLATES, load_colin, paint_colin
from qsm_nipype.simulation.deformation import Deformation, grid_points, random_deformation
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
    paint_rng, pose_rng = rng.spawn(2)
    points = _pose(pose_rng, deform, 0.95)(grid_points(shape, affine))
    labels, brain = paint_head(points, paint_rng)
    return Head(labels, brain, affine)


def colin(
    seed: int | np.random.Generator,
    shape: Shape = (180, 220, 180),
    voxel_size: float | Sequence[float] = 1.0,
    *,
    angles: Sequence[float] = (0.0, 0.0, 0.0),
    affine: np.ndarray | None = None,
    deform: float = 1.0,
    templates: Path = TEMPLATES,
) -> Head:
    """Colin27 deformed at random, with random veins and folds of the dentate.

    Parameters as in `procedural`. Raises DataError when the template files are absent.
    """
    rng = np.random.default_rng(seed)
    if affine is None:
        affine = grid_affine(shape, voxel_size, angles=angles)
    paint_rng, pose_rng = rng.spawn(2)
    points = _pose(pose_rng, deform, 0.95)(grid_points(shape, affine))
    labels, brain = paint_colin(points, paint_rng, load_colin(templates))
    return Head(labels, brain, affine)


def _pose(rng: np.random.Generator, deform: float, size: float) -> Deformation:
    return random_deformation(
        rng,
        amplitude=1.5 * deform,
        size=size,
        scaling=0.06 * deform,
        rotation=8.0 * deform,
        shift=3.0 * deform,
    )


#: anatomies by name
ANATOMIES = MappingProxyType({"procedural": procedural, "colin": colin})
