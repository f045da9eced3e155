import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field, dipole_kernel
from qsm_nipype.core.fourier import gradient_spectrum, irfft, rfft, working_grid
from qsm_nipype.core.inversion import direct
from qsm_nipype.core.inversion.direct import tikhonov, tkd
from qsm_nipype.core.inversion.harmonic import whtv
from qsm_nipype.core.inversion.hdqsm import hdqsm
from qsm_nipype.core.inversion.ilsqr import ilsqr
from qsm_nipype.core.inversion.l1 import l1tv
from qsm_nipype.core.inversion.priors import two_sided_length
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.rts import rts
from qsm_nipype.core.inversion.tv import tv
from qsm_nipype.core.inversion.weights import (
    l2_weight,
    phase_weight,
    rts_weight,
    tv_weight,
    with_model_error,
)
from qsm_nipype.core.operators import gradient

METHODS = [tkd, tikhonov, rts, tv, whtv, hdqsm, l1tv, ilsqr]
SPARSE = [rts, tv, whtv, hdqsm, l1tv]
B0 = (0.3, 0.2, 0.93)

every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def ball(shape, voxel, radius, centre=(0.0, 0.0, 0.0)):
    """Offsets (mm) from the centre `(3, X, Y, Z)` and the mask of a ball."""
    axes = [
        (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * v - c
        for n, v, c in zip(shape, voxel, centre, strict=True)
    ]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return offsets, offsets.square().sum(0).sqrt() <= radius


def object_in_noise(shape=(32, 34, 30), voxel=(1.0, 1.1, 1.2), sigma=0.002, seed=0):
    """χ of a few blocks, its noisy local field, and the mask."""
    _, mask = ball(shape, voxel, 14.0)
    chi = torch.zeros(shape)
    chi[10:15, 12:18, 11:16] = 0.1
    chi[17:22, 14:22, 13:15] = -0.05
    chi = torch.where(mask, chi, 0.0)
    generator = torch.Generator().manual_seed(seed)
    field = dipole_field(chi, voxel, B0) + sigma * torch.randn(shape, generator=generator)
    return chi, torch.where(mask, field, 0.0), mask, voxel


def sphere_field(offsets, radius, b0):
    """Lorentz-corrected field shift (ppm) of a sphere of 1 ppm: zero inside, a dipole outside."""
    unit = torch.tensor(b0) / math.dist(b0, (0, 0, 0))
    r = offsets.square().sum(0).sqrt().clamp_min(1e-6)
    cosine = torch.einsum("i,ixyz->xyz", unit, offsets) / r
    outside = (radius / r) ** 3 * (3 * cosine.square() - 1) / 3
    return torch.where(r <= radius, 0.0, outside)


@every
@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), B0], ids=["straight", "oblique"])
def test_analytic_sphere_in_anisotropic_voxels(method, b0):
    voxel, shape = (1.0, 1.2, 1.6), (48, 40, 32)
    offsets, mask = ball(shape, voxel, 22.0)
    sphere = offsets.square().sum(0).sqrt() <= 7.0
    field = torch.where(mask, sphere_field(offsets, 7.0, b0), 0.0)
    chi = method(field, mask, voxel, b0).chi
    core = offsets.square().sum(0).sqrt() <= 5.0
    around = mask & (offsets.square().sum(0).sqrt() > 10.0)
    contrast = float(chi[core].mean() - chi[around].mean())
    within = {tkd: 0.12, tikhonov: 0.2, rts: 0.15, ilsqr: 0.12}.get(method, 0.1)
    assert contrast == pytest.approx(1.0, abs=within)
    assert float(chi[sphere].mean()) > 0 and chi[~mask].abs().max() == 0


@every
def test_analytic_cylinder_across_b0(method):
    voxel, shape, radius = (1.0, 1.0, 1.5), (40, 40, 48), 5.0
    b0 = (0.8, 0.6, 0.0)
    offsets, _ = ball(shape, voxel, 1.0)
    rho = offsets[:2].square().sum(0).sqrt()
    mask = rho <= 18.0
    cosine = (offsets[0] * b0[0] + offsets[1] * b0[1]) / rho.clamp_min(1e-6)
    outside = 0.5 * (radius / rho.clamp_min(1e-6)) ** 2 * (2 * cosine.square() - 1)
    inside = (3 * 0.0 - 1) / 6  # (3 cos²θ − 1)/6 with the axis at θ = 90°
    field = torch.where(rho <= radius, inside, outside) * mask
    chi = method(field, mask, voxel, b0).chi[:, :, 18:30]
    rho = rho[:, :, 18:30]
    contrast = float(chi[rho < 3.5].mean() - chi[(rho > 8) & (rho < 15)].mean())
    assert contrast == pytest.approx(1.0, abs=0.3)


