"""Two steps to the dentate nuclei, with stand-ins for both networks that see a painted head."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_nipype.errors import DataError, WeightsError
from qsm_nipype.models import dentate
from qsm_nipype.models.nnunet import Model


def model(spacing, labels, path, patch=(40, 48, 72)):
    plan = {"spacing": [spacing] * 3, "patch_size": list(patch)}
    return Model(
        {"configurations": {"c": plan}}, {"labels": {"background": 0, **labels}}, "c", (), path
    )


LOCALISER = model(4.0, {"cerebellum": 1, "place of the dentate nuclei": 2}, "localiser")
SEGMENTER = model(1.0, {"left": 1, "right": 2}, "segmenter")


def head(shape, voxel_size, *, left=1.0, cerebellum=True):
    """χ with a cerebellum of −0.03 ppm and two nuclei of 0.1 ppm; mask; truth."""
    x, y, z = (
        (np.arange(n) - (n - 1) / 2).reshape(v) * s
        for n, s, v in zip(shape, voxel_size, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    mask = (x / 70) ** 2 + (y / 85) ** 2 + (z / 65) ** 2 < 1
    chi = np.where(mask, 0.002, 0.0)
    truth = np.zeros(shape, np.uint8)
    if cerebellum:
        chi[(x / 48) ** 2 + ((y + 40) / 26) ** 2 + ((z + 25) / 20) ** 2 < 1] = -0.03
        for side, sign, size in ((1, -1, left), (2, 1, 1.0)):
            ball = ((x - sign * 15) / 8) ** 2 + ((y + 34) / 9) ** 2 + ((z + 24) / 6) ** 2
            truth[np.broadcast_to(ball, shape) < size**2] = side
        chi[truth > 0] = 0.1
    return (chi * mask).astype(np.float32), mask, truth


def stand_in(network, volume, voxel_size, *, device="cpu"):
    """What trained networks would say of such a head."""
    if network.path == "localiser":
        assert np.allclose(voxel_size, 4, rtol=0.1)
        low = ndimage.gaussian_filter(volume, 0.3) < -0.008
        low |= ndimage.binary_closing(low, iterations=2)
        place = low & ndimage.binary_dilation(volume > 0.015, iterations=2)
        return np.stack([~low, low & ~place, place]).astype(np.float32)
    assert np.allclose(voxel_size, 1)
    high = 1 / (1 + np.exp(-(volume - 0.035) / 0.01))
    left = (np.arange(volume.shape[0]) < volume.shape[0] / 2)[:, None, None]
    shares = [high * left, high * ~left]
    if len(network.labels) == 1:
        shares = [high]
    return np.stack([1 - high, *shares]).astype(np.float32)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setattr(dentate, "predict", stand_in)


def dice(a, b):
    return 2 * (a & b).sum() / max((a.sum() + b.sum()), 1)


def found(chi, mask, voxel_size, segmenter=SEGMENTER):
    return dentate.segment(chi, mask, voxel_size, localiser=LOCALISER, segmenter=segmenter)


@pytest.mark.parametrize(
    "voxel_size",
    [(1, 1, 1), (1.5, 1.5, 1.5), (0.8, 0.8, 2.0), (0.9, 0.9, 0.9), (2, 2, 2)],
    ids=str,
)
def test_both_nuclei_return_to_the_grid_they_came_from(voxel_size):
    shape = tuple(round(n / v) for n, v in zip((150, 180, 140), voxel_size, strict=True))
    chi, mask, truth = head(shape, voxel_size)
    result = found(chi, mask, voxel_size)
    assert result.status == "found" and result.notes == ()
    least = 0.97 if max(voxel_size) == 1 == min(voxel_size) else 0.85
    for side in (1, 2):
        assert dice(result.labels == side, truth == side) > least
    (first, size) = result.box
    assert np.all((np.array(size) - 1) * voxel_size <= dentate.BOX)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = True
    assert inside[truth > 0].all()
    assert 5e4 < result.cerebellum.sum() * np.prod(voxel_size) < 1.5e5


def test_a_shifted_head_gives_shifted_labels():
    chi, mask, _ = head((150, 180, 140), (1, 1, 1))
    a = found(chi, mask, (1, 1, 1)).labels
    move = (8, -4, 4)  # whole cells of the coarse grid
    b = found(np.roll(chi, move, (0, 1, 2)), np.roll(mask, move, (0, 1, 2)), (1, 1, 1)).labels
    assert np.array_equal(np.roll(a, move, (0, 1, 2)), b)


def test_a_mirrored_look_helps_the_side_that_the_network_sees_worse(monkeypatch):
    def one_eyed(network, volume, voxel_size, *, device="cpu"):
        shares = stand_in(network, volume, voxel_size)
        if network.path == "segmenter":
            shares[1] *= 0.4
        return shares

    monkeypatch.setattr(dentate, "predict", one_eyed)
    chi, mask, truth = head((150, 180, 140), (1, 1, 1), left=0.8)
    alone = found(chi, mask, (1, 1, 1)).labels
    assert set(np.unique(alone)) == {0, 2}
    both = dentate.segment(
        chi, mask, (1, 1, 1), localiser=LOCALISER, segmenter=SEGMENTER, mirrored=True
    ).labels
    for side in (1, 2):
        assert dice(both == side, truth == side) > 0.95


def test_a_head_without_cerebellum_is_not_covered():
    chi, mask, _ = head((120, 140, 100), (1.5, 1.5, 1.5), cerebellum=False)
    result = found(chi, mask, (1.5, 1.5, 1.5))
    assert result.status == "not covered" and not result.labels.any() and result.box is None
    assert "no cerebellum" in result.notes[0]
    nothing = found(chi * 0, mask & False, (1.5, 1.5, 1.5))
    assert nothing.status == "not covered"


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [(28, 70, "found"), (0, 60, "found"), (30, 66, "found"), (62, 140, "not covered")],
)
def test_a_slab_counts_as_covered_where_the_nuclei_lie_in_it(low, high, status):
    chi, mask, truth = head((150, 180, 140), (1, 1, 1))
    result = found(chi[..., low:high], mask[..., low:high], (1, 1, 1))
    assert result.status == status
    if status == "found":
        for side in (1, 2):
            assert dice(result.labels == side, truth[..., low:high] == side) > 0.97
        assert result.notes == ()
    else:
        assert result.box is None and not result.labels.any() and "dentate" in result.notes[0]
        part = result.cerebellum.sum() / 1e3
        assert (part > 0) == ("too little" in result.notes[0])


def test_voxels_that_hide_the_folds_are_too_coarse():
    chi, mask, _ = head((50, 60, 48), (3, 3, 3))
    result = found(chi, mask, (3, 3, 3))
    assert result.status == "too coarse" and not result.labels.any() and "3 mm" in result.notes[0]


def test_a_nucleus_cut_by_the_border_of_the_map_is_told():
    chi, mask, truth = head((150, 180, 140), (1, 1, 1))
    where = np.argwhere(truth)
    (_, front, _), (_, back, _) = where.max(0), where.min(0)
    mask[:, back : front + 1, : int(where.mean(0)[2])] = False
    result = found(chi, mask, (1, 1, 1))
    assert result.status == "found"
    assert all("touches the border" in note for note in result.notes) and len(result.notes) == 2


def test_one_nucleus_missing_and_none_at_all():
    chi, mask, truth = head((150, 180, 140), (1, 1, 1))
    one = found(np.where(truth == 1, -0.03, chi), mask, (1, 1, 1))
    assert one.notes == ("The left dentate nucleus was not found.",)
    assert dice(one.labels == 2, truth == 2) > 0.95 and not (one.labels == 1).any()
    none = found(np.where(truth > 0, -0.03, chi), mask, (1, 1, 1))
    assert none.status == "not found" and not none.labels.any() and none.box is not None


@pytest.mark.parametrize("by_shape", [True, False])
def test_the_opposite_sign_is_recognised(monkeypatch, by_shape):
    def steady(network, volume, voxel_size, *, device="cpu"):
        if network.path == "localiser" and by_shape:  # else it needs the right sign as well
            volume = -np.abs(volume)
        return stand_in(network, volume, voxel_size)

    monkeypatch.setattr(dentate, "predict", steady)
    chi, mask, _ = head((150, 180, 140), (1, 1, 1))
    result = found(-chi, mask, (1, 1, 1))
    assert result.status == "reversed sign" and not result.labels.any()
    assert "sign" in result.notes[0] and result.box is not None


def test_ppb_is_refused_and_ppm_with_bleeds_is_not():
    chi, mask, _ = head((100, 120, 100), (1.5, 1.5, 1.5))
    noisy = chi + 0.03 * np.random.default_rng(0).standard_normal(chi.shape)
    with pytest.raises(DataError, match="cannot be ppm; divide"):
        dentate.check_unit(1000 * noisy, mask)
    noisy[40:60, 40:60, 40:60] = 3.0
    dentate.check_unit(noisy, mask)


def test_models_of_one_label_are_parted_and_others_refused():
    chi, mask, truth = head((150, 180, 140), (1, 1, 1))
    single = model(1.0, {"dentate": 1}, "segmenter")
    result = found(chi, mask, (1, 1, 1), single)
    assert (
        dice(result.labels == 1, truth == 1) > 0.95 and dice(result.labels == 2, truth == 2) > 0.95
    )
    many = model(1.0, {"a": 1, "b": 2, "c": 3}, "many")
    with pytest.raises(WeightsError, match="many: segments a, b, c"):
        dentate._sides(np.zeros((4, 2, 2, 2)), many)


def test_only_the_largest_part_of_each_side_stays():
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[4:10, 5:11, 5:11] = labels[12:14, 5:7, 5:7] = 1  # the second two voxels away
    labels[10:11, 5:11, 5:11] = 0
    labels[11:13, 8:10, 8:10] = 1  # a gap of one voxel does not part it
    labels[30:32, 5:7, 5:7] = 2  # too small to be a nucleus
    everywhere = labels < 3
    kept = dentate.keep_nuclei(labels, (1, 1, 1), everywhere)
    assert kept[5, 6, 6] == 1 and kept[12, 9, 9] == 1 and not (kept == 2).any()


def test_what_lies_outside_the_cerebellum_is_no_dentate_nucleus():
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[4:10, 5:11, 5:11], labels[30:36, 5:11, 5:11] = 1, 2
    cerebellum = np.arange(40)[:, None, None] < np.full((1, 20, 20), 32)
    kept = dentate.keep_nuclei(labels, (1, 1, 1), cerebellum)
    assert (kept == 1).sum() == 6**3 and not (kept == 2).any()


def test_part_of_a_cerebellum_does_not_say_that_the_sign_is_reversed(monkeypatch):
    chi, mask, _ = head((150, 180, 140), (1, 1, 1))
    assert found(-chi, mask, (1, 1, 1)).status == "reversed sign"
    monkeypatch.setattr(dentate, "WHOLE_CEREBELLUM", 200_000.0)
    assert found(-chi, mask, (1, 1, 1)).status == "not covered"
    assert found(chi, mask, (1, 1, 1)).status == "found"


@pytest.mark.parametrize(("count", "n"), [(5, 10), (4, 10), (10, 10), (14, 10), (1, 7)])
def test_cells_are_means_of_their_extent(count, n):
    x = np.random.default_rng(0).random((3, n, 2)).astype(np.float32)
    out = dentate.area_mean(x, 1, count)
    assert out.shape == (3, count, 2) and np.allclose(out.mean(1), x.mean(1), atol=1e-6)
    if n % count == 0:
        assert np.allclose(out, x.reshape(3, count, n // count, 2).mean(2), atol=1e-6)
