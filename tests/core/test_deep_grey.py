"""Sides of the deep grey nuclei: a plane between them, whatever the head's pose."""

import numpy as np
import pytest

from qsm_nipype.core.deep_grey import KINDS, NAMES, PALLIDUM_NAMES, pallidum, with_sides
from qsm_nipype.core.roi import opposite
from qsm_nipype.dataset.derivatives import table
from qsm_nipype.simulation.head import rotation_matrix

#: Kind → middle (mm from the midplane outwards, front, up) and radius.
PLACES = {
    1: (14, 12, 8, 6),
    2: (26, 2, 0, 8),
    3: (19, -1, 0, 4),
    4: (15, -6, -3, 3),
    5: (11, -19, 7, 7),
    6: (5, -19, -9, 3),
    7: (10, -17, -14, 3),
    8: (11, -12, -7, 2),
}


def head(angles=(0, 0, 0), shift=(0, 0, 0), step=(1.0, 1.0, 1.0), sides=(-1, 1), size=96):
    """Kinds as balls on both sides, and which side each voxel is on (1 left, 2 right)."""
    shape = [round(size / s) for s in step]
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, step, strict=True)]
    p = np.stack(np.meshgrid(*axes, indexing="ij"))
    q = np.tensordot(rotation_matrix(angles).T, p - np.reshape(shift, (3, 1, 1, 1)), 1)
    kinds = np.zeros(shape, np.uint8)
    for kind, (x, y, z, r) in PLACES.items():
        for side in sides:
            ball = (q[0] - side * x) ** 2 + (q[1] - y) ** 2 + (q[2] - z) ** 2 < r**2
            kinds[ball & (q[0] * side > 0)] = kind
    return kinds, np.where(q[0] > 0, 2, 1)


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, 12, -14), (-20, -15, 18)], ids=str)
@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (0.8, 1.2, 2.0)], ids=str)
def test_every_voxel_is_on_its_side_however_the_head_lies(angles, step):
    kinds, side = head(angles, (5, -3, 4), step)
    labels = with_sides(kinds, step)
    inside = kinds > 0
    assert np.array_equal(labels > 0, inside)
    assert np.array_equal((labels[inside] + 1) // 2, kinds[inside])
    assert np.mean((labels[inside] - 1) % 2 + 1 == side[inside]) > 0.999


def test_the_mirror_image_has_the_sides_exchanged():
    kinds, _ = head((5, 8, 0), (2, 0, 0))
    labels, mirrored = with_sides(kinds, (1, 1, 1)), with_sides(kinds[::-1], (1, 1, 1))[::-1]
    inside = kinds > 0
    exchanged = np.where(labels % 2 == 1, labels + 1, labels - 1)
    assert np.array_equal(mirrored[inside], exchanged[inside])
    assert not with_sides(np.zeros((4, 4, 4), np.uint8), (1, 1, 1)).any()


def test_names_have_pairs_and_are_those_of_the_derivative():
    assert len(NAMES) == 2 * len(KINDS) and {n.split(" ", 1)[1] for n in NAMES.values()} == set(
        KINDS
    )
    assert {opposite(n) for n in NAMES.values()} == set(NAMES.values())
    assert table()["deepgrey"]["labels"] == NAMES
    assert opposite(PALLIDUM_NAMES[1]) == PALLIDUM_NAMES[2]


def test_the_pallidum_is_both_of_its_parts():
    labels = np.arange(17, dtype=np.uint8).reshape(17, 1, 1)
    assert pallidum(labels).ravel().tolist() == [0, 0, 0, 0, 0, 1, 2, 1, 2, *[0] * 8]
