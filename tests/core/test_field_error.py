"""Noise and model error are read off fields of which both are known."""

import numpy as np
import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.field_error import field_error, spectral_radius
from qsm_nipype.core.fourier import irfft, rfft
from qsm_nipype.core.geometry import relative_voxel_size
from qsm_nipype.core.inversion.tv import tv

SHAPE, VOXEL, B0 = (72, 80, 64), (1.0, 1.0, 1.25), (0.1, 0.2, 0.97)
AXES = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
BALL = sum(x.square() for x in AXES).sqrt()


def texture(seed, rms):
    """Random χ with the spectrum k^-1.5 that brains have, of `rms` (ppm)."""
    white = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    radius = spectral_radius(SHAPE, relative_voxel_size(VOXEL), white)
    x = irfft(rfft(white) * radius.clamp_min(0.05) ** -1.5, SHAPE)
    return x * (rms / x.std())


CHI = torch.where(BALL < 0.95, texture(0, 0.04), 0.0)
FIELD = dipole_field(CHI, VOXEL, B0)
MASK = BALL < 0.85
NOISE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))


def measured(sigma, share):
    """The local field with noise and with an error that has `share` of the spectrum of χ."""
    return torch.where(MASK, FIELD + sigma * NOISE + texture(7, 0.04 * share), 0.0)


@pytest.mark.parametrize("sigma", [0.001, 0.003])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_noise_and_model_error_are_told_apart(sigma, share):
    found = field_error(measured(sigma, share), MASK, VOXEL, B0)
    assert found.share == pytest.approx(share, rel=0.25)
    # what the model's error adds at high frequencies is noise, too
    assert sigma * 0.9 < found.noise < sigma + 0.04 * share * 0.5


@pytest.mark.parametrize("sigma", [0.0005, 0.001, 0.003])
def test_without_model_error_there_is_only_noise(sigma):
    found = field_error(measured(sigma, 0.0), MASK, VOXEL, B0)
    assert found.noise == pytest.approx(sigma, rel=0.15)
    assert found.share < 0.05


def test_power_is_that_of_the_susceptibility():
    found = field_error(measured(0.001, 0.1), MASK, VOXEL, B0)
    power = rfft(texture(0, 0.04)).abs().square() / CHI.numel()
    radius = spectral_radius(SHAPE, relative_voxel_size(VOXEL), CHI)
    step = found.frequencies[1] - found.frequencies[0]
    for k, p in list(zip(found.frequencies, found.power, strict=True))[2:10]:
        true = float(power[(radius - k).abs() < step / 2].mean())
        assert p == pytest.approx(true, rel=0.35)


def test_estimates_scale_with_the_field_and_know_no_storage():
    field = measured(0.002, 0.2)
    first = field_error(field, MASK, VOXEL, B0)
    tenfold = field_error(10 * field, MASK, VOXEL, B0)
    assert tenfold.noise == pytest.approx(10 * first.noise, rel=1e-4)
    assert tenfold.share == pytest.approx(first.share, rel=1e-4)
    turned, mask = (x.permute(2, 0, 1).flip(1).contiguous() for x in (field, MASK))
    again = field_error(turned, mask, (1.25, 1.0, 1.0), (0.97, -0.1, 0.2))
    assert again.noise == pytest.approx(first.noise, rel=2e-3)
    assert again.share == pytest.approx(first.share, rel=2e-3)


def test_power_of_the_model_goes_with_the_share_and_against_the_noise():
    found = field_error(measured(0.002, 0.2), MASK, VOXEL, B0)
    k = torch.tensor(found.frequencies)
    ratio = found.model_to_noise(k, found.share)
    expected = np.array(found.power) * (found.share / found.noise) ** 2
    assert ratio.numpy() == pytest.approx(expected, rel=1e-4)
    below, first = (found.model_to_noise(x, 1.0) for x in (k[:1] / 9, k[:1]))
    assert torch.allclose(below, first)


def test_a_mask_too_small_to_tell_believes_the_noise_map():
    small = BALL < 0.1
    found = field_error(FIELD, small, VOXEL, B0, noise=torch.full(SHAPE, 0.004))
    assert found.noise == pytest.approx(0.004)
    assert found.share == 0 and not found.power
    assert field_error(FIELD, torch.zeros_like(MASK), VOXEL, B0).noise == 0


def error(chi, mask=MASK):
    off = (chi - CHI)[mask]
    return float((off - off.mean()).norm() / (CHI[mask] - CHI[mask].mean()).norm())


def test_sources_beyond_the_mask_do_not_bend_what_is_inside():
    field = measured(0.001, 0.0)
    alone = tv(field, MASK, VOXEL, B0).chi
    region = BALL < 0.95
    free = tv(field, MASK, VOXEL, B0, region=region).chi
    assert error(free) < 0.9 * error(alone)
    assert not bool(free[~MASK].any())


def test_region_of_the_mask_is_no_region():
    field = measured(0.001, 0.0)
    one = tv(field, MASK, VOXEL, B0, max_iterations=5).chi
    assert torch.equal(one, tv(field, MASK, VOXEL, B0, region=MASK, max_iterations=5).chi)


def test_an_error_of_the_model_is_not_fitted():
    field = measured(0.001, 0.3)
    region = BALL < 0.95
    plain = {w: error(tv(field, MASK, VOXEL, B0, region=region, regularization=w).chi)
             for w in (2e-5, 5e-5, 1e-4, 2e-4)}  # fmt: skip
    found = tv(field, MASK, VOXEL, B0, region=region)
    assert error(found.chi) < 1.05 * min(plain.values())
