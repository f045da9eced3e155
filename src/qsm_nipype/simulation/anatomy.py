"""A head made of formulas: nested smooth surfaces, folded cortex, nuclei, vessels and sinuses.

Coordinates are millimetres like MNI space: x to the right, y to the front, z up, the origin at
the anterior commissure. Sizes and places are those of a textbook adult head, jittered per seed.
Everything is a function of the point, so the same seed is the same head at any voxel size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.nuclei import paint_nuclei, ventricles
from qsm_nipype.simulation.shapes import (
    Noise,
    chain,
    crop,
    ellipsoid,
    half_ellipsoids,
    join,
    largest_part,
    smooth_noise,
    with_gradient,
)
from qsm_nipype.simulation.skull import Skull, paint_skull
from qsm_nipype.simulation.vessels import paint_vessels


@dataclass(frozen=True)
class Folding:
    """Random fields that lay out sulci: sheets at their zero, depth, and cortical thickness."""

    sheets: Noise
    fine: Noise
    depth: Noise
    warp: Noise


def paint_head(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels (uint8) and brain mask of a random head at `points` `(3, X, Y, Z)` in head mm."""
    folding = Folding(
        with_gradient(smooth_noise(rng, float(rng.uniform(21, 25)))),
        with_gradient(smooth_noise(rng, 13.0)),
        smooth_noise(rng, 40.0),
        smooth_noise(rng, 30.0, channels=3),
    )
    gap = rng.uniform(0.8, 2.6)
    skull = Skull.random(rng)
    seeds = rng.spawn(3)

    hull = brain_hull(points)
    vault = ellipsoid(points, (0.0, -17.0, 14.0), (60.0, 84.0, 62.0))
    labels = paint_skull(points, join([hull - gap, vault], 14.0), skull, seeds[0])
    brain = hull < 0
    region = crop(hull < 12)
    inside, p, sub = hull[region], points[(slice(None), *region)], labels[region]
    enlargement = float(rng.uniform(-0.8, 1.6))
    ventricle = ventricles(p, enlargement)
    _paint_cerebrum(sub, p, inside, ventricle, folding)
    _paint_hindbrain(sub, p, folding)
    sub[(ventricle < 0) & (inside < 0)] = lab.CSF
    paint_nuclei(sub, p, seeds[1])
    paint_vessels(sub, p, brain_hull, lambda q: ventricles(q, enlargement), seeds[2])
    brain &= (points[2] > -68) & ~np.isin(labels, (lab.BONE, lab.SINUS_AIR, lab.MARROW))
    brain &= ~((labels == lab.VEIN) & (hull > -4))  # dural sinuses stay outside
    return labels, largest_part(brain)


def brain_hull(p: np.ndarray) -> np.ndarray:
    """Signed distance to the smooth surface over cerebrum, cerebellum and brainstem."""
    mirrored = np.concatenate([np.abs(p[:1]), p[1:]])
    return join([_cerebrum(mirrored), cerebellum(mirrored), _brainstem(p)], 6.0)


def _cerebrum(m: np.ndarray) -> np.ndarray:
    """Both hemispheres; `m` has |x| as first coordinate."""
    frontal = half_ellipsoids(m, (25.0, 4.0, 14.0), (41.0, 65.0, 57.0), 40.0)
    parietal = half_ellipsoids(m, (29.0, -42.0, 16.0), (41.0, 60.0, 58.0), 34.0)
    temporal = ellipsoid(m, (46.0, -12.0, -19.0), (20.0, 38.0, 21.0))
    occipital = ellipsoid(m, (22.0, -72.0, 4.0), (26.0, 32.0, 24.0))
    middle = half_ellipsoids(m, (0.0, -16.0, 14.0), (51.0, 80.0, 61.5), 34.0)
    return join([frontal, parietal, temporal, occipital, middle], 7.0)


def cerebellum(m: np.ndarray) -> np.ndarray:
    """Signed distance to the cerebellum; `m` has |x| as first coordinate."""
    lobe = ellipsoid(m, (24.0, -63.0, -36.0), (28.0, 27.0, 21.0))
    vermis = ellipsoid(m, (0.0, -63.0, -30.0), (14.0, 21.0, 20.0))
    return join([lobe, vermis], 6.0)


