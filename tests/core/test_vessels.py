"""Tubes and balls of known size: each is found as what it is, whatever way it lies."""

import math

import pytest
import torch

from qsm_nipype.core.vessels.bleeds import bleeds, blobness
from qsm_nipype.core.vessels.hessian import curvatures
from qsm_nipype.core.vessels.veins import tubeness, veins

SHAPE, VOXEL = (40, 36, 32), (1.0, 1.0, 1.0)
GRID = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
MASK = sum((g / (0.47 * n)) ** 2 for g, n in zip(GRID, SHAPE, strict=True)) < 1


def ball(center, radius: float) -> torch.Tensor:
    distance = sum((g - c) ** 2 for g, c in zip(GRID, center, strict=True)).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)


def tube(direction, radius: float) -> torch.Tensor:
    way = torch.tensor(direction) / math.hypot(*direction)
    along = sum(g * w for g, w in zip(GRID, way, strict=True))
    distance = (sum(g**2 for g in GRID) - along**2).clamp_min(0).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)


def test_curvatures_of_a_quadratic_are_its_coefficients():
    # away from the edge, where smoothing leaves a quadratic's curvature alone
    x = 0.5 * (3 * GRID[0] ** 2 - GRID[1] ** 2) + 2 * GRID[1] * GRID[2]
    whole = torch.ones(SHAPE, dtype=torch.bool)
    (found,) = curvatures(x.double(), whole, VOXEL, [1.5])
    middle = found.reshape(*SHAPE, 3)[20, 18, 16] / 1.5**2
    expected = torch.linalg.eigvalsh(torch.tensor([[3.0, 0, 0], [0, -1, 2], [0, 2, 0]]))
    assert torch.allclose(middle, expected.double(), atol=0.05)


@pytest.mark.parametrize("direction", [(1.0, 0, 0), (1.0, 1.0, 0), (1.0, -2.0, 1.5)])
def test_a_tube_is_a_vein_and_no_bleed(direction):
    chi = 0.25 * tube(direction, 1.0) * MASK
    made = veins(chi, MASK, VOXEL).mask
    core = (tube(direction, 1.0) > 0.7) & MASK
    assert float(made[core].float().mean()) > 0.8
    assert not made[tube(direction, 3.0) == 0].any()
    assert not veins(-chi, MASK, VOXEL).mask.any()
    assert not bleeds(chi, MASK, VOXEL, margin=5.0).found


@pytest.mark.parametrize("radius", [1.2, 2.5, 5.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_ball_is_a_spot_of_its_sign_size_and_place_and_no_vein(radius, sign):
    chi = sign * 0.8 * ball((-3, 2, 1), radius) * MASK
    (spot,) = bleeds(chi, MASK, VOXEL).found
    assert spot.sign == sign
    assert spot.peak == pytest.approx(sign * 0.8, rel=0.05 if radius > 2 else 0.2)
    assert spot.diameter == pytest.approx(2 * radius, abs=1.0)
    where = [c - (n - 1) / 2 for c, n in zip(spot.center, SHAPE, strict=True)]
    assert math.dist(where, (-3, 2, 1)) < 1.5
    assert not veins(chi, MASK, VOXEL).mask.any()


def test_spots_are_numbered_by_how_compact_they_are():
    chi = (0.5 * ball((-8, 0, 0), 2) + 1.0 * ball((0, 4, 3), 2) - 0.8 * ball((9, 0, -2), 2)) * MASK
    found = bleeds(chi, MASK, VOXEL)
    assert [spot.sign for spot in found.found] == [1, -1, 1]
    assert [spot.number for spot in found.found] == [1, 2, 3]
    for spot in found.found:
        assert int(found.labels[spot.center]) == spot.number
    # below the least |χ| and the least volume there is none
    assert not bleeds(0.1 * chi, MASK, VOXEL, threshold=0.001).found
    assert len(bleeds(chi, MASK, VOXEL, least_volume=1000.0).found) == 0


def test_turned_voxels_and_thick_slices_change_little():
    chi = 0.25 * tube((1.0, 1.0, 0), 1.0) * MASK
    straight = tubeness(chi, MASK, VOXEL)
    turned = tubeness(chi.permute(2, 0, 1), MASK.permute(2, 0, 1), VOXEL).permute(1, 2, 0)
    assert torch.allclose(straight, turned, atol=1e-4)
    plus, minus = blobness(chi, MASK, VOXEL)
    assert float(plus[15:25, 12:24, 12:20].max()) < 0.1 * float(straight.max())
    assert float(minus.min()) >= 0
