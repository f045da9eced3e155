"""Laws of the non-linear inversions."""

import math

import pytest
import torch

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.dataterm import phase_prox
from qsm_nipype.core.inversion.medi import medi
from qsm_nipype.core.inversion.nonlinear import nltgv, nltv
from qsm_nipype.core.inversion.problem import Signal, phase_problem
from qsm_nipype.core.operators import symmetric_divergence, symmetric_gradient
from qsm_nipype.core.phase import wrap

VOXEL = (1.0, 0.8, 1.5)
OBLIQUE = (0.3, -0.4, 0.866)


def coordinates(shape, voxel_size):
    axes = [(torch.arange(n) - n / 2) * v for n, v in zip(shape, voxel_size, strict=True)]
    return torch.meshgrid(*[a.float() for a in axes], indexing="ij")


def sphere_problem(radius=5.0, chi=0.1, voxel_size=VOXEL, b0_dir=OBLIQUE):
    """Analytic field of a sphere, its χ and a mask: (field, chi, mask), (X, Y, Z)."""
    shape = (40, 48, 32)
    x, y, z = coordinates(shape, voxel_size)
    r = (x**2 + y**2 + z**2).sqrt()
    norm = math.sqrt(sum(b * b for b in b0_dir))
    along = sum(c * b / norm for c, b in zip((x, y, z), b0_dir, strict=True))
    outside = (
        chi / 3 * (radius / r.clamp_min(1e-6)) ** 3 * (3 * (along / r.clamp_min(1e-6)) ** 2 - 1)
    )
    field = torch.where(r > radius, outside, torch.zeros_like(r))
    return field, torch.where(r <= radius, chi, 0.0), r < 14


def cylinder_problem(radius=4.0, chi=0.1):
    """Analytic field of a long cylinder along y across B0 = z: χ/2 (a/r)² cos 2φ, −χ/6 inside."""
    shape = (48, 96, 48)
    x, y, z = coordinates(shape, (1, 1, 1))
    r2 = (x**2 + z**2).clamp_min(1e-6)
    field = torch.where(
        r2 > radius**2, chi / 2 * radius**2 * (z**2 - x**2) / r2**2, torch.tensor(-chi / 6)
    )
    inside = (r2 < 14**2) & (y.abs() < 40)
    return field, torch.where(r2 <= radius**2, chi, 0.0), inside


def textured(seed=0, shape=(32, 36, 30), voxel_size=(1, 1, 1), b0_dir=(0, 0, 1)):
    torch.manual_seed(seed)
    x, y, z = coordinates(shape, (1, 1, 1))
    mask = (x / 13) ** 2 + (y / 15) ** 2 + (z / 12) ** 2 < 1
    chi = torch.randn(shape)
    for axis in range(3):
        chi = (chi + chi.roll(1, axis) + chi.roll(-1, axis)) / 2
    chi = 0.05 * chi / chi[mask].std() * mask
    return dipole_field(chi, voxel_size, b0_dir, padding=1.0) * mask, chi, mask


def error(chi, truth, mask):
    a, b = chi[mask] - chi[mask].mean(), truth[mask] - truth[mask].mean()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("method", [nltv, nltgv])
def test_sphere_with_anisotropic_voxels_and_oblique_field(method):
    field, truth, mask = sphere_problem()
    chi = method(field * mask, mask, VOXEL, OBLIQUE, regularization=1e-4).chi
    core = truth > 0
    rest = mask & ~core
    assert float(chi[core].mean() - chi[rest].mean()) == pytest.approx(0.1, rel=0.12)
    assert error(chi, truth, mask) < 0.4


def test_wrong_direction_of_b0_is_worse():
    field, truth, mask = sphere_problem()
    right = nltv(field * mask, mask, VOXEL, OBLIQUE, regularization=1e-4).chi
    wrong = nltv(field * mask, mask, VOXEL, (0, 0, 1), regularization=1e-4).chi
    assert error(wrong, truth, mask) > 1.5 * error(right, truth, mask)