def _brainstem(p: np.ndarray) -> np.ndarray:
    pons = ellipsoid(p, (0.0, -25.0, -32.0), (18.0, 13.0, 15.0))
    mid = ellipsoid(p, (0.0, -25.0, -10.0), (19.0, 13.0, 13.0))
    medulla = chain(
        p, [(0, -32, -40, 11), (0, -40, -60, 8.5), (0, -44, -80, 6.5), (0, -46, -140, 6)]
    )
    return join([pons, mid, medulla], 5.0)


def _paint_cerebrum(
    labels: np.ndarray,
    p: np.ndarray,
    hull: np.ndarray,
    ventricle: np.ndarray,
    folding: Folding,
) -> None:
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    outer = -_cerebrum(m)
    inside = (outer > 0) & (hull < 0)
    wobble = folding.warp.at(p)
    callosum = _callosum(m)
    fissure = np.abs(p[0] + 1.2 * wobble[0]) - 0.7
    fissure = np.maximum(fissure, -callosum - 1.0)
    deep = ellipsoid(m, (0.0, -14.0, 0.0), (26.0, 32.0, 24.0))  # thalami and midbrain: no fissure
    fissure = np.where((deep < 0) | (callosum < 3), 99.0, fissure)
    sylvian = _sylvian(m, wobble)
    depth = np.minimum(outer, fissure)
    sulcus = _sulci(m, p, depth, folding)
    pial = np.minimum(np.minimum(depth, sulcus), sylvian)
    core = np.minimum(ventricle, np.where(deep < 6, 0.0, 99.0))
    thickness = 2.7 + 0.35 * wobble[1]
    tissue = np.full(inside.shape, lab.WHITE_MATTER, dtype=np.uint8)
    outside_core = (core > 3) & (callosum > 2)
    tissue[(pial < thickness) & outside_core] = lab.GREY_MATTER
    tissue[(pial < 0) & outside_core] = lab.CSF
    claustrum = _claustrum(m)
    tissue[(claustrum < 0) & (tissue == lab.WHITE_MATTER)] = lab.GREY_MATTER
    labels[inside] = tissue[inside]


def _sulci(m: np.ndarray, p: np.ndarray, depth: np.ndarray, folding: Folding) -> np.ndarray:
    """Signed distance to the sulcal sheets: they follow the surface normal and end at a depth."""
    onto = _project(m, p) + 2.0 * folding.warp.at(p)
    value, slope = folding.sheets.at(onto)
    coarse = np.abs(value) / (slope + 0.05)
    bottom = 17.0 + 6.0 * folding.depth.at(p)[0]
    width = 0.9 - 0.55 * np.clip(depth / 16.0, 0, 1)
    deep = np.maximum(coarse - width, depth - bottom)
    value, slope = folding.fine.at(onto)
    small = np.maximum(np.abs(value) / (slope + 0.1) - 0.5, depth - 0.45 * bottom)
    return np.minimum(deep, small)


