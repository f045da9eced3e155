"""The dipole field against analytic solutions: sphere, cylinder; and its symmetries."""

import math

import pytest
import torch

from qsm_nipype.core.dipole import apply_kernel, dipole_field, dipole_kernel

DIRECTIONS = [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.4, -0.3, 0.8)]


def grid(shape, voxel_size):
    axes = [
        (torch.arange(n, dtype=torch.float32) - n // 2) * v
        for n, v in zip(shape, voxel_size, strict=True)
    ]
    return torch.meshgrid(*axes, indexing="ij")


def unit(direction):
    norm = math.sqrt(sum(v * v for v in direction))
    return [v / norm for v in direction]


def smoothed(distance, radius, width):
    """Partial volume: 1 inside, 0 outside, linear over a voxel at the surface."""
    return ((radius - distance) / width + 0.5).clamp(0, 1)


@pytest.mark.parametrize("b0_dir", DIRECTIONS)
@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (1.0, 0.9, 1.4)])
def test_a_sphere_makes_a_dipole_outside_and_no_field_inside(b0_dir, voxel_size):
    shape, radius, chi = (72, 76, 60), 8.0, 1.0
    x, y, z = grid(shape, voxel_size)
    r = (x**2 + y**2 + z**2).sqrt()
    bx, by, bz = unit(b0_dir)
    cosine = (x * bx + y * by + z * bz) / r.clamp_min(1e-6)
    truth = chi / 3 * (radius / r.clamp_min(1e-6)) ** 3 * (3 * cosine**2 - 1)
    field = dipole_field(chi * smoothed(r, radius, 1.0), voxel_size, b0_dir, padding=1.0)
    outside = (r > radius + 3) & (r < 22)
    inside = r < radius - 3
    assert (field - truth)[outside].norm() < 0.06 * truth[outside].norm()
    assert field[inside].abs().max() < 0.03


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0])
def test_a_long_cylinder_follows_its_angle_to_b0(angle):
    theta = math.radians(angle)
    b0_dir = (math.sin(theta), 0.0, math.cos(theta))
    shape, radius, chi = (80, 80, 80), 6.0, 1.0
    x, y, _ = grid(shape, (1.0, 1.0, 1.0))
    rho = (x**2 + y**2).sqrt()
    # endless along z: the transform's period continues it, so no padding there
    kernel = dipole_kernel(shape, (1.0, 1.0, 1.0), b0_dir, rho)
    field = apply_kernel(chi * smoothed(rho, radius, 1.0), kernel)
    inside = chi * (math.cos(theta) ** 2 - 1 / 3) / 2
    outside = chi / 2 * math.sin(theta) ** 2 * (radius / rho.clamp_min(1e-6)) ** 2
    outside = outside * (x**2 - y**2) / rho.clamp_min(1e-6) ** 2
    far = (rho > radius + 3) & (rho < 24)
    shift = field[far].mean() - outside[far].mean()  # D(0) = 0 takes the mean away
    assert field[rho < radius - 3].mean() - shift == pytest.approx(inside, abs=0.02)
    assert (field - shift - outside)[far].abs().max() < 0.04


@pytest.mark.parametrize("b0_dir", DIRECTIONS)
def test_the_forward_model_is_its_own_adjoint(b0_dir):
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(2, 18, 20, 16, generator=generator, dtype=torch.float64)
    kernel = dipole_kernel(x.shape, (1.0, 1.3, 2.0), b0_dir, x)
    left, right = (apply_kernel(x, kernel) * y).sum(), (x * apply_kernel(y, kernel)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-10)


def test_the_field_moves_with_its_source():
    chi = torch.zeros(48, 48, 48)
    chi[14:20, 15:19, 12:20] = 1.0
    field = dipole_field(chi, (1.0, 1.0, 1.5), (0.2, 0.1, 0.9))
    moved = dipole_field(chi.roll((5, 7, 3), (0, 1, 2)), (1.0, 1.0, 1.5), (0.2, 0.1, 0.9))
    near, there = (slice(8, 30),) * 3, (slice(13, 35), slice(15, 37), slice(11, 33))
    assert torch.allclose(moved[there], field[near], atol=1e-5)


def test_the_kernel_lies_between_its_bounds_and_b0_needs_no_length():
    like = torch.zeros(())
    kernel = dipole_kernel((16, 18, 20), (1.0, 1.0, 2.0), (0.3, 0.1, 2.0), like)
    assert kernel[0, 0, 0] == 0
    assert kernel.min() >= -2 / 3 - 1e-6 and kernel.max() <= 1 / 3 + 1e-6
    scaled = dipole_kernel((16, 18, 20), (1.0, 1.0, 2.0), (0.6, 0.2, 4.0), like)
    assert torch.allclose(kernel, scaled)
    with pytest.raises(ValueError, match="zero vector"):
        dipole_kernel((8, 8, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), like)


def test_swapping_axes_swaps_the_field():
    generator = torch.Generator().manual_seed(6)
    chi = torch.randn(20, 24, 22, generator=generator)
    field = dipole_field(chi, (1.0, 1.2, 2.0), (0.5, 0.1, 0.8))
    swapped = dipole_field(chi.permute(2, 0, 1), (2.0, 1.0, 1.2), (0.8, 0.5, 0.1))
    assert torch.allclose(field.permute(2, 0, 1), swapped, atol=1e-5)
