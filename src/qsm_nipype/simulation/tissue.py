"""From labels to what a scanner sees: susceptibility, proton density, R1, R2* and R2.

Susceptibilities are in ppm relative to water (−9.05 ppm): nuclei after [Langkammer2012]_ and the
QSM challenge's head model [Marques2021]_, air, bone and fat after [Schenck1996]_ and
[Buch2015]_. Relaxation at 3 T after [Marques2021]_ and the usual textbook values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import Head

#: susceptibility of air relative to water, ppm: 0.36 − (−9.05)
AIR_CHI = 9.41
#: label → χ (ppm relative to water), M0 (water = 1), R1 (1/s), R2* (1/s), R2 (1/s) at 3 T
PROPERTIES: dict[int, tuple[float, float, float, float, float]] = {
    lab.AIR: (AIR_CHI, 0.0, 1.0, 50.0, 50.0),
    lab.CAUDATE: (0.055, 0.82, 0.71, 24.0, 13.0),
    lab.PALLIDUM: (0.140, 0.74, 0.95, 42.0, 17.0),
    lab.PUTAMEN: (0.070, 0.81, 0.78, 27.0, 14.0),
    lab.RED_NUCLEUS: (0.110, 0.76, 0.90, 36.0, 16.0),
    lab.DENTATE: (0.120, 0.77, 0.85, 33.0, 16.0),
    lab.SUBSTANTIA_NIGRA: (0.130, 0.75, 0.90, 38.0, 16.0),
    lab.THALAMUS: (0.015, 0.78, 0.85, 21.0, 13.5),
    lab.WHITE_MATTER: (-0.030, 0.70, 1.15, 20.0, 14.0),
    lab.GREY_MATTER: (0.015, 0.83, 0.68, 17.0, 10.3),
    lab.CSF: (0.0, 1.0, 0.24, 2.5, 1.0),
    lab.VEIN: (0.28, 0.85, 0.60, 55.0, 25.0),
    lab.CALCIFICATION: (-2.0, 0.25, 1.0, 110.0, 40.0),
    lab.HAEMORRHAGE: (0.8, 0.60, 1.2, 120.0, 35.0),
    lab.MICROBLEED: (1.0, 0.60, 1.1, 130.0, 35.0),
    lab.LESION: (0.015, 0.88, 0.60, 13.0, 7.5),
    lab.LESION_RIM: (0.075, 0.82, 0.70, 22.0, 9.0),
    lab.CHOROID_PLEXUS: (-0.02, 0.90, 0.50, 12.0, 6.0),
    lab.SINUS_AIR: (AIR_CHI, 0.0, 1.0, 50.0, 50.0),
    lab.BONE: (-2.2, 0.08, 1.5, 700.0, 500.0),
    lab.MARROW: (0.2, 0.55, 2.4, 75.0, 20.0),
    lab.MUSCLE: (0.0, 0.75, 0.75, 32.0, 25.0),
    lab.FAT: (0.6, 0.85, 2.7, 40.0, 15.0),
    lab.SKIN: (0.0, 0.60, 1.2, 60.0, 30.0),
    lab.VITREOUS: (0.0, 1.0, 0.24, 3.0, 1.0),
    lab.LENS: (0.0, 0.60, 0.9, 45.0, 30.0),
}
#: what only the realistic scanner's surroundings hold; no person's jitter is drawn for it
SURROUNDINGS: dict[int, tuple[float, float, float, float, float]] = {
    lab.DURA: (0.0, 0.55, 1.1, 90.0, 60.0),
    lab.ARTERY: (-0.03, 1.4, 0.65, 22.0, 8.0),  # oxygenated; bright by inflow
}
#: 1/s of R2* per ppm of susceptibility at 3 T
RELAXIVITY = 100.0
#: relative SD of χ between people, by label: iron differs most
_SPREAD = {label: 0.2 for label in lab.NUCLEI} | {
    lab.VEIN: 0.15,
    lab.CALCIFICATION: 0.3,
    lab.BONE: 0.08,
}
#: SD of fine texture and of slow variation of χ within a label (ppm)
_TEXTURE = {label: 0.010 for label in lab.NUCLEI} | {
    lab.WHITE_MATTER: 0.008,
    lab.GREY_MATTER: 0.007,
    lab.HAEMORRHAGE: 0.15,
    lab.VEIN: 0.02,
}


@dataclass(frozen=True)
class Tissue:
    """Maps `(X, Y, Z)` float32: χ in ppm relative to water, M0 (water = 1), R1, R2*, R2 in 1/s.

    `fat` is the fraction of the signal that is fat and precesses 3.4 ppm slower than water.
    """

    chi: np.ndarray
    m0: np.ndarray
    r1: np.ndarray
    r2star: np.ndarray
    r2: np.ndarray
    fat: np.ndarray


def average_contrast() -> dict[int, tuple[float, float, float, float, float]]:
    """The literature's properties as they stand."""
    return dict(PROPERTIES)


