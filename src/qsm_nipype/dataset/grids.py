"""The voxels of an acquisition: one grid for all its images, and what their headers leave open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.core.geometry import voxel_size
from qsm_nipype.errors import DataError
from qsm_nipype.volume import check_orientation, open_image


def check_grids(
    paths: Sequence[Path],
) -> tuple[tuple[int, int, int], tuple[float, float, float], int]:
    """Shape, voxel size (mm) and number of echoes that all images share. Raises DataError."""
    first, echoes = None, 1
    for path in paths:
        image = open_image(path)
        shape = tuple(image.shape)
        if len(shape) not in (3, 4) or min(shape) < 2 and len(shape) == 3:
            raise DataError(
                f"{path.name}: its shape is {_times(shape)}; QSM needs a 3-D volume (or 4-D with "
                f"all echoes)"
            )
        if first is None:
            first = (path, shape, np.asarray(image.affine))
            echoes = shape[3] if len(shape) == 4 else 1
        elif shape != first[1]:
            raise DataError(
                f"{path.name}: its shape {_times(shape)} differs from {_times(first[1])} of "
                f"{first[0].name}; export all echoes on one grid"
            )
        elif not np.allclose(image.affine, first[2], atol=1e-3):
            raise DataError(
                f"{path.name}: its orientation (affine) differs from that of {first[0].name}; "
                f"export all echoes on one grid"
            )
    assert first is not None
    x, y, z = first[1][:3]
    return (x, y, z), voxel_size(first[2]), echoes


def shape_of(path: Path) -> tuple[int, ...]:
    """Numbers of voxels of an image, by its header. Raises DataError."""
    return tuple(open_image(path).shape)


def geometry_warnings(path: Path, metadata: Mapping[str, Any]) -> list[str]:
    """What is unclear about B0's direction and between the slices of an image; see the sidecar.

    Raises DataError for a header in which B0 is lost (`check_orientation`).
    """
    found = check_orientation(open_image(path), path.name)
    if metadata.get("MRAcquisitionType") == "2D":
        found.append(
            "a 2-D acquisition: slices may have steps of phase or frequency of their own, which "
            "show up as stripes; look at the field across the slices"
        )
    return found


def _times(shape: Iterable[int]) -> str:
    return "×".join(str(n) for n in shape)
