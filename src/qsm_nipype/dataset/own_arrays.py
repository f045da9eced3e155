"""The user's own masks, lesions and segmentations as read: by preflight and by the nodes alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qsm_nipype.core import region_values
from qsm_nipype.core.geometry import displacement
from qsm_nipype.errors import DataError
from qsm_nipype.volume import SAME_GRID, Volume, along_axes_of, load, open_image


def read_mask(path: str | os.PathLike[str]) -> Volume:
    """A mask or region, bool (see `region_values.binary`). Raises DataError."""
    return _read(path, region_values.binary)


def read_mask_on(
    path: str | os.PathLike[str], affine: np.ndarray, shape: Sequence[int], name: str
) -> Volume:
    """A mask on the grid of the image `name` with `affine` and `shape`, its axes turned onto it.

    Raises DataError where it lies on other voxels.
    """
    mask = along_axes_of(read_mask(path), affine)
    fits = mask.data.shape == tuple(shape)
    moved = displacement(affine, mask.affine, shape) if fits else float("inf")
    if not moved <= SAME_GRID:
        apart = f", apart by up to {moved:.3g} voxels" if fits else ""
        raise DataError(
            f"{Path(path).name}: its grid (shape or affine) differs from that of {name}{apart}; "
            f"resample it to the grid of the gradient echoes"
        )
    return replace(mask, affine=affine)


def read_labels(path: str | os.PathLike[str]) -> Volume:
    """A segmentation, int32 (see `region_values.labels`). Raises DataError."""
    return _read(path, region_values.labels)


def read_lesions(path: str | os.PathLike[str]) -> tuple[Volume, str]:
    """Lesions, int32, and what was decided about their values (`region_values.read_lesions`).

    Raises DataError.
    """
    said: list[str] = []

    def rule(values: np.ndarray, name: str) -> np.ndarray:
        found, sentence = region_values.read_lesions(values, name)
        said.append(sentence)
        return found

    volume = _read(path, rule)
    return volume, said[0]


def _read(path: str | os.PathLike[str], rule: Callable[[np.ndarray, str], np.ndarray]) -> Volume:
    name = Path(path).name
    if open_image(path).get_data_dtype().kind not in "buif":
        raise DataError(f"{name}: it has colours or complex numbers; give plain numbers")
    volume = load(path)
    return replace(volume, data=rule(volume.data, name))
