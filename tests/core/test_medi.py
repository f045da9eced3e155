"""Laws of MEDI."""

import math

import pytest
import torch

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.medi import EDGE_SHARE, medi, smooth_faces
from qsm_nipype.core.inversion.problem import Signal, phase_problem

VOXEL = (1.0, 0.8, 1.5)
OBLIQUE = (0.3, -0.4, 0.866)


def blocks(seed=0, shape=(24, 28, 22), voxel_size=VOXEL, b0_dir=OBLIQUE):
    """Random blocks of χ in an ellipsoid, with a magnitude that shows them."""
    torch.manual_seed(seed)
    axes = [torch.arange(n) - n / 2 for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    mask = (x / 10) ** 2 + (y / 12) ** 2 + (z / 9) ** 2 < 1
    coarse = 0.05 * torch.randn(1, 1, *[math.ceil(n / 6) for n in shape])
    chi = torch.nn.functional.interpolate(coarse, scale_factor=6, mode="nearest")[0, 0]
    chi = chi[: shape[0], : shape[1], : shape[2]].contiguous() * mask
    field = dipole_field(chi, voxel_size, b0_dir, padding=1.0) * mask
    return field, chi, mask, (1 + 5 * chi) * mask


def error(chi, truth, mask):
    a, b = chi[mask] - chi[mask].mean(), truth[mask] - truth[mask].mean()
    return float((a - b).norm() / b.norm())


def noisy(field, mask, sigma=2e-3):
    torch.manual_seed(7)
    return (field + sigma * torch.randn(field.shape)) * mask


def test_recovers_blocks_and_edges_help():
    field, truth, mask, magnitude = blocks()
    field = noisy(field, mask, 5e-3)
    flat = torch.where(mask, 0.005, 0.0)
    keys = {"regularization": 1e-3, "noise": flat}
    blind = error(medi(field, mask, VOXEL, OBLIQUE, **keys).chi, truth, mask)
    guided = error(medi(field, mask, VOXEL, OBLIQUE, magnitude=magnitude, **keys).chi, truth, mask)
    assert guided < 0.25
    assert guided < 0.9 * blind


def test_sphere_with_anisotropic_voxels_and_oblique_field():
    shape, radius = (36, 44, 24), 5.0
    axes = [(torch.arange(n) - n / 2) * v for n, v in zip(shape, VOXEL, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    r = (x**2 + y**2 + z**2).sqrt().clamp_min(1e-6)
    norm = math.sqrt(sum(b * b for b in OBLIQUE))
    along = sum(c * b / norm for c, b in zip((x, y, z), OBLIQUE, strict=True)) / r
    outside = 0.1 / 3 * (radius / r) ** 3 * (3 * along**2 - 1)
    field = torch.where(r > radius, outside, torch.zeros_like(r))
    mask, core = r < 14, r <= radius
    chi = medi(field * mask, mask, VOXEL, OBLIQUE, regularization=1e-4).chi
    step = chi[core].mean() - chi[mask & ~core].mean()
    assert float(step) == pytest.approx(0.1, rel=0.12)


def test_turns_of_phase_in_single_voxels_change_nothing():
    field, _, mask, magnitude = blocks()
    turn = 1 / (GYROMAGNETIC_RATIO * 3.0 * 0.02)
    alone = torch.zeros_like(field)
    alone[1::4, 1::4, 1::4] = torch.randint(-2, 3, alone[1::4, 1::4, 1::4].shape).float()
    wrapped = field + turn * mask * alone
    keys = {"regularization": 1e-4, "max_iterations": 3, "b0": 3.0, "echo_time": 0.02}
    flat = torch.where(mask, 0.002, 0.0)
    one = medi(field, mask, VOXEL, OBLIQUE, noise=flat, magnitude=magnitude, **keys).chi
    two = medi(wrapped, mask, VOXEL, OBLIQUE, noise=flat, magnitude=magnitude, **keys).chi
    torch.testing.assert_close(two, one, atol=5e-4, rtol=1e-2)


def test_scaling_small_phase_scales_chi():
    field, _, mask, magnitude = blocks()
    field = noisy(field, mask)
    keys = {"magnitude": magnitude, "echo_time": 1e-4}
    one = medi(field, mask, VOXEL, OBLIQUE, **keys)
    two = medi(3 * field, mask, VOXEL, OBLIQUE, **keys)
    assert float((two.chi - 3 * one.chi).norm() / (3 * one.chi).norm()) < 0.01
    ratio = two.parameters["regularization"] / one.parameters["regularization"]
    assert ratio == pytest.approx(3, rel=1e-3)


def test_csf_becomes_zero_and_uniform():
    field, truth, mask, magnitude = blocks()
    field = noisy(field, mask)
    csf = (truth == truth[12, 14, 11]) & mask
    plain = medi(field, mask, VOXEL, OBLIQUE, magnitude=magnitude).chi
    zeroed = medi(field, mask, VOXEL, OBLIQUE, magnitude=magnitude, csf=csf).chi
    assert abs(float(zeroed[csf].mean())) < 1e-5
    assert float(zeroed[csf].std()) < float(plain[csf].std())


def test_merit_takes_weight_from_outliers():
    field, truth, mask, _ = blocks()
    bad = torch.zeros_like(mask)
    bad[10:15:4, 12:17:4, 9:14:4] = True
    broken = torch.where(bad, field + 0.15, noisy(field, mask))
    keys = {"noise": torch.where(mask, 0.002, 0.0), "regularization": 2e-4}
    plain = error(medi(broken, mask, VOXEL, OBLIQUE, **keys).chi, truth, mask)
    robust = error(medi(broken, mask, VOXEL, OBLIQUE, merit=True, **keys).chi, truth, mask)
    assert robust < 0.95 * plain


def test_zero_and_non_finite_fields():
    field, _, mask, magnitude = blocks()
    assert not medi(0 * field, mask, VOXEL, OBLIQUE, magnitude=magnitude).chi.any()
    field[12, 14, 11] = math.nan
    chi = medi(field, mask, VOXEL, OBLIQUE, magnitude=0 * magnitude, max_iterations=2).chi
    assert torch.isfinite(chi).all()
    assert not chi[~mask].any()


def test_edges_are_the_stated_share():
    field, _, mask, _ = blocks()
    data = phase_problem(field, mask, VOXEL, OBLIQUE, Signal())
    rim = smooth_faces(data, None)
    torch.manual_seed(0)
    faces = smooth_faces(data, torch.rand(data.grid.shape))
    for axis in range(3):
        assert float(faces[axis].sum() / rim[axis].sum()) == pytest.approx(
            1 - EDGE_SHARE, abs=0.01
        )
