"""Whether what the user brings can be what it is said to be: volume, place, grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.dataset.lesion_files import LesionFiles
from qsm_nipype.dataset.own_arrays import read_labels, read_lesions, read_mask_on
from qsm_nipype.dataset.own_files import Atlas, OwnFiles
from qsm_nipype.errors import DataError
from qsm_nipype.volume import Volume, first_volume, open_image, same_space

#: Largest brain with its fluid (cm³), and the largest load of lesions.
LARGEST_BRAIN, LARGEST_LESIONS = 2500.0, 300.0
#: Smallest share of a field of view (of this volume in cm³ at least) that a brain takes.
SMALLEST_SHARE, _LARGE_VIEW = 0.01, 300.0
#: Brightness, relative to the brightest tissue, above which there is a head; the least share of a
#: brain and of a reference region that lies there.
_DARK, _LEAST_HEAD = 0.08, {"masks": 0.5, "reference": 0.2}


def check_own_files(
    own: OwnFiles, files: Sequence[str], magnitude: Sequence[str], label: str
) -> OwnFiles:
    """`own` after a look at its values; lesions that lie on no known grid are left out, noted.

    `files` are the images of the acquisition `label`, `magnitude` those of its magnitude. Nodes
    read the same arrays by the same rules. Raises DataError naming the file and the cure.
    """
    grid = open_image(files[0])
    head = _head(magnitude) if own.mask or own.region else None
    brain = None
    if own.mask is not None:
        brain = _on_grid(own.mask, grid, label, "masks", head)
    if own.region is not None:
        region = _on_grid(own.region, grid, label, "reference", head)
        if brain is not None and not (region.data & brain.data).any():
            raise DataError(
                f"{own.region.name}: the reference region lies outside the brain mask "
                f"{own.mask.name if own.mask else ''}; give one inside it"
            )
    for atlas in own.atlases:
        _check_atlas(atlas, grid, label)
    if own.lesions is None:
        return own
    said = _lesions_fault(own.lesions, grid)
    if not said:
        return own
    return replace(own, lesions=None, notes=(*own.notes, f"Lesions were not looked at: {said}"))


def _on_grid(file: Path, grid: Any, label: str, kind: str, head: np.ndarray | None) -> Volume:
    """A mask on the grid of the acquisition, inside the head. Raises DataError."""
    mask = read_mask_on(file, np.asarray(grid.affine), grid.shape[:3], label)
    if kind == "masks":
        _check_brain(file, mask)
    if head is None or head.shape != mask.data.shape:
        return mask
    share = float(head[mask.data].mean())
    if share < _LEAST_HEAD[kind]:
        raise DataError(
            f"{file.name}: only {100 * share:.0f} % of it lies where the magnitude of {label} has "
            f"signal; give the one of this head and this orientation"
        )
    return mask


def _check_brain(file: Path, mask: Volume) -> None:
    """Refuse a mask too large, or too small, for a brain. Raises DataError."""
    voxel = float(np.prod(mask.voxel_size)) / 1000
    volume, view = voxel * float(mask.data.sum()), voxel * mask.data.size
    if volume > LARGEST_BRAIN:
        raise DataError(
            f"{file.name}: it has {volume:.0f} cm³, and no brain has over {LARGEST_BRAIN:.0f}; "
            f"give the brain's without the head around it (1 inside, 0 outside), or leave it out "
            f"and use --mask magnitude for all that has signal"
        )
    if mask.data.all():
        raise DataError(
            f"{file.name}: every voxel of the image is inside; give 0 outside of the brain"
        )
    if view > _LARGE_VIEW and volume < SMALLEST_SHARE * view:
        raise DataError(
            f"{file.name}: it has {volume:.3g} cm³, {100 * volume / view:.2g} % of the image, "
            f"which is no brain; give the mask of the whole brain (regions of interest by "
            f"-d segmentation)"
        )


def _head(magnitude: Sequence[str]) -> np.ndarray | None:
    """Where the first magnitude has signal; None where that cannot be told."""
    if not magnitude:
        return None
    image = first_volume(magnitude[0])
    bright = float(np.percentile(image[::2, ::2, ::2], 99))
    return None if bright <= 0 else image > _DARK * bright


def _check_atlas(atlas: Atlas, grid: Any, label: str) -> None:
    """Refuse a segmentation with other values, or that lies elsewhere. Raises DataError."""
    volume = read_labels(atlas.file)
    if not volume.data.any():
        raise DataError(
            f"{atlas.file.name}: it has no region, all labels are 0; give others, or leave out "
            f"-d segmentation"
        )
    if atlas.anatomical is not None:  # it is registered
        open_image(atlas.anatomical)
        return
    places = np.argwhere(volume.data > 0)
    places = places[:: max(1, len(places) // 100_000)]
    world = places @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    affine = np.asarray(grid.affine)
    index = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T
    shape = np.asarray(grid.shape[:3])
    if not ((index > -0.5) & (index < shape - 0.5)).all(axis=1).any():
        raise DataError(
            f"{atlas.file.name}: none of its regions lies in the field of view of {label}; give "
            f"the T1w image beside it, to register by, or the segmentation of this head"
        )


def _lesions_fault(lesions: LesionFiles, grid: Any) -> str:
    """Why lesions cannot be looked at; empty where they can. Raises DataError for other values."""
    mask, _ = read_lesions(lesions.mask)
    volume = float(np.prod(mask.voxel_size)) * float((mask.data > 0).sum()) / 1000
    if volume > LARGEST_LESIONS:
        raise DataError(
            f"{lesions.mask.name}: it has {volume:.0f} cm³, and lesions do not have over "
            f"{LARGEST_LESIONS:.0f}; give the mask of the lesions, not of the brain"
        )
    try:
        flair = open_image(lesions.flair)
    except DataError as exc:
        return str(exc)
    for image in (flair, grid):
        affine, shape = np.asarray(image.affine), tuple(image.shape[:3])
        if shape == mask.data.shape and same_space(affine, mask.affine, shape):
            return ""
    return (
        f"{lesions.mask.name}: the lesion mask is on the grid neither of {lesions.flair.name} nor "
        f"of the gradient echoes; resample it to one of them"
    )
