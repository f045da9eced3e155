"""Laws of the parts of ADMM, and of the two regions of a problem."""

import math
from functools import partial

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.admm import (
    DATA_PENALTY,
    HARMONIC_ENERGY,
    LAPLACIAN_PENALTY,
    RELAXATION,
    Dipole,
    DipoleAndHarmonic,
    Limits,
    solve,
    solve_linear,
    solve_phase,
)
from qsm_nipype.core.inversion.dataterm import FieldTerm, absolute, least_squares
from qsm_nipype.core.inversion.harmonic import (
    DATA_PENALTY_BESIDE_H,
    GRADIENT_SCALE_BESIDE_H,
    whtv,
)
from qsm_nipype.core.inversion.ilsqr import fit_least_squares
from qsm_nipype.core.inversion.nonlinear import nltgv, nltv
from qsm_nipype.core.inversion.priors import GeneralisedVariation, Variation
from qsm_nipype.core.inversion.problem import Signal, field_problem, phase_problem
from qsm_nipype.core.inversion.tv import tv
from qsm_nipype.core.operators import divergence, gradient

VOXEL, B0 = (1.0, 1.1, 1.3), (0.3, 0.2, 0.93)
SHAPE = (26, 24, 22)
LAMBDA = 1e-4


def ball(radius):
    axes = [(torch.arange(n) - (n - 1) / 2) * v for n, v in zip(SHAPE, VOXEL, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt() <= radius


def source_at_the_rim():
    """χ with a strong source just outside a ball, its field everywhere, the ball, a larger one."""
    chi = torch.zeros(SHAPE)
    chi[10:13, 9:12, 10:13] = 0.05
    chi[21:23, 11:14, 9:13] = 0.2
    mask, region = ball(8.0), ball(11.0)
    assert not (mask & (chi == 0.2)).any() and (region | (chi != 0.2)).all()
    torch.manual_seed(0)
    field = dipole_field(chi, VOXEL, B0, padding=1.0) + 5e-4 * torch.randn(SHAPE)
    return chi, field, mask, region


def told(field, mask, region):
    """A problem's data with which χ is told in all of the source region, not in the mask only."""
    return torch.where(mask, field, torch.nan), mask if region is None else region, VOXEL, B0


def phases(field, mask, region):
    return phase_problem(*told(field, mask, region), Signal())


def linear(field, mask, region):
    problem = field_problem(*told(field, mask, region), region=region)
    prox = least_squares(problem, DATA_PENALTY)
    return solve_linear(problem, prox, LAMBDA, Limits(1.5e-3, 100), chosen={})


def robust(field, mask, region):
    problem = field_problem(*told(field, mask, region), region=region)
    unit = 0.3 * problem.scale
    prox = absolute(problem, 0.5, unit)
    return solve_linear(problem, prox, 0.01 * unit, Limits(2e-3, 200), chosen={})


def weak_harmonic(field, mask, region):
    problem = field_problem(*told(field, mask, region), region=region)
    radius, nu, a = GRADIENT_SCALE_BESIDE_H * problem.scale, DATA_PENALTY_BESIDE_H, RELAXATION
    return solve(
        problem,
        Variation(problem, radius, free=problem.rim(), a=a),
        FieldTerm(problem, least_squares(problem, nu), a=a),
        DipoleAndHarmonic(problem, LAMBDA / radius, nu, 150.0, LAPLACIAN_PENALTY, a=a),
        Limits(5e-3, 120),
        a=a,
        chosen={},
    )


def nonlinear(field, mask, region):
    problem = phases(field, mask, region)
    return solve_phase(problem, Variation, LAMBDA, Limits(4e-4, 150))


def generalised(field, mask, region):
    problem = phases(field, mask, region)
    return solve_phase(problem, GeneralisedVariation, LAMBDA, Limits(5e-4, 150))


def single_step(field, mask, region):
    problem = phases(field, mask, region)
    return solve_phase(problem, GeneralisedVariation, LAMBDA, Limits(2e-3, 50), harmonic=150.0)


EVERY = [linear, robust, weak_harmonic, nonlinear, generalised, single_step]
every = pytest.mark.parametrize("invert", EVERY, ids=lambda f: f.__name__)


@every
def test_chi_may_be_in_the_source_region_and_nowhere_else(invert):
    _, field, mask, region = source_at_the_rim()
    chi = invert(field, mask, region).chi
    assert chi[region & ~mask].abs().max() > 0
    assert chi[~region].abs().max() == 0


@every
def test_nothing_is_asked_of_the_field_outside_the_data_mask(invert):
    _, field, mask, region = source_at_the_rim()
    other = torch.where(mask, field, 100.0)
    other[0, 0, 0] = math.nan
    assert torch.equal(invert(other, mask, region).chi, invert(field, mask, region).chi)


@every
def test_without_a_region_sources_lie_in_the_data_mask(invert):
    _, field, mask, _ = source_at_the_rim()
    alone = invert(field, mask, None).chi
    assert torch.equal(alone, invert(field, mask, mask).chi)
    assert alone[~mask].abs().max() == 0


@pytest.mark.parametrize(
    "invert", [linear, robust, nonlinear, generalised], ids=lambda f: f.__name__
)
def test_a_source_beside_the_data_mask_no_longer_bends_chi_inside(invert):
    truth, field, mask, region = source_at_the_rim()

    def error(chi):
        off = (chi - truth)[mask]
        return float((off - off.mean()).norm())

    assert error(invert(field, mask, region).chi) < 0.6 * error(invert(field, mask, None).chi)


def test_methods_are_the_solvers_on_one_region():
    _, field, mask, _ = source_at_the_rim()
    for method, invert in (
        (tv, linear),
        (partial(whtv, tail=0.0), weak_harmonic),
        (nltv, nonlinear),
        (nltgv, generalised),
    ):
        found = method(field, mask, VOXEL, B0, regularization=LAMBDA)
        expected = invert(field, mask, None)
        assert torch.equal(found.chi, expected.chi)
        assert found.iterations == expected.iterations


def test_conjugate_gradients_keep_to_the_source_region():
    _, field, mask, region = source_at_the_rim()
    problem = field_problem(*told(field, mask, region), region=region)
    x, _ = fit_least_squares(problem, 1e-2, 10)
    chi = problem.restore(x)
    assert x[~problem.S].abs().max() == 0 and chi[region & ~mask].abs().max() > 0


def test_the_source_region_holds_the_data_mask_and_voxels_without_a_field():
    _, field, mask, _ = source_at_the_rim()
    aside = torch.zeros_like(mask)
    aside[0, 0, 0] = True
    field[13, 12, 11] = math.nan
    problem = field_problem(field, mask, VOXEL, B0, region=aside | mask)
    assert not problem.cut(aside)[~problem.S].any() and not (problem.M & ~problem.S).any()
    assert int(problem.S.sum() - problem.M.sum()) == 2
    assert problem.f.isfinite().all() and not problem.W[~problem.M].any()


@pytest.mark.parametrize("harmonic", [False, True])
def test_the_solvers_solve_their_normal_equations(harmonic):
    """On the whole grid, where box and transforms are one, in double precision."""
    _, field, mask, _ = source_at_the_rim()
    p = phases(field.double(), mask, None)
    mu, nu, beta, pi = 0.03, 0.7, 20.0, 0.4
    torch.manual_seed(1)
    pull, z2 = torch.randn(2, *p.grid.shape, dtype=torch.float64).unbind(0)
    solver = DipoleAndHarmonic(p, mu, nu, beta, pi) if harmonic else Dipole(p, mu, nu)
    x, y = solver(pull.clone(), z2.clone())  # y was zero before
    h = y - p.dipole(x)
    rough = -divergence(gradient(x, p.voxel_size), p.voxel_size)
    slope = nu * p.dipole(y - z2) + mu * (rough + x - pull)
    assert slope.abs().max() < 1e-10
    if harmonic:
        laplacian = divergence(gradient(h, p.voxel_size), p.voxel_size)
        stiff = divergence(gradient(laplacian, p.voxel_size), p.voxel_size)
        energy = -HARMONIC_ENERGY * float(mask.sum()) ** (2 / 3) * laplacian
        assert (nu * (y - z2) + pi * stiff + energy).abs().max() < 1e-10
    else:
        assert h.abs().max() < 1e-10


def test_proximal_maps_minimise():
    _, field, mask, _ = source_at_the_rim()
    problem = field_problem(field, mask, VOXEL, B0, noise=torch.rand(SHAPE) + 0.5)
    torch.manual_seed(3)
    v, nu, unit = torch.randn(problem.grid.shape), 0.5, 0.2
    z = least_squares(problem, nu)(v)
    slope = problem.W.square() * (z - problem.f) + nu * (z - v)
    assert slope.abs().max() < 1e-5
    assert torch.equal(z[~problem.M], v[~problem.M])  # nothing is asked there

    def objective(z):
        return unit * problem.W * (z - problem.f).abs() + nu / 2 * (z - v).square()

    best = absolute(problem, nu, unit)(v)
    for step in (-1e-2, 1e-2):
        assert (objective(best + step) > objective(best) - 1e-6).all()
    torch.testing.assert_close(best[~problem.M], v[~problem.M])
