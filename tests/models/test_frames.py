"""Frames: where nothing needs doing nothing is done; physics and geometry survive the way."""

import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.errors import DataError
from qsm_nipype.models.frames import network_frame


def _blob(shape, voxel_size, width=6.0):
    axes = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, voxel_size, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return torch.exp(-((x - 4) ** 2 + y**2 + (z / 1.5 - 2) ** 2) / (2 * width**2))


def test_one_millimetre_axial_is_left_alone():
    frame = network_frame((30, 31, 32), (1.0, 1.01, 0.99), (0.0, 0.01, -1.0))
    x = torch.rand(30, 31, 32)
    assert frame.identity and frame.enter(x) is x and frame.leave(x) is x


@pytest.mark.parametrize(
    ("voxel_size", "b0_dir"),
    [
        ((0.7, 0.7, 1.5), (0, 0, 1)),
        ((1, 1, 1), (0.0, 0.35, 0.9)),
        ((0.9, 1.1, 2.0), (0.2, 0.3, -0.9)),
    ],
)
def test_there_and_back_again(voxel_size, b0_dir):
    shape = tuple(round(56 / v) for v in voxel_size)
    frame = network_frame(shape, voxel_size, b0_dir)
    x = _blob(shape, voxel_size)
    back = frame.leave(frame.enter(x))
    assert back.shape == x.shape
    assert (back - x).norm() / x.norm() < 0.01


def test_a_quarter_turn_is_exact():
    x = torch.rand(12, 14, 16)
    frame = network_frame(x.shape, (1, 1, 1), (1.0, 0.0, 0.0))
    assert frame.inner == (16, 14, 12)
    turned = frame.enter(x)
    assert torch.allclose(turned, x.permute(2, 1, 0).flip(0), atol=1e-6) or torch.allclose(
        turned, x.permute(2, 1, 0).flip(2), atol=1e-6
    )
    assert torch.allclose(frame.leave(turned), x, atol=1e-6)


def test_in_the_frame_b0_points_along_z():
    """χ and its field, both taken into the frame, are a dipole pair along z."""
    angle = math.radians(25)
    b0 = (math.sin(angle), 0.0, math.cos(angle))
    shape, size = (64, 64, 44), (1.0, 1.0, 1.4)
    chi = _blob(shape, size, 5.0)
    frame = network_frame(shape, size, b0)
    field = frame.enter(dipole_field(chi, size, b0))
    expected = dipole_field(frame.enter(chi), (1, 1, 1), (0, 0, 1))
    middle = tuple(slice(n // 2 - 12, n // 2 + 12) for n in frame.inner)
    wrong = dipole_field(frame.enter(chi), (1, 1, 1), b0)
    error = (field - expected)[middle].norm() / expected[middle].norm()
    assert error < 0.03
    assert (field - wrong)[middle].norm() / expected[middle].norm() > 5 * error


def test_coarse_voxels_are_refused_in_a_sentence():
    with pytest.raises(DataError, match="too large"):
        network_frame((64, 64, 20), (1, 1, 5.0), (0, 0, 1))
