"""From a volume and its affine to 2-D pictures of anatomical planes, for display only.

Pictures follow the neurological convention: the subject's left is on the reader's left. The
letters beside a picture come from the affine, so a flipped storage order cannot mislead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from qsm_nipype.core.geometry import voxel_size

PLANES = ("axial", "coronal", "sagittal")
_NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
_EDGES = {
    "axial": ("L", "R", "A", "P"),
    "coronal": ("L", "R", "S", "I"),
    "sagittal": ("P", "A", "S", "I"),
}


@dataclass(frozen=True)
class Upright:
    """A volume with axes turned to the nearest right-anterior-superior order, not resampled."""

    data: np.ndarray
    affine: np.ndarray

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths in mm."""
        return voxel_size(self.affine)

    def slice(self, plane: str, index: int) -> np.ndarray:
        """One picture, row 0 on top, as the reader sees it."""
        return self.data[(slice(None),) * _NORMAL[plane] + (index,)].T[::-1]

    def pixel_size(self, plane: str) -> tuple[float, float]:
        """Width and height of a picture element in mm."""
        x, y, z = self.voxel_size
        return {"axial": (x, y), "coronal": (x, z), "sagittal": (y, z)}[plane]

    def position(self, plane: str, index: int) -> float:
        """Scanner coordinate in mm of a slice's centre along its normal."""
        axis = _NORMAL[plane]
        centre = (np.array(self.data.shape[:3]) - 1) / 2
        centre[axis] = index
        return float((self.affine[:3, :3] @ centre + self.affine[:3, 3])[axis])


def upright(data: np.ndarray, affine: np.ndarray) -> Upright:
    """The first three axes in the order nearest to right-anterior-superior: a view, no copy."""
    turn = io_orientation(affine)
    turned = apply_orientation(data, turn)
    return Upright(turned, affine @ inv_ornt_aff(turn, data.shape[:3]))


def edges(plane: str) -> tuple[str, str, str, str]:
    """Letters at the left, right, top and bottom of a picture."""
    return _EDGES[plane]


def extent(mask: np.ndarray, plane: str) -> tuple[int, int]:
    """First and last slice of `plane` with a voxel of `mask`; the whole volume if it is empty."""
    axis = _NORMAL[plane]
    others = tuple(i for i in range(3) if i != axis)
    hit = np.flatnonzero(mask.any(axis=others))
    return (int(hit[0]), int(hit[-1])) if hit.size else (0, mask.shape[axis] - 1)


def spread_slices(mask: np.ndarray, plane: str, count: int) -> list[int]:
    """At most `count` evenly spaced slices through the mask, its outermost tips left out."""
    first, last = extent(mask, plane)
    margin = 0.06 * (last - first)
    picks = np.linspace(first + margin, last - margin, count)
    return sorted({int(round(p)) for p in picks})


def central_slice(mask: np.ndarray, plane: str) -> int:
    """Slice through the centre of mass of the mask, the volume's middle if the mask is empty."""
    axis = _NORMAL[plane]
    if not mask.any():
        return mask.shape[axis] // 2
    others = tuple(i for i in range(3) if i != axis)
    weight = mask.sum(axis=others)
    return int(round(float(np.average(np.arange(mask.shape[axis]), weights=weight))))


def cropped(volume: Upright, mask: np.ndarray, margin: float = 10.0) -> tuple[slice, ...]:
    """The box around the mask with `margin` mm on each side; everything if the mask is empty."""
    box = []
    for axis, size in enumerate(volume.voxel_size):
        plane = next(p for p, n in _NORMAL.items() if n == axis)
        first, last = extent(mask, plane)
        pad = int(np.ceil(margin / size))
        box.append(slice(max(0, first - pad), min(mask.shape[axis], last + pad + 1)))
    return tuple(box)


def crop(volume: Upright, box: tuple[slice, ...]) -> Upright:
    """The part of `volume` inside `box`, with its affine moved along."""
    moved = volume.affine.copy()
    moved[:3, 3] += volume.affine[:3, :3] @ [float(s.start) for s in box]
    return Upright(volume.data[box], moved)
