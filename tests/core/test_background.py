"""Background removal: harmonic fields vanish, local ones stay, wherever the head lies."""

import math

import pytest
import torch

from qsm_nipype.core.background.ismv import ismv
from qsm_nipype.core.background.lbv import lbv
from qsm_nipype.core.background.pdf import pdf, remove_far_sources
from qsm_nipype.core.background.sharp import mean_value_kernel, resharp, sharp, vsharp
from qsm_nipype.core.background.tfi import ismv_tfi, lbv_tfi
from qsm_nipype.core.background.variation import ismv_tv
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.fourier import irfft
from qsm_nipype.core.morphology import distance_inside

METHODS = [sharp, vsharp, resharp, ismv, lbv, pdf, lbv_tfi, ismv_tfi, ismv_tv]
named = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
LIMITS = {"sharp": 0.25, "vsharp": 0.45, "resharp": 0.22, "ismv": 0.25, "lbv": 0.3}
LIMITS |= {"pdf": 0.45, "lbv_tfi": 0.33, "ismv_tfi": 0.35, "ismv_tv": 0.2}
OBLIQUE = (0.3, -0.2, 0.93)


def coordinates(shape, voxel_size):
    axes = [
        (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * v
        for n, v in zip(shape, voxel_size, strict=True)
    ]
    return torch.meshgrid(*axes, indexing="ij")


def head(shape=(40, 42, 56), voxel_size=(1.0, 1.0, 1.0), b0_dir=OBLIQUE):
    """An ellipsoid with deep sources, and a cavity 4 mm outside it."""
    x, y, z = coordinates(shape, voxel_size)
    mask = (x / 16) ** 2 + (y / 18) ** 2 + (z / 13) ** 2 < 1
    chi = torch.zeros(shape)
    for centre, radius, value in (
        ((5, 3, 2), 4, 0.1),
        ((-6, -6, 1), 3, -0.08),
        ((0, 8, -4), 3, 0.15),
    ):
        a, b, c = centre
        chi[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2] = value
    # smooth: the lattice field of a sharp oblique source rings
    cavity = 6 * torch.exp(-(x**2 + (y - 3) ** 2 + (z + 20) ** 2) / 4)
    local = dipole_field(chi, voxel_size, b0_dir)
    background = dipole_field(cavity, voxel_size, b0_dir, padding=1.0)
    return local, background, mask, voxel_size, b0_dir


def error(result, local):
    inside = result.mask
    a, b = result.field[inside], local[inside]
    a, b = a - a.mean(), b - b.mean()
    return float((a - b).norm() / b.norm())


@named
def test_the_local_field_of_a_head_beside_a_cavity_is_recovered(method):
    local, background, mask, voxel_size, b0_dir = head()
    result = method(local + background, mask, voxel_size, b0_dir)
    assert error(result, local) < LIMITS[method.__name__]
    assert not result.field[~result.mask].any()
    assert not (result.mask & ~mask).any()


@named
def test_anisotropic_voxels_are_as_good(method):
    case = head((40, 42, 28), (1.0, 1.0, 2.0))
    local, background, mask, voxel_size, b0_dir = case
    result = method(local + background, mask, voxel_size, b0_dir)
    assert error(result, local) < LIMITS[method.__name__]


@named
def test_the_place_of_the_head_in_the_box_changes_nothing(method):
    local, background, mask, voxel_size, b0_dir = head()
    total = (local + background) * mask
    there = method(total, mask, voxel_size, b0_dir)
    wide = [torch.zeros(54, 46, 75, dtype=t.dtype) for t in (total, mask)]
    place = (slice(1, 41), slice(3, 45), slice(19, 75))
    for target, source in zip(wide, (total, mask), strict=True):
        target[place] = source
    here = method(*wide, voxel_size, b0_dir)
    assert torch.equal(here.mask[place], there.mask)
    assert torch.allclose(here.field[place], there.field, atol=1e-5 * total.abs().max())


@named
def test_it_is_linear_in_the_field(method):
    local, background, mask, voxel_size, b0_dir = head()
    once = method(local + background, mask, voxel_size, b0_dir)
    scaled = method(-3 * (local + background), mask, voxel_size, b0_dir)
    assert torch.allclose(scaled.field, -3 * once.field, atol=3e-3 * local.abs().max())


@named
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_field_has_no_local_part(method, value):
    _, _, mask, voxel_size, b0_dir = head()
    result = method(torch.full(mask.shape, value), mask, voxel_size, b0_dir)
    assert torch.isfinite(result.field).all()
    assert result.field.abs().max() < 5e-3


@named
def test_a_mask_too_thin_for_any_ball_gives_an_empty_mask_or_finite_values(method):
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    mask[5:15, 9, 9] = True
    result = method(torch.ones(20, 20, 20), mask, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    assert torch.isfinite(result.field).all()


@named
def test_what_is_outside_the_mask_is_not_read_and_nothing_is_ever_not_finite(method):
    local, background, mask, voxel_size, b0_dir = head()
    clean = (local + background) * mask
    dirty = torch.where(mask, clean, float("nan"))
    there = method(dirty, mask, voxel_size, b0_dir).field
    assert torch.equal(there, method(clean, mask, voxel_size, b0_dir).field)
    dirty[20, 20, 28] = float("nan")
    assert torch.isfinite(method(dirty, mask, voxel_size, b0_dir).field).all()


@pytest.mark.parametrize("voxel_size", [(1, 1, 1), (0.8, 1.0, 1.5), (1, 1, 3)])
@pytest.mark.parametrize("radius", [3.0, 6.0])
def test_the_mean_over_a_ball_is_exact_for_harmonic_polynomials(voxel_size, radius):
    shape = (32, 32, 32)
    like = torch.zeros((), dtype=torch.float64)
    weights = irfft(mean_value_kernel(shape, voxel_size, radius, like).to(torch.complex128), shape)
    index = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in shape]
    x, y, z = torch.meshgrid(
        *(i * v for i, v in zip(index, voxel_size, strict=True)), indexing="ij"
    )
    assert float(weights.sum()) == pytest.approx(1)
    for harmonic in (x * y, x**2 - z**2, 2 * z**2 - x**2 - y**2, x**3 - 3 * x * y**2):
        assert float((weights * harmonic).sum()) == pytest.approx(0, abs=1e-8)
    assert float((weights * (x**2 + y**2 + z**2)).sum()) > 0


def test_vsharp_erodes_by_one_layer_and_sharp_by_its_radius():
    _, background, mask, voxel_size, b0_dir = head()
    depth = distance_inside(mask, voxel_size, 10.0)
    assert torch.equal(vsharp(background, mask, voxel_size).mask, depth > 1)
    assert torch.equal(sharp(background, mask, voxel_size, radius=4.0).mask, depth > 4)


def test_lbv_solves_the_discrete_poisson_problem():
    local, background, mask, voxel_size, b0_dir = head((40, 42, 28), (1.0, 1.0, 2.0))
    total = local + background
    result = lbv(total, mask, voxel_size, b0_dir, tolerance=1e-6)
    left = total - result.field  # the background: harmonic inside
    deep = distance_inside(result.mask, voxel_size, 3.0) > 2.0
    laplacian = sum(
        (left.roll(1, a) + left.roll(-1, a) - 2 * left) / v**2 for a, v in enumerate(voxel_size)
    )
    assert laplacian[deep].abs().max() < 1e-4
    assert result.iterations < 15


@named
@pytest.mark.parametrize("b0_dir", [(0.0, 0.0, 1.0), (0.7, 0.0, 0.7)])
def test_of_a_background_little_is_left(method, b0_dir):
    _, background, mask, voxel_size, _ = head(b0_dir=b0_dir)
    result = method(background, mask, voxel_size, b0_dir)
    left, before = result.field[result.mask], background[result.mask]
    assert left.std() < 0.12 * before.std()


@pytest.mark.parametrize("method", [pdf, lbv_tfi, ismv_tv], ids=lambda m: m.__name__)
def test_noise_weights_let_a_spoilt_region_harm_less(method):
    local, background, mask, voxel_size, b0_dir = head()
    total, noise = local + background, torch.full(mask.shape, 0.001)
    spoilt = torch.zeros_like(mask)
    spoilt[16:24, 17:25, 17:22] = True
    generator = torch.Generator().manual_seed(5)
    total = torch.where(spoilt, total + 0.05 * torch.randn(mask.shape, generator=generator), total)
    noise[spoilt] = float("inf")
    elsewhere = distance_inside(mask & ~spoilt, voxel_size, 5.0) > 3.5
    told = method(total, mask, voxel_size, b0_dir, noise=noise)
    naive = method(total, mask, voxel_size, b0_dir)
    errors = [((r.field - local) * elsewhere).std() for r in (told, naive)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (1.6, 1.6, 1.6)])
