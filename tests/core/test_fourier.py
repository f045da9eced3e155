"""The shared grids: sizes, placement, kernels."""

import math

import pytest
import torch

from qsm_nipype.core.fourier import (
    distances,
    fast_length,
    frequencies,
    gradient_spectrum,
    irfft,
    rfft,
    sphere_kernel,
    working_grid,
)

VOXEL = (1.0, 0.8, 2.5)


@pytest.mark.parametrize(("n", "size"), [(1, 2), (7, 8), (11, 12), (187, 192), (243, 250)])
def test_fast_lengths_are_even_smooth_and_the_next(n, size):
    assert fast_length(n) == size


def test_a_working_grid_restores_what_it_embeds():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(17, 21, 14, generator=generator)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[3:11, 5:20, 1:14] = True
    grid = working_grid(mask, padding=(4, 5, 6))
    assert torch.equal(grid.restore(grid.embed(x * mask)), x * mask)
    for n, side, pad in zip(grid.shape, grid.box, (4, 5, 6), strict=True):
        assert n >= side.stop - side.start + pad
    assert all(n == fast_length(n) for n in grid.shape)


def test_the_working_grid_does_not_depend_on_where_the_mask_lies():
    mask = torch.zeros(30, 30, 30, dtype=torch.bool)
    mask[2:10, 3:12, 4:9] = True
    here = working_grid(mask).embed(mask)
    there = working_grid(mask.roll((11, 5, 17), (0, 1, 2))).embed(
        mask.roll((11, 5, 17), (0, 1, 2))
    )
    assert torch.equal(here, there)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        working_grid(torch.zeros(4, 4, 4, dtype=torch.bool))


def test_frequencies_are_those_of_a_plane_wave():
    shape, like = (8, 10, 12), torch.zeros((), dtype=torch.float64)
    index = [torch.arange(n, dtype=torch.float64) * v for n, v in zip(shape, VOXEL, strict=True)]
    x, y, z = torch.meshgrid(*index, indexing="ij")
    kx, ky, kz = frequencies(shape, VOXEL, like)
    wave = torch.cos(2 * math.pi * (kx[2] * x + ky[0, 3] * y + kz[0, 0, 4] * z))
    spectrum = rfft(wave).abs()
    assert spectrum[2, 3, 4] == pytest.approx(wave.numel() / 2)
    assert torch.allclose(irfft(rfft(wave), shape), wave, atol=1e-12)


def test_distances_are_periodic_and_in_mm():
    d = distances((6, 6, 6), VOXEL, torch.zeros(()))
    assert d[0, 0, 0] == 0
    assert d[1, 2, 5] == pytest.approx((1 + 1.6**2 + 2.5**2) ** 0.5)
    assert torch.allclose(d[1:], d[1:].flip(0))


def test_a_sphere_averages_and_keeps_a_constant():
    kernel = sphere_kernel((24, 24, 24), VOXEL, 5.0, torch.zeros(()))
    assert kernel[0, 0, 0] == pytest.approx(1, abs=1e-5)
    assert kernel.abs().max() <= 1 + 1e-5
    ball = irfft(kernel.to(torch.complex64), (24, 24, 24))
    assert (distances(ball.shape, VOXEL, ball)[ball > 1e-6] <= 5.0 + 1e-4).all()


def test_the_gradient_spectrum_is_minus_the_laplacian():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 10, 8, generator=generator, dtype=torch.float64)
    ours = irfft(rfft(x) * gradient_spectrum(x.shape, VOXEL, x), x.shape)
    stencil = sum((2 * x - x.roll(1, a) - x.roll(-1, a)) / v**2 for a, v in enumerate(VOXEL))
    assert torch.allclose(ours, stencil, atol=1e-10)
