"""Dural sinuses and veins of the procedural head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.shapes import chain, within

#: tissues a vein may run through
_SOFT = (*lab.NUCLEI, lab.WHITE_MATTER, lab.GREY_MATTER, lab.CSF, lab.CHOROID_PLEXUS)
_DEEP: list[list[tuple[float, float, float, float]]] = [
    [(2.2, 2, 10, 0.9), (2.2, -12, 14, 1.0), (1.5, -26, 13, 1.3), (0, -38, 8, 1.8)],
    [(20, -8, -14, 0.8), (17, -22, -12, 1.0), (10, -34, -3, 1.2), (0, -39, 5, 1.6)],
    [(6, 24, 6, 0.6), (2.5, 4, 10, 0.8)],
    [(19, -14, 19, 0.6), (12, -2, 16, 0.8), (3, 2, 11, 0.9)],
]
_TRANSVERSE = [
    (0, -98, -8, 3.8), (30, -90, -14, 3.8), (52, -66, -17, 3.8), (56, -44, -26, 3.6),
    (44, -40, -44, 3.6), (32, -36, -54, 3.8),
]  # fmt: skip

Distance = Callable[[np.ndarray], np.ndarray]


def paint_vessels(
    labels: np.ndarray,
    p: np.ndarray,
    hull: Distance,
    ventricle: Distance,
    rng: np.random.Generator,
) -> None:
    """Write the dural sinuses, deep veins, and random superficial, cortical, medullary veins.

    `hull` and `ventricle` are signed distances as functions of points.
    """
    _paint_sinuses(labels, p, hull)
    for side in (-1, 1):
        for vein in _DEEP:
            _paint_vein(labels, p, [(side * x, y, z, r) for x, y, z, r in vein])
    for nodes in _random_veins(hull, ventricle, rng):
        _paint_vein(labels, p, nodes)


def _paint_sinuses(labels: np.ndarray, p: np.ndarray, hull: Distance) -> None:
    middle = within(p, (-6, -130, -20), (6, 80, 100))
    sub, q = labels[middle], p[(slice(None), *middle)]
    top = (q[2] > -8) & (q[1] < 60) & ~((q[1] > -40) & (q[2] < 20))
    sagittal = np.abs(q[0]) + 0.8 * np.abs(hull(q) - 0.5) - 4.2
    sub[(sagittal < 0) & top] = lab.VEIN
    m = np.concatenate([np.abs(q[:1]), q[1:]])
    straight = chain(m, [(0, -39, 6, 2.2), (0, -62, -2, 2.4), (0, -96, -8, 3.4)])
    sub[straight < 0] = lab.VEIN
    low = within(p, (-62, -106, -60), (62, -30, 0))
    sub, q = labels[low], p[(slice(None), *low)]
    for side in (-1, 1):
        line = _on_surface([(side * x, *rest) for x, *rest in _TRANSVERSE], hull)
        sub[(chain(q, line) < 0) & ~np.isin(sub, (lab.SKIN, lab.AIR))] = lab.VEIN


def _on_surface(nodes: Sequence[Sequence[float]], hull: Distance) -> list[tuple[float, ...]]:
    """The line through `nodes`, refined and pushed out until it lies on the brain's surface."""
    line = np.asarray(nodes, dtype=float)
    fine = np.linspace(0, len(line) - 1, 4 * len(line))
    dense = np.stack([np.interp(fine, np.arange(len(line)), c) for c in line.T])
    at, radius = dense[:3], dense[3:]
    for _ in range(4):
        at = at + np.maximum(2.0 - _value(hull, at), 0.0) * _gradient(hull, at)
    return [tuple(node) for node in np.concatenate([at, radius]).T.tolist()]


