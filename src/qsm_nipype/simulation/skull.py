"""Everything around the brain: meninges' fluid, skull, air cavities, eyes, muscle, fat, skin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.shapes import box, chain, crop, ellipsoid, join, smooth_noise


@dataclass(frozen=True)
class Skull:
    """Thickness of bone and scalp in mm and the relative size of the air cavities."""

    bone: float
    scalp: float
    frontal_sinus: float
    sphenoid: float
    mastoid: float
    ethmoid: float
    maxillary: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Skull:
        """A skull within the adult range."""
        return cls(
            bone=float(rng.uniform(5.0, 8.0)),
            scalp=float(rng.uniform(4.5, 8.5)),
            frontal_sinus=float(rng.uniform(0.55, 1.2)),
            sphenoid=float(rng.uniform(0.7, 1.15)),
            mastoid=float(rng.uniform(0.6, 1.1)),
            ethmoid=float(rng.uniform(0.8, 1.1)),
            maxillary=float(rng.uniform(0.75, 1.1)),
        )


def paint_skull(
    p: np.ndarray, cavity: np.ndarray, skull: Skull, rng: np.random.Generator
) -> np.ndarray:
    """Labels of the head without its brain; `cavity` is the signed distance to the inner skull."""
    noise = smooth_noise(rng, 45.0, channels=3).at(p)
    texture = smooth_noise(rng, 9.0, channels=2).at(p)
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    bone = np.maximum(skull.bone + 1.2 * noise[0], 3.0)
    bone = bone + 5.0 * _step((-22.0 - p[2]) / 10.0) * _step((20.0 - np.abs(p[1] + 5)) / 15.0)
    scalp = skull.scalp + 0.6 * noise[1]
    skin = _outline(p, m, cavity, bone + scalp)

    labels = np.full(p.shape[1:], lab.AIR, dtype=np.uint8)
    labels[skin < 0] = lab.FAT
    _paint_soft_tissue(labels, p, m, skin, noise, texture)
    labels[(skin < 0) & (skin > -1.8)] = lab.SKIN
    shell = (cavity > 0) & (cavity < bone) & (p[2] > -66)
    labels[shell] = lab.BONE
    diploe = shell & (cavity > 0.3 * bone) & (cavity < 0.72 * bone) & (bone > 4.5)
    labels[diploe & (texture[0] > -1.2)] = lab.MARROW
    low = crop(p[2] < 26)
    region = (slice(None), *low)
    _paint_face(labels[low], p[region], m[region])
    _paint_spine(labels[low], p[region], cavity[low])
    labels[cavity < 0] = lab.CSF
    _paint_air(labels[low], p[region], m[region], cavity[low], skull, texture[region])
    return labels


def _outline(
    p: np.ndarray, m: np.ndarray, cavity: np.ndarray, thickness: np.ndarray
) -> np.ndarray:
    """Signed distance to the skin."""
    cranium = np.where(p[2] > -75, cavity - thickness, 99.0)
    vault = ellipsoid(p, (0, -16, 10), (79, 101, 84))
    face = box(p, (0, 42, -62), (52, 44, 60), rounding=30.0)
    jaw = ellipsoid(p, (0, 50, -92), (46, 46, 36))
    neck = chain(p, [(0, -34, -50, 62), (0, -34, -160, 58)])
    nose = chain(p, [(0, 86, -22, 6), (0, 97, -46, 9), (0, 88, -52, 11)])
    cheeks = ellipsoid(m, (34, 52, -48), (28, 30, 30))
    skin = join([cranium, vault, face, neck, jaw], 12.0)
    return join([join([skin, cheeks], 8.0), nose], 6.0)


def _paint_soft_tissue(
    labels: np.ndarray,
    p: np.ndarray,
    m: np.ndarray,
    skin: np.ndarray,
    noise: np.ndarray,
    texture: np.ndarray,
) -> None:
    low = (p[2] < -18) & (skin < -6.0)
    temporalis = ellipsoid(m, (66, 8, -12), (14, 34, 34))
    muscle = low | (temporalis < 0)
    labels[muscle & (skin < -3.5)] = lab.MUSCLE
    # fat planes between the muscles of neck and face
    planes = np.abs(texture[1] + 0.4 * noise[2]) < 0.22
    labels[low & planes] = lab.FAT
    labels[(skin < -2) & (chain(m, [(40, 60, -66, 10), (36, 40, -72, 9)]) < 0)] = lab.FAT


def _paint_face(labels: np.ndarray, p: np.ndarray, m: np.ndarray) -> None:
    inside = labels != lab.AIR
    bones = [
        np.abs(ellipsoid(m, (0, 44, -54), (36, 38, 30))) - 1.2,  # maxilla
        np.abs(box(p, (0, 54, -84), (24, 22, 3))) - 2.0,  # palate
        chain(m, [(20, 84, -104, 6), (44, 50, -104, 6), (52, 18, -92, 7), (52, 8, -62, 6)]),
        chain(m, [(44, 72, -40, 4), (60, 48, -44, 3), (68, 20, -40, 3), (66, -6, -38, 4)]),
        ellipsoid(m, (42, -30, -40), (24, 14, 13)),  # petrous bone
        box(m, (26, 76, -20), (26, 3, 3)),  # rim of the orbit
        np.abs(box(m, (0, 80, -92), (22, 4, 9))) - 1.5,  # alveolar arch and teeth
    ]
    for bone in bones:
        labels[(bone < 0) & inside & (labels != lab.SKIN)] = lab.BONE
    marrow = chain(m, [(20, 84, -104, 3), (44, 50, -104, 3), (52, 18, -92, 4)])
    labels[(marrow < 0) & inside] = lab.MARROW
    clivus = ellipsoid(p, (0, -4, -46), (11, 7, 12))
    labels[clivus < 0] = lab.MARROW
    orbit = chain(m, [(33, 62, -34, 17), (22, 26, -26, 6)])
    labels[(orbit < 1.5) & inside & (labels != lab.SKIN)] = lab.BONE
    labels[(orbit < 0) & inside] = lab.FAT
    rectus = np.abs(chain(m, [(33, 56, -34, 11), (20, 24, -25, 3)])) - 1.2
    labels[(rectus < 0) & (orbit < 0)] = lab.MUSCLE
    labels[chain(m, [(32, 48, -33, 2), (12, 16, -22, 2)]) < 0] = lab.WHITE_MATTER  # optic nerve
    eye = ellipsoid(m, (33, 66, -34), (12, 12, 12))
    labels[(eye < 1.0)] = lab.MUSCLE
    labels[(eye < 0)] = lab.VITREOUS
    labels[ellipsoid(m, (33, 74, -34), (4.5, 2, 4.5)) < 0] = lab.LENS


def _paint_spine(labels: np.ndarray, p: np.ndarray, cavity: np.ndarray) -> None:
    """Vertebrae around the cord: body in front, arch behind, discs between them."""
    low = p[2] < -64
    wave = np.mod(p[2] / 18.0, 1.0)
    body = ellipsoid(p, (0, -26, -110), (15, 10, 60))
    arch = np.maximum(np.abs(ellipsoid(p, (0, -46, -110), (17, 17, 70))) - 3.0, p[1] + 40)
    labels[low & ((body < 0) | (arch < 0)) & (wave > 0.2)] = lab.BONE
    labels[low & (body < -2.5) & (wave > 0.3) & (wave < 0.9)] = lab.MARROW
    labels[low & (cavity < 3.0) & (cavity > 0)] = lab.FAT


def _paint_air(
    labels: np.ndarray,
    p: np.ndarray,
    m: np.ndarray,
    cavity: np.ndarray,
    skull: Skull,
    texture: np.ndarray,
) -> None:
    """Sinuses, nose, throat, ear canals and mastoid cells, each with a thin wall of bone."""
    away = cavity > 1.8
    s, e, x, f = skull.sphenoid, skull.ethmoid, skull.maxillary, skull.frontal_sinus
    sphenoid = ellipsoid(m, (8, 16, -37), (9 * s, 12 * s, 9 * s))
    ethmoid = box(m, (9, 46, -34), (6 * e, 20 * e, 9 * e))
    frontal = np.maximum(
        ellipsoid(m, (11, 76, 2), (15 * f, 8 * f, 17 * f)) + 1.5 * texture[0], cavity * 0 - 9.0
    )
    maxillary = ellipsoid(m, (28, 44, -62), (13 * x, 17 * x, 16 * x))
    for sinus, wall in ((sphenoid, 1.5), (ethmoid, 0.8), (frontal, 2.0), (maxillary, 1.5)):
        head = (labels != lab.AIR) & (labels != lab.SKIN) & (labels != lab.VITREOUS)
        labels[(sinus < wall) & (cavity > 0.5) & head] = lab.BONE
        labels[(sinus < 0) & away & head] = lab.SINUS_AIR
    septa = (np.abs(np.mod(p[1] / 8.0, 1.0) - 0.5) * 8.0 < 0.6) | (np.abs(p[0] - 1) < 0.7)
    labels[(ethmoid < 0) & septa & away] = lab.BONE
    labels[(sphenoid < 0) & (np.abs(p[0] - 1.5) < 0.7)] = lab.BONE

    nose = box(m, (7, 56, -62), (6, 34, 20))
    turbinate = np.abs(chain(m, [(11, 74, -72, 4), (10, 36, -72, 4)])) < 1.6
    turbinate |= chain(m, [(10, 70, -58, 3), (9, 36, -58, 3)]) < 0
    labels[(nose < 0) & away & (np.abs(p[0]) > 1.2)] = lab.SINUS_AIR
    labels[(nose < 0) & turbinate] = lab.MUSCLE
    throat = chain(p, [(0, 22, -66, 9), (0, 10, -82, 7), (0, 8, -110, 7), (0, 14, -160, 8)])
    labels[(throat < 0) & away] = lab.SINUS_AIR
    labels[(box(p, (0, 56, -92), (20, 16, 2.5)) < 0)] = lab.SINUS_AIR  # the mouth

    canal = chain(m, [(84, -20, -40, 3.5), (66, -22, -40, 3.2), (50, -24, -40, 3.5)])
    labels[(canal < 0) & away & (m[0] < 84)] = lab.SINUS_AIR
    mastoid = ellipsoid(m, (56, -40, -47), tuple(np.array((11, 14, 17)) * skull.mastoid))
    labels[(mastoid < 1.5) & away] = lab.BONE
    labels[(mastoid < 0) & away & (texture[1] > -0.35)] = lab.SINUS_AIR


def _step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
