"""Two steps to the deep grey nuclei, with stand-ins for both networks that see painted balls."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_nipype.core.deep_grey import KINDS, NAMES
from qsm_nipype.errors import DataError, WeightsError
from qsm_nipype.models import regions
from qsm_nipype.models.nnunet import Model
from qsm_nipype.models.regions import segment


def model(spacing, labels, path):
    plan = {"spacing": [spacing] * 3, "patch_size": [48, 64, 80]}
    labels = {"background": 0, **{name: n for n, name in enumerate(labels, start=1)}}
    return Model({"configurations": {"c": plan}}, {"labels": labels}, "c", (), path)


LOCALISER = model(4.0, ["place"], "localiser")
SEGMENTER = model(1.0, KINDS, "segmenter")
#: Kind → middle (mm from the midplane outwards, front, up), radius, χ.
PLACES = {
    1: (14, 14, 10, 6),
    2: (30, 2, 0, 8),
    3: (15, 4, -4, 4),
    4: (15, -8, 0, 4),
    5: (11, -22, 9, 8),
    6: (5, -19, -9, 3.2),
    7: (11, -16, -17, 3.5),
    8: (8, -8, -10, 2.4),
}


def value(kind):
    """χ that tells the kind to the stand-in."""
    return 0.1 * kind


def head(voxel_size, *, shift=0.0):
    """χ of −0.02 ppm with balls of `value`; mask; truth."""
    shape = tuple(round(n / v) for n, v in zip((140, 170, 130), voxel_size, strict=True))
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * s).reshape(v)
        for n, s, v in zip(shape, voxel_size, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    mask = (x / 66) ** 2 + (y / 82) ** 2 + (z / 62) ** 2 < 1
    chi, truth = np.where(mask, -0.02, 0.0), np.zeros(shape, np.uint8)
    for kind, (a, b, c, r) in PLACES.items():
        for side, sign in ((1, -1), (2, 1)):
            ball = (x - sign * a - shift) ** 2 + (y - b) ** 2 + (z - c) ** 2 < r**2
            truth[ball] = 2 * (kind - 1) + side
            chi[ball] = value(kind)
    return chi.astype(np.float32), mask, truth


def stand_in(network, volume, voxel_size, *, device="cpu"):
    """What trained networks would say of such a head."""
    if network.path == "localiser":
        bright = ndimage.binary_dilation(volume > 0.03, iterations=2)
        return np.stack([~bright, bright]).astype(np.float32)
    parts, count = ndimage.label(volume > 0.04)
    kinds = np.zeros(volume.shape)
    for part in range(1, count + 1):
        own = volume[parts == part]
        kinds[parts == part] = round(10 * np.median(own[own > 0.7 * own.max()]))
    return np.stack([kinds == k for k in range(len(KINDS) + 1)]).astype(np.float32)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setattr(regions, "predict", stand_in)


def found(chi, mask, voxel_size):
    return segment(chi, mask, voxel_size, localiser=LOCALISER, segmenter=SEGMENTER)


@pytest.mark.parametrize("voxel_size", [(1, 1, 1), (0.9, 0.9, 0.9), (0.8, 0.8, 1.6)], ids=str)
def test_all_nuclei_return_to_the_grid_they_came_from(voxel_size):
    chi, mask, truth = head(voxel_size, shift=4.0)
    result = found(chi, mask, voxel_size)
    assert (result.status, result.warnings) == ("found", ())
    for index, name in NAMES.items():
        a, b = result.labels == index, truth == index
        if max(voxel_size) == 1:
            assert np.array_equal(a, b), name
        elif (
            index <= 6 or 8 < index <= 10
        ):  # the stand-in mistakes small balls, which splines raise
            apart = np.argwhere(a).mean(0) - np.argwhere(b).mean(0)
            assert np.abs(apart * voxel_size).max() < 0.6, name


def test_what_a_map_does_not_hold_is_not_drawn():
    chi, mask, _ = head((2, 2, 2))
    upper = chi[..., 48:], mask[..., 48:]
    assert found(*upper, (2, 2, 2)).status == "not covered"
    coarse = found(chi, mask, (3, 3, 3))
    assert coarse.status == "too coarse" and "3 mm" in coarse.warnings[0]
    assert found(np.zeros_like(chi), mask, (2, 2, 2)).status == "not covered"


def test_a_head_that_lies_the_other_way_round_is_turned_and_said_so():
    chi, mask, truth = head((1, 1, 1), shift=2.0)
    other = tuple(np.ascontiguousarray(v[::-1, ::-1]) for v in (chi, mask, truth))
    result = found(*other[:2], (1, 1, 1))
    assert result.status == "found" and result.warnings == (regions.TURNED,)
    assert np.array_equal(result.labels, other[2])


def test_many_small_nuclei_turn_no_head_whose_nuclei_are_larger():
    few, many = np.zeros((2, 8, 8, 8), np.uint8)
    few[:4] = np.arange(1, 5)[:, None, None]
    many[0] = np.arange(64).reshape(8, 8) % 16 + 1
    straight, turned = (regions.Segmentation(labels, "found") for labels in (few, many))
    assert not regions._is_clearer(turned, straight)
    assert regions._is_clearer(
        regions.Segmentation(np.tile(many[:1], (8, 1, 1)), "found"), straight
    )


def test_balls_of_a_phantom_are_no_nuclei():
    chi, mask, _ = head((1, 1, 1))
    phantom = chi[..., ::-1].copy()  # the midbrain above the thalami
    result = found(phantom, mask, (1, 1, 1))
    assert result.status == "not found" and not result.labels.any() and len(result.warnings) == 1


def test_a_nucleus_at_the_border_of_the_map_is_named():
    chi, mask, _ = head((1, 1, 1))
    cut = mask.copy()
    cut[..., :48] = False  # through the nigra
    result = found(chi, cut, (1, 1, 1))
    assert result.status == "found" and "left substantia nigra" in result.warnings[0]
    assert "putamen" not in result.warnings[0]


def test_ppb_and_foreign_models_are_refused():
    chi, mask, _ = head((2, 2, 2))
    with pytest.raises(DataError, match="divide a map in ppb by 1000"):
        found(1000 * (chi + np.random.default_rng(0).normal(0, 0.02, chi.shape)), mask, (2, 2, 2))
    with pytest.raises(WeightsError, match="it has 1 labels; give a model of caudate nucleus"):
        segment(chi, mask, (2, 2, 2), localiser=LOCALISER, segmenter=LOCALISER)
