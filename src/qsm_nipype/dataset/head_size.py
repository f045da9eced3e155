"""Whether an acquisition shows a head of human size, which lengths in mm are made for."""

from __future__ import annotations

import numpy as np

from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.volume import first_volume

#: Longest edge (mm) of a field of view, and of a head, below which it is no human's. An infant's
#: head is twice as long, a slab of an adult's three times.
SMALLEST = 60.0
#: Longest edge (mm) of a field of view that may hold a head smaller than that; looked at then.
_TIGHT = 150.0
#: Voxels that are enough for that look.
_LOOKED_AT = 1e6
#: Length (mm) of a human head, to which a smaller one is enlarged.
_HUMAN = 200.0


def too_small(acquisition: Acquisition) -> str:
    """Why the lengths of masks, trimming and smoothing do not fit; empty where they do."""
    view = [n * v for n, v in zip(acquisition.shape, acquisition.voxel_size, strict=True)]
    if max(view) >= _TIGHT:
        return ""
    if max(view) < SMALLEST:
        return _sentence("the field of view measures", view)
    extent = _extent(acquisition)
    return _sentence("the head measures about", extent) if max(extent) < SMALLEST else ""


def _sentence(what: str, lengths: list[float]) -> str:
    shown = "×".join(f"{v:.3g}" for v in lengths)
    factor = max(2, round(_HUMAN / max(lengths)))
    return (
        f"{what} {shown} mm, which no human head does: masks, trimming and smoothing have lengths "
        f"in mm of a human head, so a small animal's cannot be mapped as it is; multiply the "
        f"affine in the headers of all its images by {factor} (χ does not depend on the size of "
        f"the voxels)"
    )


def _extent(acquisition: Acquisition) -> list[float]:
    """Edges (mm) of the box around what is bright in the first magnitude; of the whole if none."""
    files = acquisition.magnitude or acquisition.real or acquisition.files
    step = max(1, round((acquisition.voxels / _LOOKED_AT) ** (1 / 3)))
    image = np.abs(first_volume(files[0])[::step, ::step, ::step])
    places = np.argwhere(image > 0.2 * np.percentile(image, 99.9))
    if not len(places):
        places = np.array([(0, 0, 0), image.shape])
    low, high = np.percentile(places, [2, 98], axis=0)
    return [float(v) for v in (high - low + 1) * step * acquisition.voxel_size]
