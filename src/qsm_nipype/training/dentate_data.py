"""Cerebella with known dentate nuclei, reconstructed from noisy fields: the training data.

Two kinds of cases, both from the digital heads of `qsm_nipype.simulation`: neighbourhoods of the
dentate nuclei at 1 mm, and whole heads at 4 mm with the cerebellum. Axes are RAS+.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.anatomy import cerebellum, paint_head
from qsm_nipype.simulation.colin import TEMPLATES, load_colin, paint_colin
from qsm_nipype.simulation.deformation import grid_points, random_deformation
from qsm_nipype.simulation.head import Head, grid_affine
from qsm_nipype.simulation.nuclei import paint_dentate
from qsm_nipype.simulation.shapes import smooth_noise
from qsm_nipype.simulation.tissue import random_contrast
from qsm_nipype.training.cache import fill_cache
from qsm_nipype.training.reconstruction import (
    Conditions,
    cut_field_of_view,
    diseased,
    halved,
    reconstruct_chi,
)

LEFT, RIGHT = 1, 2
#: Field that is reconstructed around the nuclei, and the part of it that is kept (mm).
RECONSTRUCTED, KEPT = (112, 92, 84), (96, 72, 64)
#: Middle of both nuclei in head coordinates (mm).
CENTRE = (0.0, -57.0, -34.5)
#: Spacing of the localiser's heads (mm) and their extent in voxels.
COARSE, WHOLE = 4.0, (46, 56, 46)
#: The localiser's labels, and how far its place of the nuclei reaches around them (mm).
CEREBELLUM, NUCLEI_PLACE, AROUND = 1, 2, 6.0
#: Of each whole head: itself and so many slabs cut from it.
SLABS = 2


#: The nuclei must be visible to be learned; the cerebellum is found on worse maps.
FOR_NUCLEI = Conditions(
    (0.3, 3.0), (0.6, 1.8), (0.5, 1.5), (0.35, 0.6), 2.0,
    {"nltv": 0.5, "tv": 0.32, "whtv": 0.08, "tkd": 0.05, "l2": 0.05},
)  # fmt: skip
FOR_CEREBELLUM = Conditions(
    (0.4, 8.0), (0.4, 2.0), (0.5, 2.0), (0.35, 0.9), 4.0, {"l2": 0.11, "tkd": 0.11, "tv": 0.25}
)


@dataclass(frozen=True)
class Case:
    """`chi` `(X, Y, Z)` float32 in ppm with its truth `labels` (uint8), isotropic voxels (mm)."""

    chi: np.ndarray
    labels: np.ndarray
    voxel_size: float


@dataclass(frozen=True)
class Person:
    """What makes a head, apart from the grid: the same seeds paint the same head anywhere."""

    seed: int
    anatomy: str

    def paint(
        self, shape: Sequence[int] | np.ndarray, affine: np.ndarray
    ) -> tuple[Head, np.ndarray, np.ndarray]:
        """The head, its dentate nuclei (1 left, 2 right) and its cerebellum on a grid."""
        pose, paint, nuclei = np.random.default_rng(self.seed).spawn(3)
        deform = random_deformation(
            pose, amplitude=float(pose.uniform(0.5, 3.0)), scaling=0.1, rotation=10.0, shift=3.0
        )
        points = deform(grid_points(shape, affine))
        if self.anatomy == "colin":
            template = load_colin()
            labels, brain = paint_colin(points, paint, template)
            hind = template.cerebellum.at(points) < 0
        else:
            labels, brain = paint_head(points, paint)
            hind = cerebellum(np.concatenate([np.abs(points[:1]), points[1:]])) < 0
        sides = repaint_dentate(labels, points, nuclei)
        return Head(labels, brain, affine), sides, hind & brain


def repaint_dentate(
    labels: np.ndarray, points: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Put dentate nuclei of any size and shape in place of the head's; returns 1 left, 2 right."""
    labels[labels == lab.DENTATE] = lab.WHITE_MATTER
    ripple = smooth_noise(rng, 28.0, channels=3)
    points = points + np.float32(rng.uniform(0.0, 1.5)) * ripple.at(points)
    size, sides = rng.uniform(0.75, 1.2), np.zeros(labels.shape, dtype=np.uint8)
    common = rng.normal(0, 1.5, 3)
    for side, value in ((-1.0, LEFT), (1.0, RIGHT)):
        m = np.concatenate([side * points[:1], points[1:]])
        shift = (common + rng.normal(0, 0.8, 3)).astype(np.float32).reshape(3, 1, 1, 1)
        own = size * rng.uniform(0.92, 1.08)
        paint_dentate(labels, m - shift, m[0] > 0, own, rng)
        sides[(labels == lab.DENTATE) & (sides == 0)] = value
    return sides


