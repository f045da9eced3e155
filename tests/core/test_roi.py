import numpy as np
import pytest

from qsm_nipype.core.roi import opposite, quantiles, region, statistics, table


def test_numbers_of_a_small_sample_are_those_of_the_textbook():
    x = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    found = region(x, np.ones(5, bool), voxel_volume=2.0)
    assert (found.voxels, found.volume, found.coverage) == (5, 10.0, 1.0)
    assert (found.mean, found.median, found.minimum, found.maximum) == (4.0, 3.0, 1.0, 10.0)
    assert found.sd == pytest.approx(np.sqrt(50 / 4))
    assert found.p25 == 2.0 and found.p75 == 4.0


def test_percentiles_are_numpys():
    x = np.random.default_rng(0).standard_normal(137)
    found = region(x, np.ones(137, bool), 1.0)
    ours = [found.p5, found.p25, found.median, found.p75, found.p95]
    assert np.allclose(ours, np.percentile(x, (5, 25, 50, 75, 95)))


def test_a_normal_sample_has_its_percentiles_and_a_shift_moves_only_location():
    x = np.random.default_rng(1).normal(0.1, 0.02, 200_000)
    a = region(x, np.ones(x.size, bool), 1.0)
    b = region(x + 5, np.ones(x.size, bool), 1.0)
    assert a.p95 - a.mean == pytest.approx(1.645 * 0.02, rel=0.02)
    assert b.sd == pytest.approx(a.sd) and b.median == pytest.approx(a.median + 5)


def test_weights_are_shares_of_voxels():
    # Halves of two voxels weigh as much as one: volume, mean; whole weights are repetitions.
    x, w = np.array([2.0, 4.0, 7.0]), np.array([0.5, 0.5, 0.0])
    found = region(x, np.ones(3, bool), 8.0, w)
    assert (found.volume, found.mean, found.voxels, found.maximum) == (8.0, 3.0, 2, 4.0)
    equal = region(x, np.ones(3, bool), 1.0, np.full(3, 0.25))
    plain = region(x, np.ones(3, bool), 1.0)
    assert equal.mean == pytest.approx(plain.mean) and equal.sd == pytest.approx(plain.sd)
    assert quantiles(x, np.full(3, 0.25), (50,)) == [4.0]


def test_what_is_unknown_counts_for_the_volume_only():
    x = np.array([1.0, np.nan, 3.0, 100.0])
    found = region(x, np.array([True, True, True, False]), 1.0)
    assert (found.voxels, found.volume, found.coverage, found.mean) == (2, 4.0, 0.5, 2.0)
    none = region(x, np.zeros(4, bool), 1.0)
    assert (none.voxels, none.volume, none.coverage) == (0, 4.0, 0.0) and np.isnan(none.mean)
    one = region(x[:1], np.ones(1, bool), 1.0)
    assert one.mean == one.p5 == one.p95 == 1.0 and np.isnan(one.sd)


def test_each_label_gets_its_own_voxels_and_empty_ones_a_row():
    labels = np.zeros((4, 4, 4), np.int16)
    labels[:2], labels[2] = 3, 1000
    values = np.arange(64.0).reshape(4, 4, 4)
    names = {3: "left thing", 7: "absent"}
    found = {i: (n, r) for i, n, r in statistics(labels, names, values, values >= 0, 0.5)}
    assert list(found) == [3, 7, 1000]
    assert found[3][1].mean == np.arange(32).mean() and found[3][1].volume == 16.0
    assert found[7] == ("absent", found[7][1]) and found[7][1].voxels == found[7][1].volume == 0
    assert found[1000][0] == "region 1000" and found[1000][1].voxels == 16
    assert not list(statistics(labels * 0, {}, values, values >= 0, 1.0))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left dentate nucleus", "right dentate nucleus"),
        ("Right-Thalamus", "left-thalamus"),
        ("ctx-lh-cuneus", "ctx-rh-cuneus"),
        ("Putamen_L", "putamen_r"),
        ("Brain-Stem", ""),
        ("lingual", ""),
        ("rh_V1", "lh_v1"),
    ],
)
def test_the_other_side_by_name(name, other):
    assert opposite(name) == other


def test_table_has_the_brain_first_and_compares_sides():
    labels = np.zeros((6, 2, 2), np.uint8)
    labels[:1], labels[3:5], labels[5] = 1, 2, 3
    chi = np.where(labels == 1, 0.3, np.where(labels == 2, 0.1, 0.0)).astype(np.float32)
    everywhere = np.ones(labels.shape, bool)
    names = {1: "left nucleus", 2: "right nucleus", 3: "stem"}
    rows = table(
        {"toy": (labels, names)},
        {"Chimap": (chi, everywhere, "ppm"), "R2starmap": (chi + 20, labels > 0, "1/s")},
        1.0,
    )
    assert len(rows) == 2 + 2 * 3
    assert rows[0]["region"] == "brain" and rows[0]["mean"] == pytest.approx(chi.mean())
    assert rows[1]["voxels"] == (labels > 0).sum() and rows[1]["unit"] == "1/s"
    left, right, stem = rows[2:5]
    assert left["difference"] == pytest.approx(0.2) == -right["difference"]
    assert left["asymmetry"] == pytest.approx(200 * (4 - 8) / 12) == -right["asymmetry"]
    assert np.isnan(stem["difference"]) and np.isnan(stem["asymmetry"])
