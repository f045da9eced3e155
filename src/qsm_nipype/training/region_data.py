"""Heads with known deep grey nuclei, reconstructed from noisy fields: the training data.

Two kinds of cases: surroundings of the nuclei at 1 mm, and whole heads at 4 mm with the place of
the nuclei. Labels are kinds of `core.deep_grey`, the same on both sides. Axes are RAS+.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.simulation.anatomy import paint_head
from qsm_nipype.simulation.colin import TEMPLATES, load_colin, paint_colin
from qsm_nipype.simulation.deep_grey import Shapes, load_cit168, paint_deep_grey
from qsm_nipype.simulation.deformation import grid_points, random_deformation
from qsm_nipype.simulation.head import Head, grid_affine
from qsm_nipype.simulation.template_head import load_template, paint_template
from qsm_nipype.training.cache import fill_cache
from qsm_nipype.training.dentate_data import Case
from qsm_nipype.training.reconstruction import (
    Conditions,
    cut_field_of_view,
    diseased,
    halved,
    reconstruct_chi,
)
from qsm_nipype.training.region_contrast import person_contrast

#: Field that is reconstructed around the nuclei, and the part of it that is kept (mm).
RECONSTRUCTED, KEPT = (112, 128, 96), (92, 104, 76)
#: Middle of the nuclei in head coordinates (mm).
CENTRE = (0.0, -6.0, 3.0)
#: Spacing of the localiser's heads (mm) and their extent in voxels.
COARSE, WHOLE = 4.0, (46, 56, 46)
#: The localiser's label, and how far it reaches around the nuclei (mm).
PLACE, AROUND = 1, 4.0
#: Of each whole head: itself and so many slabs cut from it.
SLABS = 1

FOR_NUCLEI = Conditions(
    (0.3, 4.0), (1.0, 1.0), (0.4, 1.5), (0.35, 0.6), 2.5,
    {"whtv": 0.6, "tv": 0.14, "nltv": 0.06, "tkd": 0.1, "l2": 0.1},
    iterations=32,
)  # fmt: skip
FOR_PLACE = Conditions(
    (0.4, 8.0), (1.0, 1.0), (0.5, 2.0), (0.35, 0.9), 4.0, {"l2": 0.4, "tkd": 0.35, "tv": 0.25}
)
#: Head and source of its nuclei: how often.
ANATOMIES = {
    ("template", "atlas"): 0.34,
    ("colin", "atlas"): 0.14,
    ("procedural", "atlas"): 0.1,
    ("colin", "own"): 0.17,
    ("procedural", "formulas"): 0.17,
    ("colin", "formulas"): 0.08,
}


@dataclass(frozen=True)
class Person:
    """What makes a head, apart from the grid: the same seed paints the same head anywhere.

    `folder` holds the CIT168 atlas; without it heads of the other sources are made.
    """

    seed: int
    anatomy: tuple[str, str]
    folder: Path | None
    shapes: Shapes | None = None

    @classmethod
    def random(cls, seed: int, folder: Path | None) -> Person:
        """A person of an anatomy that is at hand."""
        colin = (TEMPLATES / "ch2.nii.gz").is_file()
        chances = {
            pair: chance
            for pair, chance in ANATOMIES.items()
            if (colin or pair[0] != "colin") and (folder or "atlas" not in pair)
        }
        values = np.array(list(chances.values()))
        number = np.random.default_rng([seed, 7]).choice(len(values), p=values / values.sum())
        return cls(seed, list(chances)[number], folder)

    def paint(
        self, shape: tuple[int, ...] | np.ndarray, affine: np.ndarray
    ) -> tuple[Head, np.ndarray, np.ndarray]:
        """The head, its kinds of nuclei (OTHER too), and x in head coordinates (mm) on a grid."""
        pose, paint, nuclei = np.random.default_rng(self.seed).spawn(3)
        deform = random_deformation(
            pose, amplitude=float(pose.uniform(0.5, 2.5)), scaling=0.1, rotation=10.0, shift=3.0
        )
        points = deform(grid_points(shape, affine))
        head, source = self.anatomy
        if head == "template":
            assert self.folder is not None
            labels, brain = paint_template(points, paint, load_template(self.folder))
        elif head == "colin":
            labels, brain = paint_colin(points, paint, load_colin())
        else:
            labels, brain = paint_head(points, paint)
        shapes = self.shapes
        if source == "atlas" and shapes is None:
            assert self.folder is not None
            shapes = load_cit168(self.folder)
        kinds = paint_deep_grey(labels, points, nuclei, source=source, shapes=shapes)
        return Head(labels, brain, affine), kinds, points


def neighbourhood(person: Person) -> Case:
    """The surroundings of the nuclei at 1 mm: truth and reconstructed map."""
    rng = np.random.default_rng([person.seed, 1])
    angles = np.clip(rng.normal(0, 8, 3), -22, 22)
    step = np.ones(3)
    if rng.random() < 0.35:
        step = np.array([*[rng.uniform(0.8, 1.3)] * 2, rng.uniform(1.0, 2.0)])
    centre = np.asarray(CENTRE) * 0.95
    shape = np.ceil(np.array(RECONSTRUCTED) / step).astype(int)
    head, kinds, points = person.paint(
        shape, grid_affine(shape, step, angles=angles, center=centre)
    )
    chi = _reconstruct(head, kinds, points, rng, FOR_NUCLEI)
    middle = centre + rng.normal(0, 2.5, 3)
    target = grid_affine(KEPT, 1.0, angles=angles, center=middle)
    if np.allclose(step, 1):
        start = np.round(np.linalg.solve(head.affine, target[:, 3])[:3]).astype(int)
        start = np.clip(start, 0, np.array(RECONSTRUCTED) - KEPT)
        box = tuple(slice(s, s + n) for s, n in zip(start, KEPT, strict=True))
        return Case(chi[box], _numbered(kinds[box]), 1.0)
    _, kinds, _ = person.paint(KEPT, target)
    onto = np.linalg.solve(head.affine, target)
    chi = ndimage.affine_transform(chi, onto[:3, :3], onto[:3, 3], KEPT, order=3, mode="nearest")
    return Case(chi.astype(np.float32), _numbered(kinds), 1.0)


def _numbered(kinds: np.ndarray) -> np.ndarray:
    return np.where(kinds <= len(KINDS), kinds, 0).astype(np.uint8)


def whole_head(person: Person) -> Case:
    """A whole head at 4 mm, often cut by the field of view; label 1 is the place of the nuclei."""
    rng = np.random.default_rng([person.seed, 2])
    angles = np.clip(rng.normal(0, 8, 3), -22, 22)
    shape = tuple(2 * n for n in WHOLE)
    affine = grid_affine(
        shape, COARSE / 2, angles=angles, center=(0, -14, 2) + rng.normal(0, 5, 3)
    )
    head, kinds, points = person.paint(shape, affine)
    cut = cut_field_of_view(head, rng)
    chi = _reconstruct(cut, kinds, points, rng, FOR_PLACE)
    nuclei = (_numbered(kinds) > 0) & cut.brain
    labels = np.zeros(WHOLE, np.uint8)
    if nuclei.any():
        near = ndimage.distance_transform_edt(~nuclei, sampling=head.voxel_size) <= AROUND
        labels[halved((near & cut.brain).astype(np.float32)) > 0.5] = PLACE
    return Case(halved(chi), labels, COARSE)


def _reconstruct(
    head: Head,
    kinds: np.ndarray,
    points: np.ndarray,
    rng: np.random.Generator,
    drawn: Conditions,
) -> np.ndarray:
    """χ of the head after a person's susceptibilities, age and disease were drawn."""
    contrast, offset = person_contrast(kinds, points, head, rng)
    ill = diseased(head, rng)
    found = ill.chi_offset if ill.chi_offset is not None else np.zeros_like(offset)
    same = ill.labels == head.labels
    return reconstruct_chi(
        replace(ill, chi_offset=np.where(same, offset, found).astype(np.float32)),
        contrast,
        rng,
        drawn,
    )


def make_cache(
    folder: Path, kind: str, count: int, *, seed: int, atlas: Path | None, workers: int = 0
) -> list[Path]:
    """`count` cases of a kind ("neighbourhood" or "head") as npz files; those there are kept."""
    simulate = {"neighbourhood": neighbourhood, "head": whole_head}[kind]

    def make(number: int) -> dict[str, Any]:
        return vars(simulate(Person.random(100_000 * seed + number, atlas)))

    made_with = {"colin27": (TEMPLATES / "ch2.nii.gz").is_file(), "cit168": atlas is not None}
    return fill_cache(
        *(folder, f"region-{kind}-{seed}", count, make),
        made_with=made_with,
        workers=workers,
        compress=True,
    )
