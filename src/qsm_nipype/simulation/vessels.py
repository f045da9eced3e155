"""Dural sinuses and random veins of the procedural head."""

from __future__ import annotations

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.shapes import chain

#: tissues a vein may run through
_SOFT = (*lab.NUCLEI, lab.WHITE_MATTER, lab.GREY_MATTER, lab.CSF, lab.CHOROID_PLEXUS)


def paint_vessels(
    labels: np.ndarray,
    p: np.ndarray,
    hull: np.ndarray,
    ventricle: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Write the sagittal, straight and transverse sinuses, deep veins and a random tree."""
    _paint_sinuses(labels, p, hull)
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    internal = [(2.2, 2, 10, 0.9), (2.2, -12, 14, 1.0), (1.5, -26, 13, 1.3), (0, -38, 8, 1.8)]
    basal = [(20, -8, -14, 0.8), (17, -22, -12, 1.0), (10, -34, -3, 1.2), (0, -39, 5, 1.6)]
    septal = [(6, 24, 6, 0.6), (2.5, 4, 10, 0.8)]
    thalamostriate = [(19, -14, 19, 0.6), (12, -2, 16, 0.8), (3, 2, 11, 0.9)]
    for vein in (internal, basal, septal, thalamostriate):
        _stamp(labels, chain(m, vein))
    for _ in range(int(rng.integers(50, 90))):
        _paint_random_vein(labels, p, hull, ventricle, rng)


def _paint_sinuses(labels: np.ndarray, p: np.ndarray, hull: np.ndarray) -> None:
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    dura = labels == lab.CSF
    top = (p[2] > -8) & (p[1] < 62) & ~((p[1] > -40) & (p[2] < 20))
    sagittal = np.maximum(np.abs(p[0]) - 4.0, np.abs(hull - 0.2) - 2.6)
    labels[(sagittal < 0) & top & (dura | (np.abs(p[0]) < 3)) & (hull > -3.5)] = lab.VEIN
    straight = chain(p, [(0, -39, 6, 2.2), (0, -62, -2, 2.4), (0, -96, -8, 3.4)])
    labels[(straight < 0)] = lab.VEIN
    transverse = chain(
        m, [(0, -98, -8, 3.8), (30, -90, -14, 3.8), (52, -66, -17, 3.8), (56, -44, -26, 3.6),
            (44, -40, -44, 3.6), (32, -36, -54, 3.8)]
    )  # fmt: skip
    labels[(transverse < 0) & ~np.isin(labels, (lab.SKIN, lab.AIR))] = lab.VEIN


def _paint_random_vein(
    labels: np.ndarray,
    p: np.ndarray,
    hull: np.ndarray,
    ventricle: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """A medullary or cortical vein: a curved line between ventricle wall and surface."""
    direction = rng.normal(size=3) * (1.0, 1.4, 0.7)
    direction[2] = abs(direction[2])
    direction /= np.linalg.norm(direction)
    start = np.array([rng.choice((-1, 1)) * 14.0, rng.uniform(-60, 36), rng.uniform(14, 22)])
    length = rng.uniform(14, 45)
    bend = rng.normal(0, 4, 3)
    t = np.linspace(0, 1, 7)[:, None]
    path = start + direction * length * t + bend * (t * (1 - t)) * 4
    path += 0.8 * rng.normal(size=path.shape) * (t > 0)
    radius = np.linspace(rng.uniform(0.5, 0.9), 0.35, 7)
    nodes = np.concatenate([path, radius[:, None]], axis=1)
    lo, hi = path.min(0) - 3, path.max(0) + 3
    where = _near(p, lo, hi)
    if where is None:
        return
    _stamp(labels[where], chain(p[(slice(None), *where)], nodes.tolist()))


def _near(p: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> tuple[slice, ...] | None:
    """The index box that holds the points between `lo` and `hi`, found on every fourth point."""
    coarse = p[:, ::4, ::4, ::4]
    step = max(float(np.abs(p[:, -1, -1, -1] - p[:, 0, 0, 0]).max()) / max(p.shape[1:]), 1.0) * 4
    inside = np.ones(coarse.shape[1:], dtype=bool)
    for axis in range(3):
        inside &= (coarse[axis] > lo[axis] - step) & (coarse[axis] < hi[axis] + step)
    if not inside.any():
        return None
    return tuple(
        slice(max(4 * int(a.min()) - 4, 0), 4 * int(a.max()) + 5) for a in np.nonzero(inside)
    )


def _stamp(labels: np.ndarray, vein: np.ndarray) -> None:
    labels[(vein < 0) & np.isin(labels, _SOFT)] = lab.VEIN
