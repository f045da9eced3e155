"""The deep grey nuclei: their numbers and names, and which side a voxel lies on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Kinds of nuclei 1, 2 …, as the network numbers them on both sides.
KINDS = (
    "caudate nucleus",
    "putamen",
    "external pallidum",
    "internal pallidum",
    "thalamus",
    "red nucleus",
    "substantia nigra",
    "subthalamic nucleus",
)
LEFT, RIGHT = 1, 2
#: Index in a segmentation → name: odd on the left, even on the right.
NAMES = {
    2 * kind + side: f"{name} {text}"
    for kind, text in enumerate(KINDS)
    for side, name in ((LEFT, "left"), (RIGHT, "right"))
}
#: Of the whole pallidum, both parts together.
PALLIDUM_NAMES = {LEFT: "left pallidum", RIGHT: "right pallidum"}
_PALLIDUM = ("external pallidum", "internal pallidum")


def with_sides(kinds: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """Labels of `NAMES` from `kinds` `(X, Y, Z)` (1, 2 … of KINDS on both sides); axes are RAS+.

    The midplane is that between both sides' nuclei: it starts at the median of x and is fitted
    to the kinds' centres on its sides, weighted by their volume, until it stays.
    """
    where = np.argwhere(kinds)
    labels = np.zeros(kinds.shape, np.uint8)
    if not len(where):
        return labels
    points = where * np.asarray(voxel_size, dtype=float)
    kind = kinds[tuple(where.T)].astype(int)
    normal, offset = np.array([1.0, 0.0, 0.0]), float(_middle(points[:, 0], kind))
    for _ in range(8):
        right = points @ normal > offset
        found = _midplane(points, kind, right)
        if found is None:
            break
        normal, offset = found
        if ((points @ normal > offset) == right).all():
            break
    right = points @ normal > offset
    labels[tuple(where.T)] = 2 * (kind - 1) + np.where(right, RIGHT, LEFT)
    return labels


def _middle(x: np.ndarray, kind: np.ndarray) -> float:
    """Where x halves the kinds: the median of the middles of their extents."""
    middles = [(x[kind == k].min() + x[kind == k].max()) / 2 for k in np.unique(kind)]
    return float(np.median(middles))


def _midplane(
    points: np.ndarray, kind: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """Unit normal (to the right) and offset of the plane between the pairs; None without pairs."""
    centres, ways, weights = [], [], []
    for k in np.unique(kind):
        a, b = points[(kind == k) & ~right], points[(kind == k) & right]
        if min(len(a), len(b)) > 0.3 * max(len(a), len(b)):
            centres.append((a.mean(0) + b.mean(0)) / 2)
            ways.append(b.mean(0) - a.mean(0))
            weights.append(min(len(a), len(b)))
    if not centres:
        return None
    normal = np.average(ways, axis=0, weights=weights)
    normal /= np.linalg.norm(normal)
    if normal[0] < 0.8:  # heads are not turned so far
        return None
    return normal, float(np.average(np.asarray(centres) @ normal, weights=weights))


def pallidum(labels: np.ndarray) -> np.ndarray:
    """Both parts of the pallidum in `labels` of `NAMES` as one: 1 left, 2 right (uint8)."""
    whole = np.zeros(labels.shape, np.uint8)
    for side, name in ((LEFT, "left"), (RIGHT, "right")):
        parts = [
            index for index, text in NAMES.items() if text in {f"{name} {p}" for p in _PALLIDUM}
        ]
        whole[np.isin(labels, parts)] = side
    return whole
