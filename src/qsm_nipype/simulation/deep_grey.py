"""Deep grey nuclei of heads from more than formulas: shapes of an atlas, drawn on any head.

`KINDS` (`core.deep_grey`) are painted as tissue labels and counted beside them. Three sources:
the formulas of `simulation.nuclei`, AAL's regions where the head is Colin27, and an atlas of
probabilities such as CIT168 [Pauli2018]_, which the user brings as a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage as ndi

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.errors import DataError
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.colin import TEMPLATES, Sampled, load_colin
from qsm_nipype.simulation.nuclei import basal_shapes, midbrain_shapes
from qsm_nipype.simulation.shapes import Noise, smooth_noise, within

#: Number of a kind → tissue label that stands for it.
TISSUE = {
    1: lab.CAUDATE,
    2: lab.PUTAMEN,
    3: lab.PALLIDUM,
    4: lab.PALLIDUM,
    5: lab.THALAMUS,
    6: lab.RED_NUCLEUS,
    7: lab.SUBSTANTIA_NIGRA,
    8: lab.SUBSTANTIA_NIGRA,
}
#: Beside the kinds: small grey nuclei that have no number (accumbens, ventral pallidum …).
OTHER = 9
#: CIT168's names → kind.
_CIT168 = {
    "Putamen": 2,
    "Caudate": 1,
    "Nucleus Accumbens": OTHER,
    "Extended Amygdala": OTHER,
    "Globus Pallidus externa": 3,
    "Globus Pallidus interna": 4,
    "Substantia Nigra pars compacta": 7,
    "Red Nucleus": 6,
    "Substantia-Nigra-pars-reticulata": 7,
    "Ventral Pallidum": OTHER,
    "Hypothalamus": OTHER,
    "Subthalamic Nucleus": 8,
}
_NUMBERS = {name: kind for kind, name in enumerate(KINDS, start=1)}
#: Where the nuclei lie, head mm.
_LOW, _HIGH = (-46, -52, -34), (46, 40, 42)


@dataclass(frozen=True)
class Shapes:
    """Probability 0 to 1 of kinds of nuclei (1 … of KINDS, OTHER) in MNI-like space."""

    kinds: Mapping[int, Sampled]

    def at(self, points: np.ndarray, least: float) -> np.ndarray:
        """The likeliest kind at `points` `(3, X, Y, Z)`; 0 where their sum is below `least`."""
        numbers = sorted(self.kinds)
        found = np.stack([self.kinds[k].at(points) for k in numbers])
        best = np.asarray(numbers, dtype=np.uint8)[found.argmax(0)]
        return np.where(found.sum(0) > least, best, 0).astype(np.uint8)


@lru_cache(maxsize=2)
def load_cit168(folder: Path) -> Shapes:
    """CIT168's nuclei and, where Colin27 is installed, AAL's thalamus.

    `folder` holds `CIT168_CIT168.nii.gz`, two likeliest labels and their probabilities a voxel
    (R, G, B, A), and its `.json` of names. Raises DataError where they are absent.
    """
    path = folder / "CIT168_CIT168.nii.gz"
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give the folder of the CIT168 subcortical atlas (CC BY 4.0)"
        )
    image: Any = nib.load(path)
    data = np.asarray(image.dataobj)
    names = _names(path.with_name("CIT168_CIT168.json"))
    total: dict[int, np.ndarray] = {}
    for value, name in enumerate(names):
        kind = _CIT168.get(name[2:].strip())
        if kind is None:
            continue
        share = (data["R"] == value) * (data["B"] / 255.0)
        share = share + (data["G"] == value) * (data["A"] / 255.0)
        total[kind] = total.get(kind, 0) + share
    kinds = {k: _padded(v.astype(np.float32), image.affine) for k, v in total.items()}
    if (TEMPLATES / "aal.nii.gz").is_file():
        colin = load_colin().labels
        thalamus = (colin.values == lab.THALAMUS).astype(np.float32)
        kinds[5] = Sampled(ndi.gaussian_filter(thalamus, 0.8), colin.affine)
    return Shapes(kinds)


def _names(path: Path) -> list[str]:
    import json

    return list(json.loads(path.read_text(encoding="utf-8"))["labels"])


def _padded(values: np.ndarray, affine: np.ndarray) -> Sampled:
    """With a border of zeros, since points beyond it read its border."""
    moved = np.asarray(affine, dtype=float).copy()
    moved[:3, 3] -= moved[:3, :3] @ np.ones(3)
    return Sampled(np.pad(values, 1), moved)


@dataclass(frozen=True)
class Drawing:
    """How one head's nuclei differ from their source: a smooth displacement, sizes and shifts."""

    ripple: Noise
    amplitude: float
    sizes: Mapping[str, float]
    shifts: np.ndarray
    least: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Drawing:
        """A person's."""
        return cls(
            smooth_noise(rng, float(rng.uniform(18, 40)), channels=3),
            float(rng.uniform(0.2, 1.4)),
            {name: float(rng.uniform(0.85, 1.15)) for name in (*_NUMBERS, "pallidum")},
            rng.normal(0, 0.7, (2, 3)),
            float(rng.uniform(0.35, 0.62)),
        )

    def moved(self, points: np.ndarray) -> np.ndarray:
        """`points` displaced."""
        return points + np.float32(self.amplitude) * self.ripple.at(points)


