"""Deep grey nuclei on a susceptibility map in two steps, as `models.dentate`.

A first nnU-Net finds the nuclei's place on a coarse map, a second one tells their kinds in a box
around it, the same numbers on both sides; the midplane between them says which side is which.
Arrays in, arrays out; axes are RAS+.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from qsm_nipype.core.deep_grey import KINDS, NAMES, with_sides
from qsm_nipype.errors import WeightsError
from qsm_nipype.models.dentate import LARGEST_VOXEL, area_mean, check_unit
from qsm_nipype.models.nnunet import Model, predict
from qsm_nipype.models.window import Window

#: Box around all nuclei (mm).
BOX = (96.0, 112.0, 80.0)
#: The first network sees no values beyond this (ppm): sinuses and artefacts would dim the rest.
COARSE_LIMIT = 0.15
#: Where samples begin, in their spacing: half of it apart, so that edges are seen twice.
STARTS = (-0.25, 0.25)
#: Nuclei that lie further (mm) than this from the middle of the box are looked at again.
OFF_CENTRE = 7.0
#: Less of the nuclei's place than this (mm³) holds none; whole ones have 70 000 to 100 000.
LEAST_PLACE = 15_000.0
#: Less of a nucleus of either side than this (mm³) is noise, in the order of KINDS: about a tenth
#: of an adult's.
LEAST = (350.0, 450.0, 110.0, 50.0, 600.0, 40.0, 60.0, 20.0)
#: What the shipped network's probability of each of KINDS is multiplied by: it sees small nuclei
#: too small, and so their volumes are right on the volumes that it was trained on.
GAINS = (1.5, 1.0, 1.0, 1.5, 1.0, 2.0, 2.0, 2.0)
#: So many of the sixteen nuclei, at least, are a head's; with fewer than ENOUGH the head may lie
#: the other way round.
FEWEST, ENOUGH = 5, 13
#: It does where the nuclei are so much larger then: a head that lies as it should has 0.7 to 0.8
#: of its nuclei's volume the other way round, however many there seem to be.
LARGER = 1.25
TURNED = (
    "The deep grey nuclei are seen only with the head turned by half: its affine has the face to "
    "the back. Correct it; until then left and right of the nuclei are a guess."
)


@dataclass(frozen=True)
class Segmentation:
    """`labels` (uint8, numbers of `core.deep_grey.NAMES`) `(X, Y, Z)`.

    `status` is "found", "not covered" (their place is not in the field of view), "not found" or
    "too coarse"; `warnings` say in a sentence each what a reader must know, `notes` what is worth
    reading.
    """

    labels: np.ndarray
    status: str
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def segment(
    chi: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    localiser: Model,
    segmenter: Model,
    device: str = "cpu",
    gains: Sequence[float] = (1.0,) * len(KINDS),
) -> Segmentation:
    """Find and label the deep grey nuclei on `chi` `(X, Y, Z)` in ppm, paramagnetic positive.

    `mask` are the voxels with susceptibility, `voxel_size` in mm, axes RAS+; `gains` multiply the
    segmenter's probabilities of KINDS. Raises DataError when the values cannot be ppm,
    WeightsError when a model has other labels than it should.
    """
    check_unit(chi, mask)
    if len(segmenter.labels) != len(KINDS):
        raise WeightsError(
            f"{segmenter.path}: it has {len(segmenter.labels)} labels; give a model of "
            f"{', '.join(KINDS)}, numbered 1 to {len(KINDS)} and alike on both sides"
        )
    empty = np.zeros(chi.shape, np.uint8)
    if max(voxel_size) > LARGEST_VOXEL:
        note = (
            f"Voxels of {max(voxel_size):.3g} mm are too coarse for the deep grey nuclei, which "
            "were not looked for."
        )
        return Segmentation(empty, "too coarse", (note,))
    chi = np.where(mask, np.nan_to_num(chi), 0).astype(np.float32)
    networks = localiser, segmenter, device, gains
    found = _search(chi, mask, voxel_size, networks)
    if _count(found) < ENOUGH:
        turned = _search(chi[::-1, ::-1], mask[::-1, ::-1], voxel_size, networks)
        if _is_clearer(turned, found):
            labels = np.ascontiguousarray(turned.labels[::-1, ::-1])
            return replace(turned, labels=labels, warnings=(*turned.warnings, TURNED))
    return found


def _is_clearer(turned: Segmentation, found: Segmentation) -> bool:
    """Whether the turned head has more nuclei, and larger ones."""
    volumes = [np.count_nonzero(result.labels) for result in (turned, found)]
    return _count(turned) > _count(found) + 1 and bool(volumes[0] > LARGER * volumes[1])


def _count(found: Segmentation) -> int:
    """How many nuclei were found."""
    return len(np.unique(found.labels)) - 1


def _search(
    chi: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    networks: tuple[Model, Model, str, Sequence[float]],
) -> Segmentation:
    """The nuclei of a head that lies as its affine says."""
    localiser, segmenter, device, gains = networks
    empty = np.zeros(chi.shape, np.uint8)
    middle = locate(chi, voxel_size, localiser, device)
    if middle is None:
        note = (
            "The map does not show the place of the deep grey nuclei, so they were not looked for."
        )
        return Segmentation(empty, "not covered", (note,))
    kinds = label_box(chi, middle, voxel_size, segmenter, device, gains)
    if kinds.any():
        seen = _centre(kinds > 0)
        if np.abs((seen - middle) * voxel_size).max() > OFF_CENTRE:
            kinds = label_box(chi, seen, voxel_size, segmenter, device, gains)
    labels = keep_nuclei(with_sides(kinds * mask, voxel_size), voxel_size)
    if not is_plausible(labels, voxel_size):
        note = "No deep grey nuclei were found where they should lie, so none are drawn."
        return Segmentation(empty, "not found", (note,))
    return Segmentation(labels, "found", tuple(_cut(labels, mask)), tuple(_missing(labels)))


def locate(
    chi: np.ndarray, voxel_size: Sequence[float], localiser: Model, device: str
) -> np.ndarray | None:
    """The middle of the nuclei's place in voxels; None where too little of it is seen."""
    size = np.asarray(voxel_size, dtype=float)
    coarse, actual = chi, size.copy()
    for axis in range(3):
        count = max(1, round(chi.shape[axis] * size[axis] / localiser.spacing[axis]))
        coarse = area_mean(coarse, axis, count)
        actual[axis] = chi.shape[axis] * size[axis] / count
    if not coarse.any():
        return None
    found = predict(localiser, coarse.clip(-COARSE_LIMIT, COARSE_LIMIT), actual, device=device)
    parts, count = ndimage.label(found[0] < 0.5)
    if count == 0:
        return None
    place = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    if place.sum() * actual.prod() < LEAST_PLACE:
        return None
    result: np.ndarray = (_centre(place) + 0.5) * actual / size - 0.5
    return result


