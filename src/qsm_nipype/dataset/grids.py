"""The voxels of an acquisition: one grid for all its images, and what their headers leave open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.core.geometry import displacement, voxel_axes, voxel_size
from qsm_nipype.errors import DataError
from qsm_nipype.volume import check_orientation, open_image, same_space

#: Edges (mm) that a voxel of an image of tissue can have.
_SMALLEST_EDGE, _LARGEST_EDGE = 0.01, 20.0
#: Angle (degrees) by which the axes of an image may differ from the scanner's.
_TURNED = 2.0
#: A header's units of length that are not mm, and what makes mm of them.
_UNITS = {"meter": ("metres", 1000.0), "micron": ("micrometres", 0.001)}


@dataclass(frozen=True)
class Grid:
    """`shape` (X, Y, Z), `voxel_size` (mm), and the number of volumes of each image on it."""

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    volumes: Mapping[Path, int]


def check_grids(paths: Sequence[Path]) -> Grid:
    """The grid that all images share, one or several volumes of it. Raises DataError."""
    first, volumes = None, {}
    for path in paths:
        image = open_image(path)
        shape, affine = spatial(image.shape), np.asarray(image.affine)
        if len(shape) not in (3, 4) or min(shape[:3]) < 2:
            raise DataError(
                f"{path.name}: its shape is {_times(image.shape)}; QSM needs a 3-D volume (or 4-D "
                f"with all echoes)"
            )
        if first is None:
            first = (path, shape[:3], affine)
            _check_lengths(path, image)
        elif shape[:3] != first[1]:
            raise DataError(
                f"{path.name}: its shape {_times(shape[:3])} differs from {_times(first[1])} of "
                f"{first[0].name}; export all echoes on one grid"
            )
        elif not same_space(first[2], affine, first[1]):
            moved = displacement(first[2], affine, first[1])
            raise DataError(
                f"{path.name}: its orientation (affine) differs from that of {first[0].name} by "
                f"up to {moved:.2g} voxels; export all echoes on one grid, as acquired"
            )
        volumes[path] = shape[3] if len(shape) == 4 else 1
    assert first is not None
    x, y, z = first[1]
    return Grid((x, y, z), voxel_size(first[2]), volumes)


def spatial(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` without the axes of length one beyond the third."""
    return (*shape[:3], *(n for n in shape[3:] if n != 1))


def _check_lengths(path: Path, image: Any) -> None:
    """Refuse a header whose lengths are not mm. Raises DataError."""
    edges = voxel_size(np.asarray(image.affine))
    shown = " × ".join(f"{v:.4g}" for v in edges)
    unit = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else ""
    if unit in _UNITS:
        name, factor = _UNITS[unit]
        in_mm = " × ".join(f"{v * factor:.3g}" for v in edges)
        raise DataError(
            f"{path.name}: its header gives lengths in {name} (voxels of {shown}, so {in_mm} mm); "
            f"store the affine in mm, with the unit mm in xyzt_units"
        )
    if not all(_SMALLEST_EDGE <= v <= _LARGEST_EDGE for v in edges):
        raise DataError(
            f"{path.name}: its voxels measure {shown} mm by the header, which no scanner's do; "
            f"store the affine in mm"
        )


def shape_of(path: Path) -> tuple[int, ...]:
    """Numbers of voxels of an image, by its header. Raises DataError."""
    return spatial(open_image(path).shape)


def geometry_warnings(path: Path, metadata: Mapping[str, Any]) -> list[str]:
    """What is unclear about B0's direction and between the slices of an image; see the sidecar.

    Raises DataError for a header in which B0 is lost (`check_orientation`).
    """
    image = open_image(path)
    found = check_orientation(image, path.name) + _turned(path, image, metadata)
    if metadata.get("MRAcquisitionType") == "2D":
        found.append(
            "a 2-D acquisition: slices may have steps of phase or frequency of their own, which "
            "show up as stripes; look at the field across the slices"
        )
    return found


def _turned(path: Path, image: Any, metadata: Mapping[str, Any]) -> list[str]:
    """A sentence where the voxels' axes are not the scanner's, whatever their order.

    The direction of B0 comes from the header, and a header that lost its tilt is wrong about it.
    """
    try:
        rows = np.asarray(metadata["ImageOrientationPatientDICOM"], dtype=float).reshape(2, 3)
    except (KeyError, TypeError, ValueError):
        return []
    scanner = np.stack([*rows, np.cross(*rows)], axis=1) * [[-1], [-1], [1]]  # LPS to RAS
    nearest = np.abs(voxel_axes(np.asarray(image.affine)).T @ scanner).max(axis=0)
    angle = float(np.degrees(np.arccos(np.clip(nearest, 0, 1))).max())
    if not angle > _TURNED:
        return []
    return [
        f"{path.name}: its axes are {angle:.1f}° off those of ImageOrientationPatientDICOM in the "
        "sidecar: the direction of B0 may be wrong; convert the image again, or give it as "
        "acquired if it was resampled"
    ]


def _times(shape: Iterable[int]) -> str:
    return "×".join(str(n) for n in shape)