def _project(m: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Points pushed out along the surface normal to a common depth, so that sulci run inwards."""
    start = np.array([26.0, 34.0, 8.0], dtype=np.float32)
    axis = np.array([2.0, -96.0, 2.0], dtype=np.float32)
    temporal = (m[2] < -8) & (m[0] > 26) & (m[1] < 26) & (m[1] > -50)
    q = m - start.reshape(3, 1, 1, 1)
    t = (q[0] * axis[0] + q[1] * axis[1] + q[2] * axis[2]) / float(axis @ axis)
    t = np.clip(t, 0, 1)
    root = start.reshape(3, 1, 1, 1) + axis.reshape(3, 1, 1, 1) * t
    root = np.where(
        temporal, np.stack([np.full_like(t, 42.0), m[1], np.full_like(t, -18.0)]), root
    )
    away = m - root
    away = away / np.maximum(np.sqrt((away**2).sum(0)), 1e-3)
    onto = root + np.where(temporal, np.float32(25.0), np.float32(42.0)) * away
    onto[0] = np.where(p[0] < 0, -onto[0] - 7.0, onto[0])
    return onto


def _callosum(m: np.ndarray) -> np.ndarray:
    """The corpus callosum: an arch at the midline, 36 mm wide."""
    nodes = [(18, 6, 3.5), (26, 2, 4.5), (29, 10, 4.5), (20, 20, 3.2), (0, 26, 3)]
    nodes += [(-20, 25, 3), (-34, 18, 4), (-39, 11, 5)]
    flat = np.concatenate([np.maximum(m[:1] - 14.0, 0), m[1:]])
    return chain(flat, [(0, y, z, r) for y, z, r in nodes])


def _sylvian(m: np.ndarray, wobble: np.ndarray) -> np.ndarray:
    """The lateral fissure: a sheet from the side inwards to the insula."""
    height = -9.0 + 0.42 * (8.0 - m[1]) + 1.5 * wobble[2]
    sheet = np.abs(m[2] - height) - 1.1
    ends = np.maximum(np.maximum(m[1] - 26.0, -34.0 - m[1]), 39.0 - m[0])
    dome = 0.006 * ((m[1] - 2.0) ** 2 + 2.0 * (m[2] - 2.0) ** 2)
    branch = np.abs(m[0] - 41.0 + dome - 0.8 * wobble[0]) - 0.9
    reach = 16.0 * (np.sqrt(((m[1] - 2.0) / 25.0) ** 2 + ((m[2] - 2.0) / 16.0) ** 2) - 1.0)
    reach = reach + 2.0 * wobble[1]
    return np.minimum(np.maximum(sheet, ends), np.maximum(branch, reach))


def _claustrum(m: np.ndarray) -> np.ndarray:
    """The claustrum: a thin grey sheet between putamen and insula."""
    sheet = np.abs(m[0] - 34.8 + 0.006 * (m[1] ** 2 + 2.0 * m[2] ** 2)) - 0.6
    return np.maximum(sheet, ellipsoid(m, (34.5, 0, 0), (8, 17, 12)))


def _paint_hindbrain(labels: np.ndarray, p: np.ndarray, folding: Folding) -> None:
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    lobes = cerebellum(m)
    stem = _brainstem(p)
    inside = (lobes < 0) & (_cerebrum(m) > -1.0)
    wobble = folding.warp.at(p)
    # folia: fissures at constant angle round a left-right axis, deep into the white matter
    y, z = -(p[1] + 46.0) + 1.0 * wobble[0], p[2] + 36.0 + 1.0 * wobble[1]
    radius = np.sqrt(y**2 + z**2 + 1.0)
    angle = np.arctan2(z, y) + 0.010 * m[0]
    depth = -lobes
    pial = depth.copy()
    for period, reach, width in ((0.62, 13.0, 0.7), (0.155, 4.5, 0.35)):
        turn = np.abs(np.mod(angle / period + 0.5, 1.0) - 0.5) * period
        pial = np.minimum(pial, np.maximum(turn * radius - width, depth - reach))
    tissue = np.where(pial < 1.9, lab.GREY_MATTER, lab.WHITE_MATTER)
    tissue[pial < 0] = lab.CSF
    tissue[chain(m, [(24, -56, -37, 9), (10, -46, -34, 7), (0, -34, -32, 8)]) < 0] = (
        lab.WHITE_MATTER
    )
    labels[inside] = tissue[inside]
    peduncle = chain(m, [(18, -48, -35, 7), (10, -34, -32, 8)])
    midbrain = np.minimum(stem, peduncle)
    aqueduct = chain(p, [(0, -27, -4, 0.9), (0, -33, -16, 0.9), (0, -40, -26, 2)])
    labels[(midbrain < 0) & (p[2] < 2)] = lab.WHITE_MATTER
    tectum = ellipsoid(p, (0.0, -30.0, -9.0), (4.0, 4.0, 6.0))  # periaqueductal grey
    labels[tectum < 0] = lab.GREY_MATTER
    labels[aqueduct < 0] = lab.CSF