def _centre(there: np.ndarray) -> np.ndarray:
    """Middle of the extent of `there` in voxels, a few outlying voxels aside."""
    low, high = np.percentile(np.argwhere(there), (1, 99), axis=0)
    middle: np.ndarray = (low + high) / 2
    return middle


def label_box(
    chi: np.ndarray,
    middle: np.ndarray,
    voxel_size: Sequence[float],
    segmenter: Model,
    device: str,
    gains: Sequence[float] = (1.0,) * len(KINDS),
) -> np.ndarray:
    """Kinds (1, 2 … of KINDS) of the whole grid, from the network's looks at one box.

    Its samples begin at voxels and between them, and every look is taken of the mirror image too;
    the probabilities are averaged.
    """
    extent, step = np.maximum(BOX, segmenter.extent), np.asarray(segmenter.spacing)
    windows = [
        Window.around(
            middle + part * step / voxel_size, extent, segmenter.spacing, voxel_size, chi.shape
        )
        for part in STARTS
    ]
    low = np.min([w.start for w in windows], axis=0)
    shape = np.max([w.stop for w in windows], axis=0) - low
    shares = np.zeros((len(KINDS) + 1, *shape), np.float32)
    for window in windows:
        box = window.sample(chi)
        if not box.any():
            return np.zeros(chi.shape, np.uint8)
        found = predict(segmenter, box, step, device=device)
        mirror = predict(segmenter, np.ascontiguousarray(box[::-1]), step, device=device)
        found = (found + mirror[:, ::-1]) / 2
        found[0] -= 1  # beyond the box all is background
        start = window.start - low
        part = tuple(slice(a, b) for a, b in zip(start, start + window.span, strict=True))
        for share, own in zip(shares, found, strict=True):
            share[part] += window.back(own)
    shares[0] += len(windows)
    shares[1:] *= np.reshape(np.asarray(gains, np.float32), (-1, 1, 1, 1))
    labels = np.zeros(chi.shape, np.uint8)
    inside = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    labels[inside] = shares.argmax(0)
    return labels