def paint_deep_grey(
    labels: np.ndarray,
    points: np.ndarray,
    rng: np.random.Generator,
    *,
    source: str,
    shapes: Shapes | None = None,
) -> np.ndarray:
    """Replace the nuclei in `labels` (in place) but the dentate; returns kinds (uint8, OTHER too).

    `points` `(3, X, Y, Z)` in head mm. `source` is "formulas", "own" (those of the head stay,
    the midbrain's, which AAL lacks, are drawn) or "atlas" (`shapes`; a thalamus that it lacks is
    drawn). Fluid, vessels and findings stay.
    """
    drawing = Drawing.random(rng)
    box = within(points, _LOW, _HIGH)
    sub, p = labels[box], points[(slice(None), *box)]
    kinds = np.zeros(labels.shape, np.uint8)
    own = _own_kinds(sub, p) if source == "own" else np.zeros(sub.shape, np.uint8)
    free = np.isin(sub, (*(v for k, v in TISSUE.items() if k), lab.WHITE_MATTER, lab.GREY_MATTER))
    sub[np.isin(sub, list(TISSUE.values()))] = lab.WHITE_MATTER
    moved = drawing.moved(p)
    if source == "atlas" and shapes is not None:
        drawn = shapes.at(_scaled_points(moved, drawing), drawing.least)
        if 5 not in shapes.kinds:
            drawn = _over(_formulas(moved, drawing, ("thalamus",)), drawn)
    elif source == "own":
        drawn = _over(_formulas(moved, drawing, KINDS[5:]), own)
    else:
        drawn = _formulas(moved, drawing, (*KINDS, "pallidum", "accumbens"))
    drawn = np.where(free, drawn, 0).astype(np.uint8)
    for kind, label in {**TISSUE, OTHER: lab.GREY_MATTER}.items():
        sub[drawn == kind] = label
    kinds[box] = drawn
    return kinds


def _over(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.where(upper > 0, upper, lower)


def _own_kinds(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Kinds of the basal nuclei that a head has as tissue labels."""
    kinds = np.zeros(labels.shape, np.uint8)
    for kind in (1, 2, 5):
        kinds[labels == TISSUE[kind]] = kind
    return np.where(labels == lab.PALLIDUM, _part_of_pallidum(_mirror(p)), kinds)


def _part_of_pallidum(m: np.ndarray) -> np.ndarray:
    """3 external, 4 internal: medial, behind and below, the plane as CIT168 has them."""
    way = np.array([0.32, 0.66, 0.68], dtype=np.float32)
    place = np.array([18.3, -2.6, -2.4], dtype=np.float32)
    beyond = np.tensordot(way, m - place.reshape(3, 1, 1, 1), 1)
    return np.where(beyond < 0, 4, 3).astype(np.uint8)


def _formulas(p: np.ndarray, drawing: Drawing, wanted: tuple[str, ...]) -> np.ndarray:
    """Kinds of the nuclei called `wanted`, by the formulas of `simulation.nuclei`."""
    kinds = np.zeros(p.shape[1:], np.uint8)
    size = {
        label: drawing.sizes[KINDS[kind - 1]]
        for kind, label in TISSUE.items()
        if kind not in (3, 4)
    } | {lab.PALLIDUM: drawing.sizes["pallidum"]}
    for number, side in enumerate((-1.0, 1.0)):
        m = np.concatenate([side * p[:1], p[1:]]) - _column(drawing.shifts[number])
        own = m[0] > 0
        for shapes in (basal_shapes, midbrain_shapes):
            for _, name, inside in shapes(m, size):
                if name not in wanted:
                    continue
                value: Any = 1 if name == "accumbens" else _NUMBERS.get(name, 0)
                if name == "pallidum":
                    value = _part_of_pallidum(m)
                kinds = np.where(inside & own, value, kinds).astype(np.uint8)
    return kinds


def _scaled_points(p: np.ndarray, drawing: Drawing) -> np.ndarray:
    """Each side moved and scaled about the middle of its nuclei, the midbrain less."""
    out = p.copy()
    for number, side in enumerate((-1.0, 1.0)):
        here = p[0] * side > 0
        near = np.exp(-((np.abs(p[0]) / 6.0) ** 2))  # nothing jumps at the midline
        middle = _column((side * 20.0, -2.0, 2.0))
        scale = np.float32(1 / (0.5 + 0.5 * drawing.sizes["putamen"]))
        moved = (p - middle) * scale + middle - _column(drawing.shifts[number])
        out = np.where(here, p + (1 - near) * (moved - p), out)
    return out.astype(np.float32)


def _mirror(p: np.ndarray) -> np.ndarray:
    return np.concatenate([np.abs(p[:1]), p[1:]])


def _column(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(3, 1, 1, 1)