@every
def test_chi_scales_with_field_and_noise(method):
    _, field, mask, voxel = object_in_noise()
    one = method(field, mask, voxel, B0).chi
    seven = method(7 * field, mask, voxel, B0).chi
    assert torch.allclose(seven, 7 * one, atol=7e-4 * float(one.abs().max()))


@every
def test_head_moved_in_its_box_moves_chi_with_it(method):
    _, field, mask, voxel = object_in_noise()
    big = [torch.zeros(47, 50, 41), torch.zeros(47, 50, 41)]
    moved = (slice(3, 35), slice(13, 47), slice(0, 30))
    for volume, x in zip(big, (field, mask.float()), strict=True):
        volume[moved] = x
    here = method(field, mask, voxel, B0).chi
    there = method(big[0], big[1] > 0, voxel, B0).chi
    assert torch.allclose(there[moved], here, atol=1e-4 * float(here.abs().max()))
    assert there[~(big[1] > 0)].abs().max() == 0


@every
def test_zero_field_gives_zero_chi(method):
    _, field, mask, voxel = object_in_noise()
    assert method(torch.zeros_like(field), mask, voxel, B0).chi.abs().max() == 0


@every
def test_edge_cases_stay_finite(method):
    _, field, mask, voxel = object_in_noise(shape=(16, 14, 12))
    lonely = torch.zeros_like(mask)
    lonely[0, 0, 0] = True
    for f, m in (
        (field, torch.zeros_like(mask)),
        (field, lonely),
        (torch.ones_like(field), torch.ones_like(mask)),
        (torch.where(lonely, torch.full_like(field, math.nan), field), mask | lonely),
    ):
        chi = method(f, m, voxel, B0).chi
        assert chi.shape == f.shape and bool(torch.isfinite(chi).all())


@every
def test_paramagnetic_is_positive(method):
    chi, field, mask, voxel = object_in_noise()
    found = method(field, mask, voxel, B0).chi
    assert found[chi > 0.05].mean() > found[mask & (chi == 0)].mean() > found[chi < -0.02].mean()


@pytest.mark.parametrize("method", SPARSE, ids=lambda m: m.__name__)
def test_total_variation_beats_division_on_blocks(method):
    chi, field, mask, voxel = object_in_noise()

    def error(x):
        return float(((x - x[mask].mean()) - (chi - chi[mask].mean()))[mask].norm())

    found = method(field, mask, voxel, B0)
    assert error(found.chi) < 0.6 * error(tkd(field, mask, voxel, B0).chi)
    assert found.converged and found.iterations > 1


def test_tkd_is_its_formula():
    _, field, mask, voxel = object_in_noise()
    grid = working_grid(mask, padding=direct.PADDING)
    D = dipole_kernel(grid.shape, voxel, B0, field)
    inverse = torch.where(D.abs() > 0.2, 1 / D, torch.where(D < 0, -1.0, 1.0) / 0.2)
    inverse[0, 0, 0] = 0
    plain = grid.restore(irfft(rfft(grid.embed(field)) * inverse, grid.shape)) * mask
    found = tkd(field, mask, voxel, B0, threshold=0.2, correct=False).chi
    assert torch.allclose(found, plain, atol=1e-6)
    corrected = tkd(field, mask, voxel, B0, threshold=0.2).chi
    ratio = corrected[mask] / plain[mask]
    assert ratio.median() == pytest.approx(1 / direct.truncated_share(0.2), rel=1e-4)
    with pytest.raises(ValueError, match="positive"):
        tkd(field, mask, voxel, B0, threshold=0)


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.4])
def test_tkd_gives_back_the_mean_of_what_is_larger_than_a_voxel(threshold):
    offsets, _ = ball((64, 64, 64), (1.0, 1.0, 1.0), 4.0)
    r = offsets.square().sum(0).sqrt()
    field = dipole_field((4.5 - r).clamp(0, 1), (1.0, 1.0, 1.0), B0)
    chi = tkd(field, torch.ones_like(r).bool(), (1.0,) * 3, B0, threshold=threshold).chi
    around = chi[(r > 8) & (r < 14)].mean()
    assert float(chi[r < 3.5].mean() - around) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 2.0])