def test_cylinder_across_the_field():
    field, truth, mask = cylinder_problem()
    chi = nltv(field * mask, mask, (1, 1, 1), regularization=1e-4).chi
    middle = torch.zeros_like(mask)
    middle[:, 28:68] = mask[:, 28:68]
    step = chi[middle & (truth > 0)].mean() - chi[middle & (truth == 0)].mean()
    assert float(step) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("method", [nltv, nltgv])
def test_turns_of_phase_in_single_voxels_change_nothing(method):
    field, _, mask = textured()
    turn = 1 / (GYROMAGNETIC_RATIO * 3.0 * 0.02)  # ppm per 2π
    alone = torch.zeros_like(field)
    alone[1::4, 1::4, 1::4] = torch.randint(-2, 3, alone[1::4, 1::4, 1::4].shape).float()
    wrapped = field + turn * mask * alone
    keys = {"regularization": 1e-4, "max_iterations": 15, "b0": 3.0, "echo_time": 0.02}
    plain = method(field, mask, (1, 1, 1), **keys).chi
    again = method(wrapped, mask, (1, 1, 1), **keys).chi
    torch.testing.assert_close(again, plain, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("method", [nltv, nltgv, medi])
def test_a_strong_source_keeps_its_turns(method):
    """The field of a bleed, many turns of phase, is as unwrapping left it: all of χ is found."""
    field, truth, mask = sphere_problem()
    inside = truth > 0
    strength = 3.0 / float(truth.max())
    chi = method(
        strength * field * mask, mask, VOXEL, OBLIQUE, regularization=1e-3, echo_time=0.02
    ).chi
    step = chi[inside].mean() - chi[mask & ~inside].mean()
    assert float(step) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("method", [nltv, medi])
def test_the_echo_time_does_not_change_chi(method):
    """χ in ppm is a tissue's; a long echo makes no phase that the data term would lose."""
    field, _, mask = textured()
    times = (1e-5, 1e-2, 0.2)
    keys = {"regularization": 1e-4, "tolerance": 1e-4}
    short, usual, long = (method(field, mask, (1, 1, 1), echo_time=t, **keys).chi for t in times)
    assert error(usual, short, mask) < 2e-3
    assert error(long, short, mask) < 2e-3


def test_prox_is_stationary_and_linear_for_small_phase():
    torch.manual_seed(0)
    v, phase = 2 * torch.rand(1000).double(), 7 + 2 * torch.rand(1000).double()
    k = torch.rand(1000).double() * 0.9
    z = phase_prox(v, phase, k, steps=8)
    torch.testing.assert_close(
        k * torch.sin(z - phase) + z - v, torch.zeros_like(v), atol=1e-6, rtol=0
    )
    z = phase_prox(1e-4 * v, 1e-4 * phase, k)
    torch.testing.assert_close(z, 1e-4 * (v + k * phase) / (1 + k), atol=1e-9, rtol=1e-5)


def test_scaling_field_and_noise_scales_chi():
    field, _, mask = textured()
    field = field + 0.002 * torch.randn(field.shape) * mask
    small = nltv(field, mask, (1, 1, 1), echo_time=1e-4)
    large = nltv(3 * field, mask, (1, 1, 1), echo_time=1e-4)
    torch.testing.assert_close(large.chi, 3 * small.chi, atol=1e-4, rtol=1e-2)
    ratio = large.parameters["regularization"] / small.parameters["regularization"]
    assert ratio == pytest.approx(3, rel=1e-3)


def test_scaling_all_lengths_changes_nothing():
    field, _, mask = textured()
    one = nltv(field, mask, (1, 1, 1), regularization=1e-4).chi
    two = nltv(field, mask, (2, 2, 2), regularization=1e-4).chi
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-4)


def test_place_in_the_box_changes_nothing():
    field, _, mask = textured()
    place = lambda x: torch.nn.functional.pad(x, (3, 10, 0, 7, 9, 2))  # noqa: E731
    one = nltv(field, mask, (1, 1, 1), regularization=1e-4).chi
    two = nltv(place(field), place(mask), (1, 1, 1), regularization=1e-4).chi
    torch.testing.assert_close(two, place(one))


