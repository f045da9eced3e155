"""Susceptibility of a person's deep grey nuclei: age, disease, asymmetry and inner structure.

Iron by age after [Hallgren1958]_, at 0.0089 ppm per mg/100 g of wet tissue (ferritin: 0.011
[Zheng2013]_); what has no curve there (thalamus, red nucleus, nigra, subthalamic nucleus) is given
one that ends at its mean or near. The draws are wider than people are, so that a network learns
edges and places, not values.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.deep_grey import OTHER, TISSUE
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.shapes import smooth_noise
from qsm_nipype.simulation.tissue import random_contrast
from qsm_nipype.training.reconstruction import Contrast

#: Kind → final iron (mg/100 g), its rate (1/year), iron at birth.
_IRON = {
    1: (9.66, 0.05, 0.33),
    2: (14.62, 0.04, 0.46),
    3: (21.41, 0.09, 0.37),
    4: (21.41, 0.09, 0.37),
    5: (4.8, 0.08, 0.3),
    6: (19.0, 0.07, 0.4),
    7: (18.0, 0.07, 0.4),
    8: (16.0, 0.06, 0.4),
    OTHER: (5.5, 0.05, 0.3),
}
_PER_IRON, _TISSUE_BASE = 0.0089, -0.03


def kind_susceptibility(rng: np.random.Generator) -> dict[int, float]:
    """Mean χ (ppm against water) of each kind in one person."""
    age = float(rng.uniform(2, 92))
    load = float(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.08:
        load *= float(rng.uniform(0.0, 0.4))  # hardly any iron
    pallidum = float(np.exp(rng.normal(0, 0.22)))
    found = {}
    for kind, (final, rate, birth) in _IRON.items():
        iron = final * (1 - np.exp(-rate * age)) + birth
        own = pallidum * np.exp(rng.normal(0, 0.08)) if kind in (3, 4) else np.exp(
            rng.normal(0, 0.25)
        )  # fmt: skip
        found[kind] = float(_PER_IRON * iron * load * own + _TISSUE_BASE + rng.normal(0, 0.008))
    if rng.random() < 0.15:
        found[int(rng.integers(1, len(KINDS) + 1))] += float(rng.uniform(0.03, 0.15))
    return {kind: min(value, 0.32) for kind, value in found.items()}


def person_contrast(
    kinds: np.ndarray, points: np.ndarray, head: Head, rng: np.random.Generator
) -> tuple[Contrast, np.ndarray]:
    """Tissue properties, and χ on top of the labels' (ppm), for `kinds` in a head.

    `points` `(3, X, Y, Z)` are the voxels in head mm.
    """
    table = random_contrast(rng, iron=float(rng.uniform(0.4, 1.8)))
    white = float(rng.uniform(-0.055, -0.015))
    table[lab.WHITE_MATTER] = (white, *table[lab.WHITE_MATTER][1:])
    means = kind_susceptibility(rng)
    offset = np.zeros(kinds.shape, np.float32)
    for kind, mean in means.items():
        for side in (-1, 1):
            where = (kinds == kind) & (points[0] * side > 0)
            if not where.any():
                continue
            label = lab.GREY_MATTER if kind == OTHER else TISSUE[kind]
            value = mean * rng.normal(1, 0.06) + rng.normal(0, 0.004)
            inner = _inner(kind, points[:, where], rng) * max(mean - white, 0.02)
            offset[where] = value + inner - table[label][0]
    offset += _white_structure(head, points, rng)
    return table, _with_lamina(offset, kinds, rng, head)


def _inner(kind: int, p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Relative structure of a nucleus at points `(3, N)`: a slope, patches, a bright pulvinar."""
    slope = rng.normal(0, (0.08, 0.2, 0.1)) / 15.0  # per mm
    way = slope if kind != 2 else slope + np.array([0, -rng.uniform(0, 0.35) / 15.0, 0])
    centred = p - p.mean(1, keepdims=True)
    patches = smooth_noise(rng, float(rng.uniform(6, 14)), extent=64.0).at(p[:, :, None, None])
    inner = way @ centred + rng.uniform(0.05, 0.25) * patches.reshape(-1)
    if kind == 5:
        inner += rng.uniform(0, 0.9) / (1 + np.exp(np.clip((p[1] + 24) / 2.5, -30, 30)))
    return inner.astype(np.float32)


def _white_structure(head: Head, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bundles: white matter differs in myelin, cortex in iron."""
    strength = rng.uniform(0.002, 0.014)
    bundles = smooth_noise(rng, float(rng.uniform(9, 22))).at(points)[0] * np.float32(strength)
    return np.where(np.isin(head.labels, (lab.WHITE_MATTER, lab.GREY_MATTER)), bundles, 0)


def _with_lamina(
    offset: np.ndarray, kinds: np.ndarray, rng: np.random.Generator, head: Head
) -> np.ndarray:
    """The white sheet between both parts of the pallidum, thinner than a voxel."""
    depth = float(rng.uniform(0.0, 0.09))
    thickness = 1.0 / float(np.mean(head.voxel_size))
    if rng.random() < 0.4:
        return offset
    near = ndimage.binary_dilation(kinds == 3) & (kinds == 4)
    return offset - np.float32(depth * min(thickness, 1.0)) * near