def test_what_a_truncation_leaves_is_a_mean_over_directions(threshold):
    cosine = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    share = ((1 / 3 - cosine.square()).abs() / threshold).clamp(max=1).mean()
    assert direct.truncated_share(threshold) == pytest.approx(float(share), abs=1e-4)


def test_tikhonov_is_its_formula():
    _, field, mask, voxel = object_in_noise()
    grid = working_grid(mask, padding=direct.PADDING)
    D = dipole_kernel(grid.shape, voxel, B0, field)
    edges = [v / math.prod(voxel) ** (1 / 3) for v in voxel]
    inverse = D / (D**2 + 0.03 * gradient_spectrum(grid.shape, edges, field)).clamp_min(1e-12)
    expected = grid.restore(irfft(rfft(grid.embed(field)) * inverse, grid.shape)) * mask
    found = tikhonov(field, mask, voxel, B0, regularization=0.03)
    assert torch.allclose(found.chi, expected, atol=1e-6)
    assert found.parameters["regularization"] == 0.03


@pytest.mark.parametrize("method", [tikhonov, tv, whtv, rts, hdqsm], ids=lambda m: m.__name__)
def test_the_chosen_weight_rises_with_the_noise(method):
    chosen = []
    for sigma in (0.0, 0.001, 0.003, 0.01):
        _, field, mask, voxel = object_in_noise(sigma=sigma)
        chosen.append(method(field, mask, voxel, B0).parameters["regularization"])
    assert chosen == sorted(chosen) and chosen[0] < chosen[-1]


def test_rules_scale_as_their_units_demand():
    assert tv_weight(0.02, 0.1) == pytest.approx(10 * tv_weight(0.002, 0.01))
    assert rts_weight(0.02, 0.1) == pytest.approx(10 * rts_weight(0.002, 0.01))
    assert phase_weight(0.02, 0.1) == pytest.approx(10 * phase_weight(0.002, 0.01))
    assert l2_weight(0.5, 5.0) == pytest.approx(l2_weight(0.1, 1.0))


@pytest.mark.parametrize("rule", [l2_weight, tv_weight, rts_weight, phase_weight])
def test_rules_rise_with_the_noise_and_are_never_zero_beside_a_signal(rule):
    found = [rule(sigma, 0.02) for sigma in (0.0, 3e-4, 1e-3, 5e-3, 0.019)]
    assert found == sorted(found) and found[0] > 0
    assert rule(0.0, 0.0) >= 0


@pytest.mark.parametrize("method", [tv, whtv, rts, ilsqr], ids=lambda m: m.__name__)
def test_a_noise_map_takes_the_power_from_bad_voxels(method):
    chi, field, mask, voxel = object_in_noise()
    bad = torch.zeros_like(mask)
    bad[8:10, 15:18, 16:19] = True
    spoiled = torch.where(bad, field + 0.5, field)
    noise = torch.where(bad, 1.0, 0.002)
    good = mask & ~bad

    def error(x):
        return float(((x - x[good].mean()) - (chi - chi[good].mean()))[good].norm())

    with_map = method(spoiled, mask, voxel, B0, noise=noise).chi
    assert error(with_map) < 0.7 * error(method(spoiled, mask, voxel, B0).chi)


def test_l1_shrugs_off_outliers_that_bend_l2():
    chi, field, mask, voxel = object_in_noise()
    generator = torch.Generator().manual_seed(9)
    hit = mask & (torch.rand(mask.shape, generator=generator) < 0.01)
    spoiled = torch.where(hit, field + 0.3, field)

    def error(x):
        return float(((x - x[mask].mean()) - (chi - chi[mask].mean()))[mask].norm())

    plain = error(tv(spoiled, mask, voxel, B0).chi)
    assert error(l1tv(spoiled, mask, voxel, B0).chi) < 0.5 * plain
    assert error(hdqsm(spoiled, mask, voxel, B0).chi) < 0.8 * plain


