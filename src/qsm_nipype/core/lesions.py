"""Lesions in a mask: instances, their geometry and susceptibility, and patches around them.

Arrays are `(X, Y, Z)` numpy arrays on one grid; lengths in mm, susceptibility in ppm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: depth (mm) of the shell that counts as a lesion's rim
RIM_THICKNESS = 1.5
#: A neck narrower than this fraction of the smaller of two bodies parts them.
NARROWEST_NECK = 0.75
_TOUCHING = np.ones((3, 3, 3), bool)
METHODS = ("split", "components")


@dataclass(frozen=True)
class Lesion:
    """One instance: centre (voxel, fractional), volume (mm³), susceptibility (ppm).

    `core` and `rim` are mean and SD of the inner part and of the outer `RIM_THICKNESS`; None
    where there is no such part with a known susceptibility. `inside` is the fraction with a
    known one.
    """

    index: int
    center: tuple[float, float, float]
    voxels: int
    volume: float
    core: tuple[float, float] | None
    rim: tuple[float, float] | None
    inside: float


def find_instances(
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    method: str = "split",
    min_volume: float = 0.0,
) -> np.ndarray:
    """Number the lesions of a `mask` (bool) 1, 2 … by falling volume; labels given stay.

    "components": connected ones (26 neighbours). "split": those, and confluent lesions are parted
    where their distance to the surface has maxima joined by a neck. Lesions below `min_volume`
    (mm³) are left out. Returns int32. Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"{method}: instances are found by {' or '.join(METHODS)}")
    if mask.dtype != bool and np.unique(mask[mask > 0]).size > 1:
        return np.where(mask > 0, mask, 0).astype(np.int32)
    labels, _ = ndimage.label(mask > 0, structure=_TOUCHING)
    if method == "split":
        labels = _split(labels, voxel_size)
    return _renumber(labels, min_volume / float(np.prod(voxel_size)))


def _renumber(labels: np.ndarray, smallest: float) -> np.ndarray:
    """Labels 1, 2 … by falling size, without those of fewer than `smallest` voxels."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = [n for n in np.argsort(-sizes, kind="stable") if sizes[n] > 0 and sizes[n] >= smallest]
    table = np.zeros(sizes.size, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[labels]


def _split(labels: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """Part each connected body into the balls around its centres."""
    step = np.asarray(voxel_size, float)
    out, used = np.zeros_like(labels), 0
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        body = np.pad(labels[box] == number, 1)
        depth = ndimage.distance_transform_edt(body, sampling=step)
        centers = _centers(depth, step)
        points = np.argwhere(body)
        radii = depth[tuple(centers.T)]
        # the power distance |x − c|² − r² has its border in the plane where two balls meet
        power = [
            np.square((points - c) * step).sum(1) - r**2
            for c, r in zip(centers, radii, strict=True)
        ]
        part = np.zeros(body.shape, labels.dtype)
        part[body] = used + 1 + np.argmin(power, axis=0)
        inner = part[1:-1, 1:-1, 1:-1]
        out[box][inner > 0] = inner[inner > 0]
        used += len(centers)
    return out


def _centers(depth: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Voxels `(N, 3)` of the deepest points that are parted from deeper ones by a neck."""
    smooth = ndimage.gaussian_filter(depth, 0.7) * (depth > 0)  # maxima inside, also of a ring
    peaks = (ndimage.maximum_filter(smooth, 3) == smooth) & (depth > 0)
    candidates = np.argwhere(peaks)
    candidates = candidates[np.argsort(-depth[tuple(candidates.T)], kind="stable")]
    kept = [candidates[0]]
    for point in candidates[1:]:
        reach = float(depth[tuple(point)])
        if reach < 1.9 * step.min():  # a corner, not a body
            continue
        if all(_narrowest(depth, point, other) < NARROWEST_NECK * reach for other in kept):
            kept.append(point)
    return np.asarray(kept)