def neighbourhood(seed: int, *, anatomy: str = "procedural") -> Case:
    """The surroundings of the dentate nuclei at 1 mm: truth and reconstructed map."""
    person, rng = Person(seed, anatomy), np.random.default_rng([seed, 1])
    angles = np.clip(rng.normal(0, 8, 3), -20, 20)
    step = np.ones(3)
    if rng.random() < 0.3:
        step = np.array([*[rng.uniform(0.8, 1.1)] * 2, rng.uniform(1.2, 2.2)])
    centre = np.asarray(CENTRE) * 0.95
    shape = np.ceil(np.array(RECONSTRUCTED) / step).astype(int)
    head, sides, _ = person.paint(shape, grid_affine(shape, step, angles=angles, center=centre))
    chi = reconstruct(head, sides, rng, FOR_NUCLEI)
    middle = centre + rng.normal(0, 3, 3)
    target = grid_affine(KEPT, 1.0, angles=angles, center=middle)
    if np.allclose(step, 1):
        start = np.round(np.linalg.solve(head.affine, target[:, 3])[:3]).astype(int)
        start = np.clip(start, 0, np.array(RECONSTRUCTED) - KEPT)
        box = tuple(slice(s, s + n) for s, n in zip(start, KEPT, strict=True))
        return Case(chi[box], sides[box], 1.0)
    _, sides, _ = person.paint(KEPT, target)
    onto = np.linalg.solve(head.affine, target)
    chi = ndimage.affine_transform(chi, onto[:3, :3], onto[:3, 3], KEPT, order=3, mode="nearest")
    return Case(chi.astype(np.float32), sides, 1.0)


def whole_head(seed: int, *, anatomy: str = "procedural") -> Case:
    """A whole head at 4 mm, often cut by the field of view.

    Labels: 1 the cerebellum, 2 in it the place of the dentate nuclei, all within 6 mm of them.
    """
    person, rng = Person(seed, anatomy), np.random.default_rng([seed, 2])
    angles = np.clip(rng.normal(0, 8, 3), -20, 20)
    shape = tuple(2 * n for n in WHOLE)
    affine = grid_affine(
        shape, COARSE / 2, angles=angles, center=(0, -14, 2) + rng.normal(0, 5, 3)
    )
    head, sides, hind = person.paint(shape, affine)
    cut = cut_field_of_view(head, rng)
    chi = reconstruct(cut, sides, rng, FOR_CEREBELLUM)
    coarse = halved(chi)
    seen = halved((chi != 0).astype(np.float32)) > 0.3
    nuclei = (sides > 0) & cut.brain
    near = ndimage.distance_transform_edt(~nuclei, sampling=head.voxel_size) <= AROUND
    labels = np.where(halved(hind.astype(np.float32)) > 0.5, CEREBELLUM, 0)
    if nuclei.any():
        labels[(halved((near & hind).astype(np.float32)) > 0.5) & (labels > 0)] = NUCLEI_PLACE
    labels *= ndimage.binary_dilation(seen)
    return Case(coarse, labels.astype(np.uint8), COARSE)