def test_dipole_of_the_box_is_self_adjoint():
    _, field, mask, voxel = object_in_noise()
    problem = field_problem(field.double(), mask, voxel, B0)
    generator = torch.Generator().manual_seed(2)
    a, b = (
        torch.randn(problem.f.shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    dipole = problem.dipole
    assert float((dipole(a) * b).sum()) == pytest.approx(float((a * dipole(b)).sum()), rel=1e-9)


def test_tv_reaches_the_minimum_of_its_objective():
    _, field, mask, _ = object_in_noise(shape=(18, 18, 18), voxel=(1.0, 1.0, 1.0))
    voxel, lam = (1.0, 1.0, 1.0), 2e-4
    problem = field_problem(field, mask, voxel, B0)

    def objective(chi):
        x = problem.cut(chi)
        misfit = problem.W * (problem.dipole(x) - problem.f)
        steps = gradient(x, voxel).square()
        both = steps + torch.stack([steps[axis].roll(1, axis) for axis in range(3)])
        length = (both.sum(0) / 2).sqrt().sum()
        return float(misfit.square().sum() / 2 + lam * length)

    def solved(tolerance, most):
        limits = {"tolerance": tolerance, "max_iterations": most}
        return tv(field, mask, voxel, B0, regularization=lam, **limits).chi

    exact = solved(1e-6, 250)
    best = objective(exact)
    assert objective(solved(5e-3, 60)) == pytest.approx(best, rel=0.02)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        nearby = exact + 2e-4 * mask * torch.randn(mask.shape, generator=generator)
        assert objective(nearby) > best


@every
def test_scaling_all_lengths_changes_nothing(method):
    _, field, mask, voxel = object_in_noise()
    one = method(field, mask, voxel, B0).chi
    doubled = method(field, mask, [2 * v for v in voxel], B0).chi
    assert torch.allclose(doubled, one, atol=1e-3 * float(one.abs().max()))


def test_weak_harmonic_takes_off_what_outer_sources_left():
    """A harmonic field on top changes χ far less than it changes plain total variation's."""
    _, field, mask, voxel = object_in_noise(sigma=0.001)
    x, y, z = ball(field.shape, voxel, 1.0)[0]
    harmonic = (2e-3 * x + 1e-4 * (x.square() - z.square()) + 1e-4 * y * z) * mask
    moved = {}
    for method in (tv, whtv):
        before = method(field, mask, voxel, B0, regularization=1e-4).chi
        after = method(field + harmonic, mask, voxel, B0, regularization=1e-4).chi
        change = after - before
        moved[method] = float((change - change[mask].mean())[mask].norm() / before[mask].norm())
    assert moved[whtv] < 0.25 * moved[tv]


def test_a_logarithmic_tail_leaves_steep_edges_their_height():
    """Total variation takes from a source of 0.1 ppm; a tail gives half of it back at least."""
    chi, field, mask, voxel = object_in_noise(sigma=0.003)
    source, around = chi > 0.05, mask & (chi == 0)
    lost = {}
    for tail in (0.0, 4.5):
        found = whtv(field, mask, voxel, B0, regularization=6e-4, tail=tail).chi
        lost[tail] = 0.1 - float(found[source].mean() - found[around].mean())
    assert lost[0.0] > 0.01
    assert abs(lost[4.5]) < 0.5 * lost[0.0]


def test_a_gradient_is_as_long_as_its_ramp_is_steep():
    x, y, z = ball((7, 8, 9), (1.0, 1.0, 1.0), 1.0)[0]
    length = two_sided_length(gradient(3 * x - 2 * y + 6 * z, (1.0, 1.0, 1.0)))
    torch.testing.assert_close(length[1:-1, 1:-1, 1:-1], torch.full((5, 6, 7), 7.0))


def test_model_error_counts_as_noise_up_to_the_size_of_the_signal():
    assert with_model_error(0.002, 0.0, 0.01) == 0.002
    assert with_model_error(0.0, 0.1, 0.01) == pytest.approx(0.005)
    assert with_model_error(0.0, 0.4, 0.01) == pytest.approx(0.01)
    assert with_model_error(0.02, 0.1, 0.1) == pytest.approx(
        10 * with_model_error(0.002, 0.1, 0.01)
    )
