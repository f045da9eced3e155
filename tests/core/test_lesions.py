"""Lesion instances, their numbers, patches and the grid of the network."""

import numpy as np
import pytest

from qsm_nipype.core import lesions


def ball(shape, center, radius, step=(1.0, 1.0, 1.0)):
    grid = np.indices(shape) * np.reshape(step, (3, 1, 1, 1))
    return ((grid - np.reshape(center, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2


def test_two_touching_balls_are_two_lesions_of_their_own_size():
    a, b = ball((48, 32, 32), (16, 16, 16), 8), ball((48, 32, 32), (29, 16, 16), 6)
    both = a | b
    assert lesions.find_instances(both, (1, 1, 1), method="components").max() == 1
    parts = lesions.find_instances(both, (1, 1, 1))
    assert parts.max() == 2
    assert (parts > 0).sum() == both.sum()
    assert (parts == 1)[a & ~b].mean() > 0.99  # the larger is number 1
    assert (parts == 2)[b & ~a].mean() > 0.99


def test_necks_are_found_in_millimetres_on_anisotropic_voxels():
    step = (1.0, 1.0, 2.5)
    both = ball((32, 32, 24), (16, 16, 18), 8, step) | ball((32, 32, 24), (16, 16, 33), 8, step)
    parts = lesions.find_instances(both, step)
    assert parts.max() == 2
    sizes = np.bincount(parts.ravel())[1:]
    assert sizes.min() / sizes.max() > 0.85


def test_one_elongated_or_lumpy_lesion_stays_one():
    x, y, z = np.indices((48, 32, 32)) - np.reshape((24, 16, 16), (3, 1, 1, 1))
    ellipsoid = (x / 18) ** 2 + (y / 6) ** 2 + (z / 6) ** 2 < 1
    assert lesions.find_instances(ellipsoid, (1, 1, 1)).max() == 1
    bump = ball((32, 32, 32), (16, 16, 16), 8) | ball((32, 32, 32), (23, 16, 16), 3)
    assert lesions.find_instances(bump, (1, 1, 1)).max() == 1


def test_a_ring_or_a_thin_wall_is_one_lesion():
    wall = ball((24, 24, 24), (12, 12, 12), 5) & ~ball((24, 24, 24), (12, 12, 12), 4)
    assert lesions.find_instances(wall, (1, 1, 1)).max() == 1
    ring = np.zeros((9, 9, 9), bool)
    ring[3:6, 3:6, 4] = True
    ring[4, 4, 4] = False
    assert lesions.find_instances(ring, (1, 1, 1)).max() == 1


def test_nothing_is_lost_and_labels_given_stay():
    mask = np.zeros((20, 20, 20), bool)
    mask[2, 2, 2] = mask[10:14, 10:14, 10:14] = True
    parts = lesions.find_instances(mask, (1, 1, 1))
    assert parts.max() == 2 and (parts > 0).sum() == mask.sum()
    assert lesions.find_instances(mask, (1, 1, 1), min_volume=2).max() == 1
    labels = mask * 7
    labels[2, 2, 2] = 40
    assert np.array_equal(lesions.find_instances(labels, (1, 1, 1)), labels)
    assert lesions.find_instances(~mask & mask, (1, 1, 1)).max() == 0
    with pytest.raises(ValueError, match="split"):
        lesions.find_instances(mask, (1, 1, 1), method="watershed")


def test_rim_and_core_have_the_values_put_there():
    body = ball((32, 32, 32), (16, 15, 14), 7)
    inner = ball((32, 32, 32), (16, 15, 14), 5.0)
    chi = np.where(inner, 0.01, 0.08) * body
    known = np.ones_like(body)
    (lesion,) = lesions.describe(body.astype(np.int32), chi, known, (1, 1, 1))
    assert lesion.center == pytest.approx((16, 15, 14), abs=1e-6)
    assert lesion.volume == body.sum()
    assert lesion.rim[0] == pytest.approx(0.08, abs=1e-9)
    assert lesion.core[0] < 0.05
    assert lesions.baseline([lesion])[0] == pytest.approx(lesion.rim[0] - lesion.core[0])


def test_values_outside_the_map_do_not_count():
    body = ball((24, 24, 24), (12, 12, 12), 5).astype(np.int32)
    chi, known = np.full(body.shape, 0.05), np.ones(body.shape, bool)
    chi[:12], known[:12] = 9.0, False
    (half,) = lesions.describe(body, chi, known, (1, 1, 1))
    assert half.core[0] == pytest.approx(0.05) and 0.4 < half.inside < 0.6
    (none,) = lesions.describe(body, chi, known & False, (1, 1, 1))
    assert none.core is None and none.rim is None and none.inside == 0
    assert lesions.baseline([none])[0] == 0


def test_patches_hold_the_centre_and_are_filled_outside():
    volume = np.random.default_rng(0).normal(size=(20, 22, 24)).astype(np.float32)
    patches = lesions.cut_patches(volume, [(10, 11, 12), (0, 0, 23), (60, 0, 0)], 8, fill=5.0)
    assert patches[0][4, 4, 4] == volume[10, 11, 12]
    assert np.array_equal(patches[0], volume[6:14, 7:15, 8:16])
    assert patches[1][4, 4, 4] == volume[0, 0, 23] and patches[1][0, 0, 0] == 5.0
    assert (patches[2] == 5.0).all()
    assert lesions.cut_patches(volume, [], 8).shape == (0, 8, 8, 8)


def test_the_unit_grid_covers_the_same_volume_along_its_axes():
    affine = np.eye(4)
    assert lesions.unit_grid((30, 40, 50), affine)[1] is affine
    affine = np.array([[0, 0, 2.0, -20], [-0.5, 0, 0, 30], [0, 0.8, 0, 5], [0, 0, 0, 1]])
    shape, onto = lesions.unit_grid((60, 50, 20), affine)
    assert shape == (40, 30, 40)
    assert np.allclose(onto[:3, :3], np.eye(3))
    middle = affine @ [29.5, 24.5, 9.5, 1]
    assert np.allclose(onto @ [19.5, 14.5, 19.5, 1], middle)
    turn = np.deg2rad(20)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert lesions.unit_grid((30, 40, 50), oblique)[1] is oblique
