"""Compartments finer than a voxel: a head at half the voxel, and its maps averaged again."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.signal import Fields
from qsm_nipype.simulation.tissue import Tissue

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def half_voxels(affine: np.ndarray) -> np.ndarray:
    """Affine of the grid that splits every voxel in two along each axis."""
    finer = affine.copy()
    finer[:3, :3] = affine[:3, :3] / 2
    finer[:3, 3] = affine[:3, 3] - finer[:3, :3].sum(axis=1) / 2
    return finer


def split(head: Head) -> Head:
    """`head` on half voxels, each as its whole voxel."""

    def twice(volume: np.ndarray | None) -> np.ndarray | None:
        if volume is None:
            return None
        return volume.repeat(2, 0).repeat(2, 1).repeat(2, 2)

    labels, brain = twice(head.labels), twice(head.brain)
    assert labels is not None and brain is not None  # for mypy: only None gives None
    affine = half_voxels(head.affine)
    return Head(labels, brain, affine, twice(head.chi_offset), twice(head.instances))


def voxel_mean(volume: Array) -> Array:
    """Mean `(X/2, Y/2, Z/2)` over blocks of 2 × 2 × 2; shapes must be even."""
    x, y, z = volume.shape
    return volume.reshape(x // 2, 2, y // 2, 2, z // 2, 2).mean((1, 3, 5))


def whole_head(head: Head) -> Head:
    """The head on whole voxels: the label that most of a voxel has, brain where half of it is."""
    labels = np.zeros([n // 2 for n in head.labels.shape], np.uint8)
    most = np.zeros(labels.shape, np.float32)
    for label in np.unique(head.labels):
        share = voxel_mean((head.labels == label).astype(np.float32))
        labels[share > most] = label
        most = np.maximum(most, share)
    brain = voxel_mean(head.brain.astype(np.float32)) >= 0.5
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, :3].sum(axis=1) / 2
    affine[:3, :3] *= 2
    offset = None if head.chi_offset is None else voxel_mean(head.chi_offset)
    corner = None if head.instances is None else head.instances[::2, ::2, ::2]
    return Head(labels, brain, affine, offset, corner)


def whole_tissue(tissue: Tissue) -> Tissue:
    """Every map averaged over whole voxels."""
    maps = (tissue.chi, tissue.m0, tissue.r1, tissue.r2star, tissue.r2, tissue.fat)
    return Tissue(*(voxel_mean(m) for m in maps))


def whole_fields(truth: Fields, brain: np.ndarray) -> Fields:
    """The truth of whole voxels: means of the fields, χ zero outside `brain` and of no mean."""
    total, local, background, shim, chi = (
        voxel_mean(f) for f in (truth.total, truth.local, truth.background, truth.shim, truth.chi)
    )
    chi = np.where(brain, chi - chi[brain].mean(), 0).astype(np.float32)
    return Fields(total, local, background, shim, chi)