def _narrowest(depth: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Smallest depth on the straight line between two voxels."""
    count = int(np.abs(b - a).max()) * 2 + 1
    line = a[:, None] + (b - a)[:, None] * np.linspace(0, 1, count)
    return float(ndimage.map_coordinates(depth, line, order=1).min())


def describe(
    instances: np.ndarray,
    chi: np.ndarray,
    known: np.ndarray,
    voxel_size: Sequence[float],
) -> list[Lesion]:
    """Every instance with its geometry and the susceptibility `chi` (ppm) where it is `known`."""
    found = []
    boxes = ndimage.find_objects(instances)
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        body = np.pad(instances[box] == number, 1)
        depth = ndimage.distance_transform_edt(body, sampling=voxel_size)[1:-1, 1:-1, 1:-1]
        body = body[1:-1, 1:-1, 1:-1]
        values, trusted = chi[box], known[box] & body
        center = np.argwhere(body).mean(0) + [s.start for s in box]
        voxels = int(body.sum())
        found.append(
            Lesion(
                number,
                tuple(center.tolist()),
                voxels,
                voxels * float(np.prod(voxel_size)),
                _mean_sd(values[trusted & (depth > RIM_THICKNESS)]),
                _mean_sd(values[trusted & (depth <= RIM_THICKNESS)]),
                float(trusted.sum() / voxels),
            )
        )
    return found


def _mean_sd(values: np.ndarray) -> tuple[float, float] | None:
    return (float(values.mean()), float(values.std())) if values.size else None


def cut_patches(
    volume: np.ndarray, centers: Sequence[Sequence[float]], edge: int, *, fill: float = 0.0
) -> np.ndarray:
    """Cubes `(N, edge, edge, edge)` around voxel `centers` (rounded), `fill` outside the volume.

    The centre lies at index `edge` // 2.
    """
    out = np.full((len(centers), edge, edge, edge), fill, np.float32)
    for patch, center in zip(out, centers, strict=True):
        start = np.round(np.asarray(center)).astype(int) - edge // 2
        low, high = np.maximum(start, 0), np.minimum(start + edge, volume.shape)
        if (high > low).all():
            source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            target = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
            patch[target] = volume[source]
    return out


def unit_grid(
    shape: Sequence[int], affine: np.ndarray, *, tolerance: float = 0.02
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a grid of 1 mm over the same volume, axes to the right, front and top.

    The axes stay along those of the volume, only their order and sense change; the given grid
    comes back when it is such a grid within `tolerance` (fraction of a voxel's edge).
    """
    size = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / size
    order = _axis_order(axes)
    if order == (0, 1, 2) and (np.diag(axes) > 0).all() and np.abs(size - 1).max() < tolerance:
        return tuple(int(n) for n in shape[:3]), affine  # type: ignore[return-value]
    turned = axes[:, order] * np.sign(axes[range(3), order])
    extent = np.asarray(shape[:3])[list(order)] * size[list(order)]
    count = np.maximum(np.round(extent), 1).astype(int)
    middle = affine[:3, :3] @ ((np.asarray(shape[:3]) - 1) / 2) + affine[:3, 3]
    onto = np.eye(4)
    onto[:3, :3] = turned
    onto[:3, 3] = middle - turned @ ((count - 1) / 2)
    return tuple(count.tolist()), onto


def _axis_order(axes: np.ndarray) -> tuple[int, ...]:
    """Which voxel axis points most along x, y and z, each used once."""
    from itertools import permutations

    return max(permutations(range(3)), key=lambda p: float(np.abs(axes[range(3), p]).sum()))


def baseline(lesions: Sequence[Lesion]) -> np.ndarray:
    """Mean susceptibility of the rim minus that of the core (ppm); 0 where one is missing.

    The simplest rim detector, to compare with.
    """
    return np.array(
        [x.rim[0] - x.core[0] if x.rim and x.core else 0.0 for x in lesions], dtype=float
    )
