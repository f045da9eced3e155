import math

import numpy as np
import pytest

from qsm_nipype.core.geometry import b0_direction, relative_voxel_size, voxel_axes, voxel_size


def oblique(sizes):
    """Affine of voxels of `sizes` mm, turned by 20° about x and then 35° about z."""
    a, c = math.radians(20), math.radians(35)
    about_x = [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
    about_z = [[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ np.array(about_x) * sizes
    affine[:3, 3] = (-90, 30, 12)
    return affine


def test_voxel_size_is_the_length_of_the_columns():
    assert voxel_size(oblique((0.5, 0.6, 2.0))) == pytest.approx((0.5, 0.6, 2.0))


def test_b0_is_the_scanners_z_axis_in_anisotropic_oblique_voxels():
    affine = oblique((0.5, 0.6, 2.0))
    direction = b0_direction(affine)
    assert np.linalg.norm(direction) == pytest.approx(1)
    assert voxel_axes(affine) @ direction == pytest.approx([0, 0, 1])
    assert direction == pytest.approx(b0_direction(oblique((1, 1, 1))))


def test_a_flipped_axis_flips_its_component():
    affine = oblique((1, 1, 2))
    flipped = affine @ np.diag([1, 1, -1, 1])
    assert b0_direction(flipped) == pytest.approx(np.array(b0_direction(affine)) * (1, 1, -1))


def test_relative_edges_do_not_know_the_unit():
    relative = relative_voxel_size((0.5, 0.6, 2.0))
    assert math.prod(relative) == pytest.approx(1)
    assert relative_voxel_size((5, 6, 20)) == pytest.approx(relative)