def test_total_variation_takes_off_what_ismv_and_lbv_leave(voxel_size):
    """1 mm takes χ from a grid twice coarser, 1.6 mm from its own."""
    shape = tuple(round(n / voxel_size[0]) for n in (40, 42, 56))
    local, background, mask, voxel_size, b0_dir = head(shape, voxel_size)
    case = local + background, mask, voxel_size, b0_dir
    deep = distance_inside(mask, voxel_size, 5.0) > 2.1 * voxel_size[0]

    def off(result):
        a, b = result.field[deep], local[deep]
        return float(((a - a.mean()) - (b - b.mean())).norm())

    assert off(ismv_tv(*case)) < 0.7 * min(off(ismv(*case)), off(lbv(*case)))


def test_with_total_variation_the_storage_of_the_axes_hardly_matters():
    local, background, mask, voxel_size, b0_dir = head((41, 43, 57))
    total = local + background
    here = ismv_tv(total, mask, voxel_size, b0_dir)
    turned = (1.0, 1.0, 1.0), (b0_dir[2], -b0_dir[0], -b0_dir[1])
    there = ismv_tv(*(x.permute(2, 0, 1).flip(1, 2).contiguous() for x in (total, mask)), *turned)
    back = there.field.flip(1, 2).permute(1, 2, 0)
    assert float((back - here.field).norm()) < 0.03 * float(here.field.norm())


def test_far_sources_are_solid_harmonics():
    _, _, mask, voxel_size, _ = head()
    x, y, z = coordinates(mask.shape, voxel_size)
    smooth = 0.3 + 0.01 * x - 0.02 * z + 1e-3 * (x * y + 2 * z**2 - x**2 - y**2)
    assert remove_far_sources(smooth, mask, voxel_size).abs().max() < 1e-5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@named
def test_cuda_agrees_with_cpu(method):
    local, background, mask, voxel_size, b0_dir = head()
    total = local + background
    if method is pdf:  # how far CG has come with its slowest modes depends on rounding in float32
        total = total.double()
    here = method(total, mask, voxel_size, b0_dir)
    there = method(total.cuda(), mask.cuda(), voxel_size, b0_dir)
    assert torch.equal(there.mask.cpu(), here.mask)
    assert math.isclose(float((there.field.cpu() - here.field).abs().max()), 0, abs_tol=1e-4)
