import pytest
import torch

from qsm_nipype.core.fourier import gradient_spectrum, irfft, rfft
from qsm_nipype.core.operators import divergence, gradient, shrink

VOXEL = (0.7, 1.0, 2.5)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_divergence_is_the_negative_adjoint_of_the_gradient():
    x, p = random(6, 7, 8), random(3, 6, 7, 8)
    assert torch.sum(gradient(x, VOXEL) * p).item() == pytest.approx(
        -torch.sum(x * divergence(p, VOXEL)).item(), rel=1e-12
    )


def test_gradient_of_a_ramp_is_its_slope_per_mm():
    x = (torch.arange(8.0) * VOXEL[2]).expand(6, 7, 8)
    inner = gradient(x, VOXEL)[:, :-1, :-1, :-1]
    assert torch.allclose(inner[2], torch.ones_like(inner[2]), atol=1e-6)
    assert inner[:2].abs().max() == 0


def test_divergence_of_gradient_is_the_laplacian_of_the_spectrum():
    x = random(6, 8, 10)
    spectral = irfft(-gradient_spectrum(x.shape, VOXEL, x) * rfft(x), x.shape)
    assert torch.allclose(divergence(gradient(x, VOXEL), VOXEL), spectral, atol=1e-10)


def test_out_gives_the_same_numbers():
    x = random(5, 6, 7)
    g = gradient(x, VOXEL, out=x.new_full((3, 5, 6, 7), 9.0))
    assert torch.equal(g, gradient(x, VOXEL))
    assert torch.equal(divergence(g, VOXEL, out=x.new_full((5, 6, 7), 9.0)), divergence(g, VOXEL))


def test_shrink_literals():
    v = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    expected = torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0])
    assert torch.equal(shrink(v, 1.0), expected)
    assert torch.equal(shrink(v, torch.ones(5)), expected)