def _random_veins(
    hull: Distance, ventricle: Distance, rng: np.random.Generator
) -> list[list[tuple[float, ...]]]:
    """Centre lines (x, y, z, radius) of the random veins."""
    points = rng.uniform((-70, -105, -30), (70, 72, 76), (12000, 3)).T
    depth, to_fluid = -_value(hull, points), _value(ventricle, points)
    veins = []

    # medullary veins: from the ventricles' walls outwards
    deep = np.flatnonzero((to_fluid > 0.5) & (to_fluid < 4) & (depth > 12) & (points[2] > -10))
    starts = points[:, rng.permutation(deep)[: int(rng.integers(35, 60))]]
    for start, way in zip(starts.T, _gradient(ventricle, starts).T, strict=True):
        way = way + rng.normal(0, 0.35, 3) + (0, 0, 0.2)
        veins.append(_path(start, way, rng, (8, 32), float(rng.uniform(0.35, 0.65))))

    # cortical veins: from the surface inwards
    shallow = np.flatnonzero((depth > 1) & (depth < 4))
    starts = points[:, rng.permutation(shallow)[: int(rng.integers(30, 55))]]
    for start, way in zip(starts.T, -_gradient(hull, starts).T, strict=True):
        way = way + rng.normal(0, 0.35, 3)
        veins.append(_path(start, way, rng, (8, 22), float(rng.uniform(0.4, 0.8))))

    upper = np.flatnonzero((np.abs(depth) < 2) & (points[2] > 10) & (np.abs(points[0]) > 20))
    for index in rng.permutation(upper)[: int(rng.integers(10, 20))]:
        veins.append(_superficial(points[:, index], hull, rng))
    return veins


def _path(
    start: np.ndarray,
    way: np.ndarray,
    rng: np.random.Generator,
    lengths: tuple[float, float],
    radius: float,
) -> list[tuple[float, ...]]:
    """A tapering, slightly winding line from `start` along `way`."""
    t = np.linspace(0, 1, 6)[:, None]
    way = way / max(float(np.linalg.norm(way)), 1e-6)
    line = start + way * rng.uniform(*lengths) * t + rng.normal(0, 4, 3) * t * (1 - t) * 2
    line = line + 0.6 * rng.normal(size=line.shape) * (t > 0)
    radii = np.linspace(radius, 0.6 * radius, 6)[:, None]
    return [tuple(node) for node in np.concatenate([line, radii], axis=1).tolist()]


def _superficial(
    start: np.ndarray, hull: Distance, rng: np.random.Generator
) -> list[tuple[float, ...]]:
    """A vein on the surface from `start` up to the sagittal sinus."""
    end = np.array([2.0 * np.sign(start[0]), start[1] + rng.uniform(-8, 22), 90.0])
    end[2] -= float(_value(hull, end[:, None])[0])
    t = np.linspace(0, 1, 9)
    line = np.outer(start, 1 - t) + np.outer(end, t) + rng.normal(0, 1.2, (3, 9))
    for _ in range(3):
        line = line - (_value(hull, line) + 0.6) * _gradient(hull, line)
    return [tuple(node) for node in np.concatenate([line, 0.7 + 0.6 * t[None]]).T.tolist()]


def _paint_vein(
    labels: np.ndarray,
    p: np.ndarray,
    nodes: Sequence[Sequence[float]],
) -> None:
    line = np.asarray(nodes)
    where = within(p, line[:, :3].min(0) - 2, line[:, :3].max(0) + 2)
    sub = labels[where]
    if sub.size:
        vein = chain(p[(slice(None), *where)], nodes)
        sub[(vein < 0) & np.isin(sub, _SOFT)] = lab.VEIN


def _value(distance: Distance, points: np.ndarray) -> np.ndarray:
    """`distance` at `points` `(3, N)`."""
    return distance(points.astype(np.float32).reshape(3, -1, 1, 1)).ravel()


def _gradient(distance: Distance, points: np.ndarray) -> np.ndarray:
    """Unit gradients of `distance` at `points` `(3, N)`."""
    slopes = [
        _value(distance, points + step) - _value(distance, points - step)
        for step in np.eye(3)[..., None]
    ]
    slope = np.stack(slopes)
    return slope / np.maximum(np.linalg.norm(slope, axis=0), 1e-6)
