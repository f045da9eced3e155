"""One rule for what masks, labels and lesions hold: what is inside, and what is refused."""

import numpy as np
import pytest

from qsm_nipype.core import region_values
from qsm_nipype.errors import DataError

SHAPE = (6, 5, 4)
INSIDE = np.zeros(SHAPE, bool)
INSIDE[1:5, 1:4, 1:3] = True


def where(inside, outside=0, dtype=np.float32):
    return np.where(INSIDE, inside, outside).astype(dtype)


MASKS = {
    "bool": INSIDE,
    "0 and 1": where(1, dtype=np.uint8),
    "0 and 255": where(255, dtype=np.uint8),
    "0 and 32767": where(32767, dtype=np.int16),
    "0 and a label": where(7, dtype=np.int32),
    "a slope's rounding": where(0.9999999),
    "probabilities": where(0.5, 0.49),
    "probabilities to 1": where(0.7) + where(0.3) * (np.indices(SHAPE)[0] % 2),
    "NaN outside": where(1, np.nan),
    "X×Y×Z×1": where(1)[..., None],
    "X×Y×Z×1×1": where(1)[..., None, None],
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_what_its_values_mean(name):
    assert np.array_equal(region_values.binary(MASKS[name], name), INSIDE)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (where(90, 3), r"m: it has values \(3, 90\) that are neither 0 and one other nor prob"),
        (where(90, 3) * (np.indices(SHAPE)[0] > 0), r"\(0, 3, 90\)"),
        (where(2, 1), r"\(1, 2\)"),
        (where(255) * (0.5 + 0.5 * (np.indices(SHAPE)[0] % 2)), r"\(0, 127.5, 255\)"),
        (np.arange(120).reshape(SHAPE), r"\(0, 1, 2, 118, 119, …\)"),
        (where(1, -1), "negative values"),
        (where(0.3), "no voxel reaches 0.5"),
        (where(0), "m: it has no voxel; give one"),
        (where(np.inf), "infinite values"),
        (np.stack([where(1)] * 2, -1), "its shape is 6×5×4×2, 4 axes; give one volume of three"),
        (where(1)[..., 0], "2 axes"),
        (where(1) + 1j, "complex"),
    ],
)
def test_a_mask_of_other_values_is_refused(values, words):
    with pytest.raises(DataError, match=words):
        region_values.binary(values, "m")


def test_labels_are_whole_numbers():
    kept = where(14175, 2, np.float32)
    assert np.array_equal(region_values.labels(kept, "s"), kept) and kept.dtype == np.float32
    assert region_values.labels(kept[..., None], "s").shape == SHAPE
    for wrong, words in (
        (where(1.5), "no whole numbers; give labels from 0 up, resampled by the nearest"),
        (where(-1), "reach from -1 to 0"),
        (np.arange(4096.0).reshape(16, 16, 16), "4096 different values; give labels, not"),
        (
            np.arange(120).reshape(SHAPE) % 100,
            "100 % of neighbouring voxels have other values",
        ),
    ):
        with pytest.raises(DataError, match=words):
            region_values.labels(wrong, "s")


def test_lesions_are_a_mask_or_instances_and_may_be_none():
    for mask in (where(1), where(255, dtype=np.uint8), where(0.8, 0.1), INSIDE):
        assert np.array_equal(region_values.lesions(mask, "l"), INSIDE.astype(int))
    two = where(1, dtype=np.int16)
    two[1, 1, 1] = 2
    assert np.array_equal(region_values.lesions(two, "l"), two)
    assert not region_values.lesions(where(0), "l").any()
    with pytest.raises(DataError, match="no whole numbers"):
        region_values.lesions(where(90.5, 3), "l")


def test_probabilities_and_a_whole_brain_are_read_as_lesions_and_said():
    chances = np.linspace(0, 0.9, 27).reshape(3, 3, 3)
    found, said = region_values.read_lesions(chances, "lst.nii")
    assert np.array_equal(found, chances >= 0.5) and "up to 0.9" in said and "lst.nii" in said
    none, said = region_values.read_lesions(chances / 2, "lst.nii")
    assert not none.any() and "up to 0.45" in said  # a tool that found nothing
    brain = np.zeros((8, 4, 8), np.int32)
    brain[:, 0], brain[:, 1], brain[2:4, 2] = 2, 41, 99
    found, said = region_values.read_lesions(brain, "seg.mgz")
    assert np.array_equal(found, brain == 99) and "label 99" in said
    assert region_values.read_lesions(np.where(brain == 2, 2, 0), "mask.nii")[1] == ""
