"""Colin27: a real head with its skull at 1 mm, labelled by T1 intensity and the AAL atlas.

The volumes are those of Debian's package mricron-data: `ch2` (average of 27 scans of one man
[Holmes1998]_), `ch2bet` (its brain) and `aal` (its regions [TzourioMazoyer2002]_). What AAL lacks
(red nucleus, substantia nigra, dentate, veins) is drawn at its MNI place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage as ndi

from qsm_nipype.errors import DataError
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.nuclei import paint_midbrain_and_dentate
from qsm_nipype.simulation.shapes import ellipsoid, largest_part
from qsm_nipype.simulation.vessels import paint_vessels

TEMPLATES = Path("/usr/share/mricron/templates")
_AAL = {71: lab.CAUDATE, 72: lab.CAUDATE, 73: lab.PUTAMEN, 74: lab.PUTAMEN}
_AAL |= {75: lab.PALLIDUM, 76: lab.PALLIDUM, 77: lab.THALAMUS, 78: lab.THALAMUS}
#: T1 intensities that part fluid from grey and grey from white matter in `ch2`
FLUID_BELOW, WHITE_ABOVE = 62.0, 97.0
_TISSUE = (lab.CSF, lab.GREY_MATTER, lab.WHITE_MATTER)


@dataclass(frozen=True)
class Sampled:
    """A volume in space that can be read at any point: nearest voxel or trilinear."""

    values: np.ndarray
    affine: np.ndarray

    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of the first and the last voxel."""
        last = self.affine[:3, :3] @ (np.asarray(self.values.shape) - 1.0) + self.affine[:3, 3]
        return self.affine[:3, 3], last

    def at(self, points: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Values at `points` `(3, …)`; the border value beyond the volume."""
        inverse = np.linalg.inv(self.affine).astype(np.float32)
        index = np.tensordot(inverse[:3, :3], points, 1)
        index += inverse[:3, 3].reshape(3, *[1] * (points.ndim - 1))
        size = np.asarray(self.values.shape, dtype=np.float32).reshape(index.shape[:1] + (1,))
        flat = (2 * index.reshape(3, -1) / (size - 1) - 1)[::-1].T
        where = torch.from_numpy(np.ascontiguousarray(flat)).reshape(1, -1, 1, 1, 3)
        out = torch.nn.functional.grid_sample(
            torch.from_numpy(self.values.astype(np.float32))[None, None],
            where,
            mode="nearest" if nearest else "bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return out.numpy().reshape(points.shape[1:])


@dataclass(frozen=True)
class Colin:
    """The template at 1 mm: labels, T1 intensity, signed distances to brain and its parts."""

    labels: Sampled
    t1: Sampled
    hull: Sampled
    ventricle: Sampled
    cerebellum: Sampled


@lru_cache(maxsize=2)
def load_colin(folder: Path = TEMPLATES) -> Colin:
    """Read and label the template. Raises DataError when the files are absent."""
    volumes: list[np.ndarray] = []
    for name in ("ch2", "ch2bet", "aal"):
        path = folder / f"{name}.nii.gz"
        if not path.exists():
            raise DataError(
                f"{path}: no such file; install Debian's package mricron-data, which holds the "
                "Colin27 head, or choose the procedural anatomy"
            )
        image: Any = nib.load(path)
        volumes.append(np.asarray(image.dataobj))
    affine = np.asarray(image.affine, dtype=float)
    t1, stripped, aal = volumes
    t1 = t1.astype(np.float32)
    brain = _brain(stripped > 0)
    hull = ndi.distance_transform_edt(~brain) - ndi.distance_transform_edt(brain)
    labels = np.where(brain, _brain_labels(t1, aal), _head_labels(t1, hull, affine))
    ventricle = _ventricle_distance(t1, hull)
    return Colin(
        Sampled(labels.astype(np.uint8), affine),
        Sampled(t1, affine),
        Sampled(hull.astype(np.float32), affine),
        Sampled(ventricle.astype(np.float32), affine),
        Sampled(_cerebellum_distance(aal), affine),
    )


def paint_colin(
    points: np.ndarray, rng: np.random.Generator, colin: Colin
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and brain mask of Colin27 at `points` `(3, X, Y, Z)` in MNI mm, veins at random."""
    labels = colin.labels.at(points, nearest=True).astype(np.uint8)
    low, high = colin.labels.corners()
    beyond = (points[0] < low[0]) | (points[0] > high[0]) | (points[2] > high[2])
    labels[beyond | (points[1] < low[1]) | (points[1] > high[1])] = lab.AIR
    hull = colin.hull.at(points)
    brain = (hull < 0) & (points[2] > -71)
    t1 = colin.t1.at(points)
    soft = brain & np.isin(labels, _TISSUE)
    labels[soft] = np.asarray(_TISSUE, dtype=np.uint8)[_classes(t1[soft])]
    nuclei_rng, vein_rng = rng.spawn(2)
    paint_midbrain_and_dentate(labels, points, nuclei_rng)
    paint_vessels(labels, points, colin.hull.at, colin.ventricle.at, vein_rng)
    brain &= ~((labels == lab.VEIN) & (hull > -4))
    return labels, largest_part(brain)


def _classes(t1: np.ndarray) -> np.ndarray:
    """0 fluid, 1 grey, 2 white."""
    return (t1 >= FLUID_BELOW).astype(np.uint8) + (t1 >= WHITE_ABOVE)


def _brain(stripped: np.ndarray) -> np.ndarray:
    """The stripped brain without holes and with its sulci filled."""
    closed = ndi.distance_transform_edt(~stripped) <= 3
    closed = ndi.distance_transform_edt(ndi.binary_fill_holes(closed)) > 3
    return largest_part(closed | stripped)


def _brain_labels(t1: np.ndarray, aal: np.ndarray) -> np.ndarray:
    smooth = ndi.gaussian_filter(t1, 0.4)
    labels = np.asarray(_TISSUE, dtype=np.uint8)[_classes(smooth)]
    for region, label in _AAL.items():
        labels[(aal == region) & (t1 > 72)] = label
    return labels


def _ventricle_distance(t1: np.ndarray, hull: np.ndarray) -> np.ndarray:
    """Signed distance to the fluid deep inside the brain."""
    fluid = (t1 < FLUID_BELOW) & (hull < -18)
    parts, _ = ndi.label(fluid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = np.isin(parts, np.flatnonzero(sizes > 400))
    return ndi.distance_transform_edt(~large) - ndi.distance_transform_edt(large)


def _cerebellum_distance(aal: np.ndarray) -> np.ndarray:
    """Signed distance to AAL's cerebellum and vermis, gaps between their folia closed."""
    near = ndi.distance_transform_edt(~((aal >= 91) & (aal <= 116))) <= 5
    inside = ndi.distance_transform_edt(ndi.binary_fill_holes(near)) > 5
    signed = ndi.distance_transform_edt(~inside) - ndi.distance_transform_edt(inside)
    return signed.astype(np.float32)


def _head_labels(t1: np.ndarray, hull: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Everything around the brain, classified by intensity, depth and place."""
    p = grid_points(t1.shape, affine)  # type: ignore[arg-type]
    m = np.concatenate([np.abs(p[:1]), p[1:]])
    smooth = ndi.gaussian_filter(t1, 0.7)
    inside = _head_mask(smooth)
    depth = ndi.distance_transform_edt(inside)
    above = np.maximum(hull, 0)
    labels = np.full(t1.shape, lab.MUSCLE, dtype=np.uint8)
    labels[(smooth > 105)] = lab.FAT
    near = (above < 16) & (depth > 5)
    dark = smooth < 42
    labels[near & dark] = lab.BONE
    labels[dark & ~near & (depth > 3)] = lab.BONE
    labels[near & (smooth >= 42) & (smooth < 105) & (above < 11) & (p[2] > -25)] = lab.MARROW
    eyes = ellipsoid(m, (35, 62, -37), (13, 13, 13)) < 0
    labels[_air(smooth, p, m, above) & ~eyes] = lab.SINUS_AIR
    labels[eyes & (smooth < 80)] = lab.VITREOUS
    labels[(depth <= 2) & (labels != lab.SINUS_AIR)] = lab.SKIN
    labels[(above <= 2.0) & (smooth < 75) & (depth > 5)] = lab.CSF
    labels[~inside] = lab.AIR
    return labels


def _head_mask(smooth: np.ndarray) -> np.ndarray:
    """The head without holes; the cut through the neck counts as closed."""
    solid = largest_part(smooth > 14)
    margin = 8
    padded = np.pad(solid, ((margin, margin), (margin, margin), (margin, margin)))
    padded[..., :margin] = padded[..., margin : margin + 1]
    padded[..., 0] = ndi.binary_fill_holes(ndi.binary_closing(padded[..., 0], iterations=6))
    grown = ndi.binary_fill_holes(ndi.distance_transform_edt(~padded) <= 6)
    closed = ndi.distance_transform_edt(grown) > 6
    return closed[margin:-margin, margin:-margin, margin:-margin] | solid


def _air(smooth: np.ndarray, p: np.ndarray, m: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Dark places where sinuses, nose, throat, ear canals and mastoid cells lie."""
    dark = (smooth < 26) & (above > 2.5)
    frontal = ellipsoid(p, (0, 74, -2), (32, 11, 20))
    centre = ellipsoid(p, (0, 40, -52), (32, 48, 36))  # ethmoid, sphenoid, nose, maxilla
    throat = ellipsoid(p, (0, 4, -70), (16, 14, 24))
    ear = ellipsoid(m, (60, -28, -44), (22, 24, 20))
    place = np.minimum(np.minimum(frontal, centre), np.minimum(throat, ear))
    return dark & (place < 0)


def brain_and_regions(folder: Path = TEMPLATES) -> tuple[np.ndarray, np.ndarray] | None:
    """Colin27's brain and its AAL labels, cut to the brain; None where they are not installed.

    They are `ch2bet.nii.gz` and `aal.nii.gz` of Debian's package mricron-data.
    """
    paths = [folder / "ch2bet.nii.gz", folder / "aal.nii.gz"]
    if not all(p.is_file() for p in paths):
        if folder != TEMPLATES:
            raise DataError(f"{folder}: no ch2bet.nii.gz and aal.nii.gz; install mricron-data")
        return None
    image, labels = (np.asarray(nib.Nifti1Image.from_filename(p).dataobj) for p in paths)
    where = np.argwhere(image > 0)
    box = tuple(
        slice(max(0, a - 2), b + 3) for a, b in zip(where.min(0), where.max(0), strict=True)
    )
    return image[box].astype(np.float32), labels[box].astype(np.int16)