def random_contrast(
    rng: np.random.Generator, *, strength: float = 1.0, iron: float | None = None
) -> dict[int, tuple[float, float, float, float, float]]:
    """Properties of a random person: iron load, myelin, water content and relaxation jittered.

    `iron` multiplies the nuclei's susceptibility (1: average); drawn when not given.
    """
    drawn = 1.0 + 0.2 * strength * rng.normal()
    iron = drawn if iron is None else iron
    table = {}
    for label, (chi, m0, r1, r2star, r2) in PROPERTIES.items():
        factor = 1.0 + strength * _SPREAD.get(label, 0.1) * rng.normal()
        if label in lab.NUCLEI:
            factor *= max(iron, 0.3)
        rates = np.clip(1.0 + 0.08 * strength * rng.normal(size=4), 0.6, 1.5)
        new_chi = chi if label in lab.AIR_LABELS else chi * max(factor, 0.1)
        extra = RELAXIVITY * (new_chi - chi) if label in lab.NUCLEI else 0.0
        new_r2star = max(r2star * rates[2] + extra, r2 + 0.5)
        table[label] = (new_chi, m0 * min(rates[0], 1.2), r1 * rates[1], new_r2star, r2 * rates[3])
    return table


def tissue_maps(
    head: Head,
    rng: np.random.Generator,
    *,
    contrast: Mapping[int, tuple[float, float, float, float, float]] | None = None,
    texture: float = 1.0,
    blur: float = 0.45,
) -> Tissue:
    """Maps of `head`'s tissue properties.

    `texture` scales the variation within a label; `blur` is the SD (voxels) of the smoothing
    that stands for partial volume.
    """
    contrast = {**SURROUNDINGS, **(contrast or PROPERTIES)}
    lut = np.zeros((6, 256), dtype=np.float32)
    for label, values in contrast.items():
        lut[:5, label] = values
        lut[5, label] = _TEXTURE.get(label, 0.0)
    chi, m0, r1, r2star, r2, grain = (table[head.labels] for table in lut)
    fine, slow = _textures(head, rng)
    solid = ~np.isin(head.labels, (*lab.AIR_LABELS, lab.CSF, lab.VITREOUS))
    if head.chi_offset is not None:  # iron and calcium both speed up the decay
        stronger = np.abs(chi + head.chi_offset) - np.abs(chi)
        r2star = np.maximum(r2star + RELAXIVITY * stronger, r2)
        chi = chi + head.chi_offset
    chi = chi + texture * grain * (fine + slow)
    m0 = m0 * (1 + 0.03 * texture * (0.5 * fine + slow) * solid)
    r1 = r1 * (1 - 0.04 * texture * slow * solid)
    r2star = r2star * (1 + 0.06 * texture * (fine + slow) * solid)
    fat = np.isin(head.labels, (lab.FAT, lab.MARROW)).astype(np.float32)
    maps = (chi, m0, r1, r2star, r2, fat)
    return Tissue(*(_partial_volume(m, blur) for m in maps))


def _textures(head: Head, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit-variance noise at about 2 mm and 20 mm grain."""
    shape, step = head.labels.shape, np.asarray(head.voxel_size)
    out = []
    for grain in (1.2, 9.0):
        coarse = np.maximum(grain / step / 1.5, 1.0)
        small = tuple(int(np.ceil(n / c)) + 3 for n, c in zip(shape, coarse, strict=True))
        noise = gaussian_filter(rng.standard_normal(small, dtype=np.float32), 1.0)
        noise /= noise.std()
        out.append(_enlarge(noise, shape, coarse))
    return out[0], out[1]


def _enlarge(noise: np.ndarray, shape: tuple[int, ...], factor: np.ndarray) -> np.ndarray:
    """Separable linear interpolation of `noise` onto `shape`, `factor` voxels per sample."""
    for axis in range(3):
        at = np.arange(shape[axis]) / factor[axis]
        low = np.minimum(at.astype(int), noise.shape[axis] - 2)
        weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        noise = np.take(noise, low, axis) * (1 - weight) + np.take(noise, low + 1, axis) * weight
    return noise


def _partial_volume(volume: np.ndarray, blur: float) -> np.ndarray:
    if blur <= 0:
        return volume.astype(np.float32)
    return gaussian_filter(volume.astype(np.float32), blur, truncate=3.0, mode="nearest")
