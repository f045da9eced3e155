"""What lies close to the brain: orbital fat, dura, venous plexus, arteries, open bone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.shapes import chain, crop, smooth_noise

#: centre lines (x, y, z, radius in mm) of carotid, middle cerebral and anterior cerebral artery
#: (both sides) and the basilar artery
_ARTERIES = (
    [(13, 6, -38, 2.4), (13, 8, -24, 2.3), (8, 2, -18, 2.0)],
    [(8, 2, -18, 1.6), (20, 4, -18, 1.5), (34, 4, -14, 1.3), (42, 0, -6, 1.1)],
    [(8, 2, -18, 1.3), (2, 16, -14, 1.2), (2, 34, -6, 1.0)],
    [(0, -16, -48, 1.9), (0, -8, -30, 1.8), (0, -10, -18, 1.6)],
)
#: mm of the dura, of bone that is open towards sinuses, of what is left between such an opening
#: and the brain (dura and mucosa), and of the plexus under the brain
_DURA, _OPEN, _COVER, _PLEXUS = 1.0, 3.0, 2.0, 4.0
#: values of unit-variance noise that a third and a fifth of places exceed
_THIRD, _FIFTH = 0.43, 0.84


def with_surroundings(head: Head, rng: np.random.Generator) -> Head:
    """`head` with more of what surrounds a brain; the brain's own tissue and mask stay.

    Fat fills both orbits; a third of the thin bone between air sinuses and the skull's base is
    open (assumed; in computed tomography a third of ears have some opening); veins of the
    cavernous sinus and the basilar plexus lie in a fifth of the base (assumed); dura lines the
    skull and whatever is open; arteries run through the basal cisterns.
    """
    labels = head.labels.copy()
    points = grid_points(labels.shape, head.affine)  # type: ignore[arg-type]
    texture = smooth_noise(rng, 14.0, channels=2).at(points)
    to_brain = distance_transform_edt(~head.brain, sampling=head.voxel_size)
    base = (points[2] < 0) & ~head.brain
    _fill_orbits(labels, head)
    _open_base(labels, head, base & (texture[0] > _THIRD), to_brain)
    soft = np.isin(labels, (lab.BONE, lab.MARROW, lab.MUSCLE, lab.FAT))
    labels[base & soft & (to_brain < _PLEXUS) & (texture[1] > _FIFTH)] = lab.VEIN
    _paint_dura(labels, head)
    _paint_arteries(labels, points)
    return replace(head, labels=labels)


def _fill_orbits(labels: np.ndarray, head: Head) -> None:
    """Fat within 9 mm of the eyes, mostly behind them, where soft tissue is."""
    eye = labels == lab.VITREOUS
    if not eye.any():
        return
    margin = [int(np.ceil(14 / s)) for s in head.voxel_size]
    around = zip(crop(eye), margin, strict=True)
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in around)
    sub = labels[box]
    near = distance_transform_edt(sub != lab.VITREOUS, sampling=head.voxel_size) < 9
    muscle = distance_transform_edt(sub != lab.VITREOUS, sampling=head.voxel_size) < 1.2
    soft = np.isin(sub, (lab.MUSCLE, lab.BONE, lab.MARROW, lab.CSF)) & ~head.brain[box]
    sub[near & ~muscle & soft] = lab.FAT


def _open_base(labels: np.ndarray, head: Head, where: np.ndarray, to_brain: np.ndarray) -> None:
    """Air in place of bone, up to dura and mucosa (at least one layer of voxels) on the brain."""
    air = distance_transform_edt(labels != lab.SINUS_AIR, sampling=head.voxel_size)
    near = where & (air <= max(_OPEN, *head.voxel_size))
    opened = near & np.isin(labels, (lab.BONE, lab.MARROW))
    cover = to_brain <= max(_COVER, *head.voxel_size)
    labels[opened] = np.where(cover, lab.DURA, lab.SINUS_AIR)[opened]


def _paint_dura(labels: np.ndarray, head: Head) -> None:
    bone = distance_transform_edt(
        ~np.isin(labels, (lab.BONE, lab.MARROW)), sampling=head.voxel_size
    )
    thick = max(_DURA, *head.voxel_size)  # at least one layer of voxels
    labels[(bone <= thick) & (labels == lab.CSF) & ~head.brain] = lab.DURA


def _paint_arteries(labels: np.ndarray, points: np.ndarray) -> None:
    """At their places in MNI space, as far as these lie in fluid."""
    box = crop(
        (np.abs(points[0]) < 46) & (np.abs(points[1] - 8) < 30) & (np.abs(points[2] + 28) < 28)
    )
    sub, p = labels[box], points[(slice(None), *box)]
    mirrored = np.concatenate([np.abs(p[:1]), p[1:]])
    for nodes in _ARTERIES:
        sub[(chain(mirrored, nodes) < 0) & (sub == lab.CSF)] = lab.ARTERY