def cut_slab(case: Case, rng: np.random.Generator, *, place: int = NUCLEI_PLACE) -> Case:
    """A part of a whole head as a smaller field of view shows it, cut below, above, or both.

    The cuts lie within 45 mm of the label `place` or, in a head without it, anywhere.
    """
    height = case.chi.shape[2]
    nuclei = np.argwhere(case.labels == place)
    about = nuclei[:, 2].mean() if len(nuclei) else rng.uniform(0.2, 0.8) * height
    reach = 45 / case.voxel_size
    kind = rng.choice(["below", "above", "both"])
    low = 0 if kind == "above" else round(about + rng.uniform(-reach, reach))
    high = height if kind == "below" else round(about + rng.uniform(-reach, reach))
    low, high = min(low, high), max(low, high)
    grow = max(0.0, 24 / case.voxel_size - (high - low)) / 2  # no slab thinner than 24 mm
    low, high = int(np.clip(low - grow, 0, height)), int(np.clip(high + grow, 0, height))
    kept = np.zeros(height, dtype=bool)
    kept[low:high] = True
    chi = np.where(kept, case.chi, 0)
    inside = chi != 0
    if inside.any():
        chi = np.where(inside, chi - chi[inside].mean(), 0)
    return Case(chi.astype(np.float32), (case.labels * kept).astype(np.uint8), case.voxel_size)


def with_dura(case: Case, rng: np.random.Generator) -> Case:
    """A whole head as a mask that is not eroded shows it: patches of dura and sinuses around it.

    Their susceptibility is mostly paramagnetic, up to that of venous blood, and partly artefact.
    """
    inside = case.chi != 0
    reach = int(rng.integers(0, 3))
    around = ndimage.binary_dilation(inside, iterations=reach) if reach else inside
    layer = around & ~ndimage.binary_erosion(inside, iterations=2 - min(reach, 1))
    white = rng.standard_normal((2, *inside.shape), dtype=np.float32)
    patches, value = (
        ndimage.gaussian_filter(noise, sigma / case.voxel_size)
        for noise, sigma in zip(white, (rng.uniform(4, 16), rng.uniform(2, 8)), strict=True)
    )
    there = layer & (patches > rng.uniform(-1, 0.7) * patches.std())
    value *= rng.uniform(0.05, 0.2) / value.std()
    value += rng.uniform(-0.05, 0.15)
    return replace(case, chi=np.where(there, value, case.chi).astype(np.float32))


def reconstruct(
    head: Head, sides: np.ndarray, rng: np.random.Generator, drawn: Conditions
) -> np.ndarray:
    """χ (ppm) from the noisy field of `head`'s brain, as the pipeline's inversions see it.

    Tissue, iron load, asymmetry and texture are `drawn`; noise grows where the signal is low, a
    harmonic field of a few ppb stands for what background removal leaves, and the mask has lost
    its outer layers.
    """
    head = diseased(head, rng)
    offset = np.zeros(sides.shape, np.float32) if head.chi_offset is None else head.chi_offset
    offset = offset + np.array([0, *rng.normal(0, 0.015, 2)], dtype=np.float32)[sides]
    contrast = random_contrast(rng, iron=float(np.exp(rng.uniform(*np.log(drawn.iron)))))
    return reconstruct_chi(replace(head, chi_offset=offset), contrast, rng, drawn)


def make_cache(folder: Path, kind: str, count: int, *, seed: int, workers: int = 0) -> list[Path]:
    """`count` cases of a kind ("neighbourhood" or "head") as npz files; those there are kept.

    Every third head is Colin27 where Debian's mricron-data is installed.
    """
    simulate = {"neighbourhood": neighbourhood, "head": whole_head}[kind]
    real = (TEMPLATES / "ch2.nii.gz").is_file()

    def make(number: int) -> dict[str, Any]:
        anatomy = "colin" if real and number % 3 == 2 else "procedural"
        return vars(simulate(100_000 * seed + number, anatomy=anatomy))

    made_with = {"colin27": real}
    return fill_cache(
        *(folder, f"{kind}-{seed}", count, make),
        made_with=made_with,
        workers=workers,
        compress=True,
    )


def read_case(path: Path) -> Case:
    """A case of the cache."""
    with np.load(path) as data:
        return Case(data["chi"], data["labels"], float(data["voxel_size"]))
