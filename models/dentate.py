"""Dentate nuclei on a susceptibility map in two steps, as in DentateSeg.

A first nnU-Net finds the cerebellum on a coarse map, a second one segments both nuclei at its own
resolution in a box around their usual place. Arrays in, arrays out; axes are RAS+.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from qsm_nipype.errors import DataError, WeightsError
from qsm_nipype.models.nnunet import Model, predict
from qsm_nipype.models.window import Window

LEFT, RIGHT = 1, 2
#: The first network's labels: the cerebellum without, and the place of, the dentate nuclei.
CEREBELLUM, NUCLEI_PLACE = 1, 2
#: Box around both nuclei (mm), and where its middle lies seen from that of a whole cerebellum.
BOX = (96.0, 72.0, 64.0)
OFFSET = (0.0, 2.0, -1.0)
#: The first network sees no values beyond this (ppm): sinuses and artefacts would dim the rest.
COARSE_LIMIT = 0.1
#: Less of the nuclei's place than this (mm³) holds no nuclei; whole ones have about 24 000.
LEAST_PLACE = 6_000.0
#: So much cerebellum (mm³; adults have 110 000 to 150 000) holds the nuclei, seen or not; where
#: there is none the localiser claims less.
WHOLE_CEREBELLUM = 70_000.0
#: Less of a nucleus than this (mm³) is noise; adults have 400 to 1300.
LEAST_NUCLEUS = 100.0
#: The same where the cerebellum is not whole: a slab above it has shown chance nuclei of 130.
LEAST_IN_PART = 250.0
#: Longer voxel edges (mm) show no dentate nucleus: its walls are 2 mm thick.
LARGEST_VOXEL = 2.6
#: A map whose middle values are beyond this is not in ppm.
LARGEST_SPREAD = 2.0


@dataclass(frozen=True)
class Segmentation:
    """`labels` (uint8; 1 left, 2 right) and `cerebellum` (bool), both `(X, Y, Z)`.

    `box` holds the first voxel and the size of the searched box. `status` is "found",
    "not covered" (their place is not in the field of view), "too coarse", "not found" or
    "reversed sign"; `notes` say in a sentence each what a reader must know.
    """

    labels: np.ndarray
    cerebellum: np.ndarray
    status: str
    box: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    notes: tuple[str, ...] = field(default=())


def segment(
    chi: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    localiser: Model,
    segmenter: Model,
    device: str = "cpu",
    mirrored: bool = False,
) -> Segmentation:
    """Find and label the dentate nuclei on `chi` `(X, Y, Z)` in ppm, paramagnetic positive.

    `mask` are the voxels with susceptibility, `voxel_size` in mm, axes RAS+. `mirrored` averages
    the segmenter's answer with that to the mirrored map, sides exchanged. Raises DataError when
    the values cannot be ppm, WeightsError when a model has other labels than it should.
    """
    check_unit(chi, mask)
    chi = np.where(mask, np.nan_to_num(chi), 0).astype(np.float32)
    empty = np.zeros(chi.shape, np.uint8)
    if max(voxel_size) > LARGEST_VOXEL:
        note = (
            f"Voxels of {max(voxel_size):.3g} mm are too coarse for the dentate nuclei, which "
            "were not looked for."
        )
        return Segmentation(empty, empty > 0, "too coarse", notes=(note,))
    networks = localiser, segmenter, device
    found = _search(chi, mask, voxel_size, networks, mirrored)
    if found.status != "found":
        opposite = _search(-chi, mask, voxel_size, networks, mirrored)
        whole = _is_whole(opposite.cerebellum, voxel_size)
        if whole and len(np.unique(opposite.labels)) == 3:
            note = (
                "The dentate nuclei are seen only with the opposite sign of susceptibility: the "
                "sign of the phase is wrong; give the other --phase-sign (positive or negative), "
                "or multiply a map of your own by −1."
            )
            return replace(opposite, labels=empty, status="reversed sign", notes=(note,))
    return found


def _search(
    chi: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    networks: tuple[Model, Model, str],
    mirrored: bool,
) -> Segmentation:
    """The nuclei that are brighter than their surroundings."""
    localiser, segmenter, device = networks
    empty = np.zeros(chi.shape, np.uint8)
    cerebellum, middle = locate(chi, mask, voxel_size, localiser, device)
    if middle is None:
        part = "no cerebellum" if not cerebellum.any() else "too little of the cerebellum"
        note = f"The field of view holds {part}, so the dentate nuclei were not looked for."
        return Segmentation(empty, cerebellum, "not covered", notes=(note,))
    extent = np.maximum(BOX, segmenter.extent)
    labels = label_box(chi, middle, extent, voxel_size, segmenter, device, mirrored=mirrored)
    box = _box(middle, extent, voxel_size, chi.shape)
    least = LEAST_NUCLEUS if _is_whole(cerebellum, voxel_size) else LEAST_IN_PART
    found = keep_nuclei(labels * mask, voxel_size, cerebellum, least=least)
    if not found.any() and not _is_whole(cerebellum, voxel_size):
        note = (
            "The field of view holds part of a cerebellum at most, and no dentate nucleus in it."
        )
        return Segmentation(empty, cerebellum, "not covered", box, (note,))
    if not found.any():
        note = "The cerebellum is in the field of view, but no dentate nucleus was found in it."
        return Segmentation(empty, cerebellum, "not found", box, (note,))
    return Segmentation(found, cerebellum, "found", box, _remarks(found, mask))


def _is_whole(cerebellum: np.ndarray, voxel_size: Sequence[float]) -> bool:
    return bool(cerebellum.sum() * np.prod(voxel_size) >= WHOLE_CEREBELLUM)


def check_unit(chi: np.ndarray, mask: np.ndarray) -> None:
    """Raise DataError for a map whose spread says that it is in ppb."""
    values = chi[mask & np.isfinite(chi)]
    if values.size == 0:
        return
    spread = float(np.percentile(np.abs(values - np.median(values)), 68))
    if spread > LARGEST_SPREAD:
        raise DataError(
            f"susceptibility spreads by {spread:.3g} in the brain, which cannot be ppm; divide a "
            "map in ppb by 1000"
        )


def locate(
    chi: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float], localiser: Model, device: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mask of the cerebellum, and the middle of the nuclei's place in voxels, None without it.

    Where a whole cerebellum shows no such place, its middle says where it should be.
    """
    spacing = localiser.spacing
    size = np.asarray(voxel_size, dtype=float)
    coarse, actual = chi, size.copy()
    for axis in range(3):
        count = max(1, round(chi.shape[axis] * size[axis] / spacing[axis]))
        coarse = area_mean(coarse, axis, count)
        actual[axis] = chi.shape[axis] * size[axis] / count
    nothing = np.zeros(chi.shape, dtype=bool)
    if not coarse.any():
        return nothing, None
    coarse = coarse.clip(-COARSE_LIMIT, COARSE_LIMIT)
    found = predict(localiser, coarse, actual, device=device)
    share = 1 - found[0]
    inside = _largest(share > 0.5)
    likely = found[min(NUCLEI_PLACE, len(found) - 1)] > 0.5
    place = inside & likely & (len(found) > NUCLEI_PLACE)
    cell, ratio = actual.prod(), actual / size
    if place.sum() * cell >= LEAST_PLACE:
        middle = _centre(place, ratio)
        middle[0] = _centre(inside, ratio)[0]  # though one side be unseen
    elif inside.sum() * cell >= WHOLE_CEREBELLUM:
        middle = _centre(inside, ratio) + np.array(OFFSET) / size
    else:
        middle = None
    near = ndimage.binary_dilation(inside, iterations=1)
    fine = ndimage.affine_transform(
        share * near, 1 / ratio, 0.5 / ratio - 0.5, output_shape=chi.shape, order=1, mode="nearest"
    )
    return (fine > 0.5) & mask, middle