@pytest.mark.parametrize("method", [nltv, nltgv])
def test_zero_and_non_finite_fields(method):
    field, _, mask = textured()
    assert not method(0 * field, mask, (1, 1, 1)).chi.any()
    field[16, 18, 15], field[14, 18, 15] = math.nan, math.inf
    chi = method(field, mask, (1, 1, 1), max_iterations=5).chi
    assert torch.isfinite(chi).all()
    assert not chi[~mask].any()


def test_noisy_voxels_count_less():
    field, truth, mask = textured()
    torch.manual_seed(2)
    noise = torch.where(torch.rand(field.shape) < 0.2, 0.03, 0.001)
    noisy = (field + noise * torch.randn(field.shape)) * mask
    weighted = nltv(noisy, mask, (1, 1, 1), noise=noise, regularization=1e-4).chi
    plain = nltv(noisy, mask, (1, 1, 1), regularization=1e-4).chi
    assert error(weighted, truth, mask) < 0.9 * error(plain, truth, mask)


def test_automatic_weight_is_near_the_best():
    """Within 15 % in NRMSE of the best of a sweep, σ = 0.5 … 5 ppb (5 % on a head, see docs)."""
    field, truth, mask = textured()
    for sigma in (5e-4, 2e-3, 5e-3):
        torch.manual_seed(3)
        noisy = (field + sigma * torch.randn(field.shape)) * mask
        chosen = nltv(noisy, mask, (1, 1, 1))
        weight = chosen.parameters["regularization"]
        sweep = [
            error(nltv(noisy, mask, (1, 1, 1), regularization=weight * f).chi, truth, mask)
            for f in (0.5, 2.0)
        ]
        assert error(chosen.chi, truth, mask) < 1.15 * min(sweep)


def test_generalised_variation_keeps_a_ramp():
    """A ramp has ℰw = 0: TGV leaves its slope, TV makes stairs of it or flattens it."""
    shape = (24, 24, 24)
    x, y, z = coordinates(shape, (1, 1, 1))
    mask = (x**2 + y**2 + z**2) < 11**2
    truth = 0.01 * x * mask
    torch.manual_seed(0)
    field = dipole_field(truth, (1, 1, 1), (0, 0, 1), padding=1.0)
    field = (field + 0.005 * torch.randn(shape)) * mask
    core = x**2 + y**2 + z**2 < 7**2
    keys = {"regularization": 1e-3, "tolerance": 1e-4, "max_iterations": 100}
    tv_error = error(nltv(field, mask, (1, 1, 1), **keys).chi, truth, core)
    tgv_error = error(nltgv(field, mask, (1, 1, 1), **keys).chi, truth, core)
    assert tgv_error < 0.05
    assert tgv_error < 0.5 * tv_error


def test_symmetric_gradient_and_divergence_are_adjoint():
    torch.manual_seed(0)
    w, q = torch.randn(3, 6, 8, 10).double(), torch.randn(6, 6, 8, 10).double()
    weight = torch.tensor([1.0, 1, 1, 2, 2, 2]).view(6, 1, 1, 1)
    left = (symmetric_gradient(w, VOXEL) * q * weight).sum()
    right = -(w * symmetric_divergence(q, VOXEL)).sum()
    torch.testing.assert_close(left, right)


def test_phase_problem_holds_radians_and_weights():
    field, _, mask = textured()
    data = phase_problem(field, mask, (2, 2, 2), (0, 0, 1), Signal(b0=7.0, echo_time=0.01))
    torch.testing.assert_close(data.phase / data.radians, field[mask])
    assert data.radians == pytest.approx(2 * math.pi * 42.577478 * 7 * 0.01)
    assert data.voxel_size == pytest.approx((1, 1, 1))
    assert bool((data.weights == 1).all())
    assert float(wrap(torch.tensor(7.0))) == pytest.approx(7 - 2 * math.pi, abs=1e-6)


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        nltv(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.bool), (1, 1, 1))