def keep_nuclei(labels: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """Of each nucleus its parts of a fifth of the largest or more; none below `LEAST`."""
    kept = np.zeros_like(labels)
    cell = float(np.prod(voxel_size))
    boxes = ndimage.find_objects(labels, max_label=len(NAMES))
    for index, box in enumerate(boxes, start=1):
        if box is None:
            continue
        where = labels[box] == index
        parts, _ = ndimage.label(where, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        large = np.flatnonzero(sizes >= 0.2 * sizes.max())
        if sizes[large].sum() * cell >= LEAST[(index - 1) // 2]:
            kept[box][np.isin(parts, large)] = index
    return kept


def is_plausible(labels: np.ndarray, voxel_size: Sequence[float]) -> bool:
    """Whether enough nuclei are there, and lie to each other as in a head.

    The putamen lies beside the pallidum, the caudate nucleus before the thalamus, the midbrain's
    nuclei below it. A phantom's balls do not.
    """
    present = set(np.unique(labels).tolist()) - {0}
    if len(present) < FEWEST:
        return False
    size = np.asarray(voxel_size, dtype=float)
    indices = sorted(present)
    found = ndimage.center_of_mass(labels > 0, labels, indices)
    centres = dict(zip(indices, (np.asarray(c) * size for c in found), strict=True))
    return all(first[axis] > second[axis] for first, second, axis in _ordered(centres))


def _ordered(
    centres: dict[int, np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Pairs of centres of one side, the first of which has the larger coordinate `axis`."""
    number = {name: index for index, name in NAMES.items()}
    for side in ("left", "right"):
        here = {
            kind: centres[index]
            for kind in KINDS
            if (index := number[f"{side} {kind}"]) in centres
        }
        outer = ("putamen", "external pallidum")
        pairs = [(*(outer if side == "right" else outer[::-1]), 0)]
        pairs += [("caudate nucleus", "thalamus", 1), ("thalamus", "red nucleus", 2)]
        pairs += [("thalamus", "substantia nigra", 2), ("putamen", "substantia nigra", 2)]
        for first, second, axis in pairs:
            if first in here and second in here:
                yield here[first], here[second], axis


def _missing(labels: np.ndarray) -> Iterator[str]:
    missing = [name for index, name in NAMES.items() if not (labels == index).any()]
    if missing:
        yield f"Deep grey nuclei that were not found: {', '.join(missing)}."


def _cut(labels: np.ndarray, mask: np.ndarray) -> Iterator[str]:
    """Which nuclei the border of the map cuts, so that their numbers are doubtful."""
    seen = np.pad(mask, 1)  # what the field of view cuts counts as outside
    inner = ndimage.binary_erosion(seen, np.ones((3, 3, 3)))[1:-1, 1:-1, 1:-1]
    counts = np.bincount(labels.ravel(), minlength=len(NAMES) + 1)
    outer = np.bincount(labels[~inner].ravel(), minlength=len(NAMES) + 1)
    cut = [name for index, name in NAMES.items() if outer[index] > 0.02 * max(counts[index], 1)]
    if cut:
        yield (
            "These nuclei touch the border of the map, so that their volume is too small by an "
            f"unknown amount: {', '.join(cut)}."
        )