def _centre(cells: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Centre of mass of coarse cells, in voxels."""
    return (np.argwhere(cells).mean(0) + 0.5) * ratio - 0.5


def area_mean(volume: np.ndarray, axis: int, count: int) -> np.ndarray:
    """`volume` averaged into `count` equal cells along `axis`; finer cells are interpolated."""
    n = volume.shape[axis]
    if count == n:
        return volume
    total = np.cumsum(volume, axis, dtype=np.float64)
    total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis)
    at = np.linspace(0, n, count + 1)
    low = np.minimum(at.astype(int), n - 1)
    weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
    edges = np.take(total, low, axis) * (1 - weight) + np.take(total, low + 1, axis) * weight
    return (np.diff(edges, axis=axis) * (count / n)).astype(np.float32)


def label_box(
    chi: np.ndarray,
    middle: np.ndarray,
    extent: np.ndarray,
    voxel_size: Sequence[float],
    segmenter: Model,
    device: str,
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """Labels (1 left, 2 right) of the whole grid, from the network's look at one box.

    The box of `extent` (mm) around the voxel `middle` is read at the network's spacing; its
    probabilities are read back at the voxels. `mirrored` averages them with those of the mirrored
    box, whose left is the right.
    """
    step = np.asarray(segmenter.spacing)
    window = Window.around(middle, extent, segmenter.spacing, voxel_size, chi.shape)
    box = window.sample(chi)
    if not box.any():
        return np.zeros(chi.shape, np.uint8)
    sides = _sides(predict(segmenter, box, step, device=device), segmenter)
    if mirrored:
        other = predict(segmenter, np.ascontiguousarray(box[::-1]), step, device=device)
        right, left = _sides(other, segmenter)
        sides = (sides[0] + left[::-1]) / 2, (sides[1] + right[::-1]) / 2
    back = [window.back(share) for share in sides]
    labels = np.zeros(chi.shape, np.uint8)
    inside = sum(back) > 0.5
    labels[window.slices][inside] = np.where(back[0] >= back[1], LEFT, RIGHT)[inside]
    return labels


def _sides(found: np.ndarray, segmenter: Model) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of left and right: labels by name, else 1 and 2, else one label by halves."""
    labels = segmenter.labels
    left = [v for k, v in labels.items() if "left" in k.lower()]
    right = [v for k, v in labels.items() if "right" in k.lower()]
    if len(left) == 1 and len(right) == 1:
        return found[left[0]], found[right[0]]
    if len(labels) == 2:
        return found[LEFT], found[RIGHT]
    if len(labels) == 1:
        share = found[next(iter(labels.values()))]
        where = np.argwhere(share > 0.5)
        half = (
            share.shape[0] / 2 if len(where) == 0 else np.ptp(where[:, 0]) / 2 + where[:, 0].min()
        )
        leftward = (np.arange(share.shape[0]) < half)[:, None, None]
        return share * leftward, share * ~leftward
    raise WeightsError(
        f"{segmenter.path}: segments {', '.join(labels)}; give a model of the left and the right "
        "dentate nucleus"
    )


def keep_nuclei(
    labels: np.ndarray,
    voxel_size: Sequence[float],
    cerebellum: np.ndarray,
    *,
    least: float = LEAST_NUCLEUS,
) -> np.ndarray:
    """Of each side the largest part (gaps of one voxel don't divide).

    It stays when it has `least` mm³ and more than half of it lies in the cerebellum.
    """
    kept = np.zeros_like(labels)
    for side in (LEFT, RIGHT):
        where = labels == side
        if not where.any():
            continue
        box = ndimage.find_objects(where.astype(np.uint8))[0]
        near = ndimage.binary_dilation(np.pad(where[box], 1))
        part = where[box] & _largest(near)[1:-1, 1:-1, 1:-1]
        large = part.sum() * np.prod(voxel_size) >= least
        if large and cerebellum[box][part].mean() > 0.5:
            kept[box][part] = side
    return kept


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def _box(
    middle: np.ndarray, extent: np.ndarray, voxel_size: Sequence[float], shape: Sequence[int]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    half = extent / np.asarray(voxel_size) / 2
    low = np.clip(np.round(middle - half).astype(int), 0, shape)
    high = np.clip(np.round(middle + half).astype(int), 0, shape)
    return tuple(low.tolist()), tuple((high - low).tolist())  # type: ignore[return-value]


def _remarks(labels: np.ndarray, mask: np.ndarray) -> tuple[str, ...]:
    """What makes the volumes doubtful: a missing side, or a nucleus cut by the field of view."""
    notes = []
    seen = np.pad(mask, 1)  # what the field of view cuts counts as outside
    inner = ndimage.binary_erosion(seen, np.ones((3, 3, 3)))[1:-1, 1:-1, 1:-1]
    for side, name in ((LEFT, "left"), (RIGHT, "right")):
        where = labels == side
        if not where.any():
            notes.append(f"The {name} dentate nucleus was not found.")
        elif (where & ~inner).sum() > 0.02 * where.sum():
            notes.append(
                f"The {name} dentate nucleus touches the border of the map: its volume is too "
                "small by an unknown amount."
            )
    return tuple(notes)
