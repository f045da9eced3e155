"""χ depends neither on how the axes are stored nor on where the loop stops."""

import inspect
import itertools

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion import admm, priors
from qsm_nipype.core.inversion.direct import tikhonov, tkd
from qsm_nipype.core.inversion.harmonic import whtv
from qsm_nipype.core.inversion.hdqsm import hdqsm
from qsm_nipype.core.inversion.ilsqr import ilsqr
from qsm_nipype.core.inversion.l1 import l1tv
from qsm_nipype.core.inversion.medi import medi
from qsm_nipype.core.inversion.nonlinear import nltgv, nltv
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.rts import rts
from qsm_nipype.core.inversion.tgv import tgv
from qsm_nipype.core.inversion.tv import tv
from qsm_nipype.core.operators import divergence, gradient

VOXEL, B0 = (1.0, 1.1, 1.3), (0.3, 0.2, 0.93)
ITERATIVE = [tv, l1tv, hdqsm, rts, whtv, nltv, nltgv, medi]
METHODS = [*ITERATIVE, tgv, ilsqr, tkd, tikhonov]
#: (order of the axes, axes then flipped): three flips, a swap and a turn make all 48.
GENERATORS = [
    ((0, 1, 2), (0,)),
    ((0, 1, 2), (1,)),
    ((0, 1, 2), (2,)),
    ((1, 0, 2), ()),
    ((1, 2, 0), ()),
]
EVERY = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for count in range(4)
    for flips in itertools.combinations(range(3), count)
]


def head(shape=(28, 26, 24), *, cut=0.0):
    """Noisy local field of random blocks and a ramp in an ellipsoid, its mask, a magnitude."""
    generator = torch.Generator().manual_seed(4)
    axes = [(torch.arange(n) - n / 2 + 0.3) / (n / 2 - 2) for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    radius = (x.square() + y.square() + z.square()).sqrt()
    blocks = torch.randn(1, 1, 7, 7, 6, generator=generator)
    chi = torch.nn.functional.interpolate(blocks, size=shape, mode="nearest")[0, 0]
    chi = torch.where(radius < 1, 0.04 * chi + 0.05 * x, 0.0)
    mask = radius < 1 - cut
    field = dipole_field(chi, VOXEL, B0, padding=1.0)
    field = field + 1e-3 * torch.randn(shape, generator=generator)
    return torch.where(mask, field, 0.0), mask, (1 + 5 * chi) * mask


def inverted(method, data, order=(0, 1, 2), flips=(), **keys):
    """χ from the data stored in another order and flipped, brought back."""
    field, mask, magnitude = (x.permute(order).flip(flips).contiguous() for x in data)
    voxel = [VOXEL[axis] for axis in order]
    b0 = [-B0[axis] if place in flips else B0[axis] for place, axis in enumerate(order)]
    if "magnitude" in inspect.signature(method).parameters:
        keys["magnitude"] = magnitude
    if "noise" in inspect.signature(method).parameters:  # so that λ is one number
        keys["noise"] = torch.full_like(field, 1.5e-3)
    chi = method(field, mask, voxel, b0, **keys).chi
    return chi.flip(flips).permute([order.index(axis) for axis in range(3)])


def difference(x, y, mask):
    return float((x - y)[mask].norm() / y[mask].norm())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_chi_does_not_depend_on_how_the_axes_are_stored(method):
    data = head()
    here = inverted(method, data)
    assert float(here.norm()) > 0
    storages = EVERY if method in (tkd, tikhonov, tv) else GENERATORS
    worst = max(difference(inverted(method, data, *s), here, data[1]) for s in storages)
    assert worst <= 5e-3


#: whtv does not get within 2 %: its h settles slowly (docs/inversion.md).
NEAR = {whtv: 0.1}


@pytest.mark.parametrize("method", ITERATIVE, ids=lambda m: m.__name__)
def test_the_default_stop_is_near_the_minimiser(method):
    data = head()
    usual = inverted(method, data)
    most = 60 if method is medi else 600
    exact = inverted(method, data, tolerance=0.0, max_iterations=most)
    assert difference(usual, exact, data[1]) <= NEAR.get(method, 0.02)


@pytest.mark.parametrize("slab", [1, 10**9])
def test_variation_is_the_textbook_iteration_over_both_sides(monkeypatch, slab):
    """In slabs or at once, with z and u both kept and some faces free; relaxed."""
    monkeypatch.setattr(priors, "SLAB_VOXELS", slab)
    field, mask, _ = (x.double() for x in head((9, 8, 7)))
    problem = field_problem(field, mask > 0, VOXEL, B0)
    vox, shape, a = problem.voxel_size, problem.grid.shape, 1.7
    torch.manual_seed(2)
    free = torch.rand(3, *shape) < 0.1
    split = priors.Variation(problem, 0.7, free=free, a=a)

    def both_sides(x):
        steps = torch.where(free, 0.0, gradient(x, vox))
        return torch.cat([steps, torch.stack([steps[k].roll(1, k) for k in range(3)])]) / 2**0.5

    def shrunk(t):
        return t * (1 - 0.7 / t.square().sum(0).sqrt()).clamp_min(0)

    x = torch.randn(shape, dtype=torch.float64)
    t, z_free = both_sides(x), torch.where(free, gradient(x, vox), 0.0)
    found = split.start(x)
    for _ in range(3):
        z = shrunk(t)
        r = 2 * z - t  # z − u
        faces = torch.stack([r[k] + r[3 + k].roll(-1, k) for k in range(3)]) / 2**0.5
        faces = torch.where(free, z_free, faces)
        torch.testing.assert_close(found, divergence(faces, vox))
        x = torch.randn(shape, dtype=torch.float64)
        t = a * both_sides(x) + (1 - a) * z + (t - z)
        z_free = a * torch.where(free, gradient(x, vox), 0.0) + (1 - a) * z_free
        found = split(x)


def test_the_penalties_decide_the_speed_and_not_the_result(monkeypatch):
    """χ vanishes outside the source region, beyond its box too, with any λ/μ."""
    data = head(cut=0.2)
    keys = {"tolerance": 0.0, "max_iterations": 500}
    one = inverted(tv, data, **keys)
    monkeypatch.setattr(
        admm.solve_linear, "__kwdefaults__", {"start": None, "gradient_scale": 0.7}
    )
    assert difference(inverted(tv, data, **keys), one, data[1]) < 5e-3
