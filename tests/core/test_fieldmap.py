"""The field fit: exactness, noise model, repair of turns, reliability."""

import math

import pytest
import torch

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.fieldmap import linear_fit, nonlinear_fit
from qsm_nipype.core.signal_noise import filled_share, noise_level

TIMES = (0.004, 0.011, 0.018, 0.025)
B0 = 3.0
RADIANS = 2 * math.pi * GYROMAGNETIC_RATIO * B0  # per s and ppm


def field(shape=(32, 30, 28)):
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return 0.4 * torch.exp(-3 * (x**2 + y**2 + z**2)) - 0.2 * x * y


def data(snr=None, offset=0.0, rate=30.0, seed=0, times=TIMES):
    """Unwrapped phase (rad) and magnitude of all echoes."""
    f = field()
    t = torch.tensor(times)
    phase = offset + RADIANS * f.unsqueeze(-1) * t
    magnitude = torch.exp(-rate * t).expand_as(phase).clone()
    if snr is None:
        return phase, magnitude
    generator = torch.Generator().manual_seed(seed)
    noise = torch.complex(*(torch.randn(*phase.shape, 2, generator=generator) / snr).unbind(-1))
    turned = magnitude + noise  # the signal in the frame of its true phase
    return phase + turned.angle(), turned.abs()


@pytest.mark.parametrize("fit", [linear_fit, nonlinear_fit])
@pytest.mark.parametrize("intercept", [False, True])
def test_noiseless_field_is_exact(fit, intercept):
    phase, magnitude = data(offset=0.7 if intercept else 0.0)
    result = fit(phase, magnitude, TIMES, B0, intercept=intercept)
    torch.testing.assert_close(result.field, field(), atol=2e-5, rtol=0)
    assert result.residual.max() < 1e-3
    if intercept:
        assert (result.phase_offset - 0.7).abs().max() < 1e-3


@pytest.mark.parametrize("fit", [linear_fit, nonlinear_fit])
def test_noise_map_is_the_error_that_is_made(fit):
    phase, magnitude = data(snr=40)
    result = fit(phase, magnitude, TIMES, B0)
    error = (result.field - field()).std()
    assert 0.85 < float(result.noise.median() / error) < 1.15
    assert 0.9 < result.sigma * 40 < 1.1


@pytest.mark.parametrize("snr", [5, 10, 30])
@pytest.mark.parametrize("times", [(0.004, 0.012, 0.020, 0.028), (0.02,)])
def test_noise_map_holds_at_low_snr(snr, times):
    # `snr` is that of the first echo; what is low in |S| must not look like signal
    phase, magnitude = data(snr=snr * math.exp(20 * times[0]), rate=20, times=times)
    result = linear_fit(phase, magnitude, times, B0, repair=False)
    error = result.field - field()
    assert float(result.noise.square().mean().sqrt() / error.std()) == pytest.approx(1, abs=0.06)
    assert float((error / result.noise).std()) == pytest.approx(1, abs=0.06)
    if len(times) == 1:
        sigma = 1 / (snr * math.exp(20 * times[0]))
        assert result.sigma == pytest.approx(sigma, rel=0.04)


def test_weights_are_those_of_least_variance():
    # the last echo is nearly gone: an unweighted line suffers from it
    phase, magnitude = data(snr=40, rate=120)
    weighted = (linear_fit(phase, magnitude, TIMES, B0).field - field()).std()
    flat = (linear_fit(phase, torch.ones_like(phase), TIMES, B0).field - field()).std()
    assert weighted < 0.7 * flat


@pytest.mark.parametrize("fit", [linear_fit, nonlinear_fit])
def test_single_turns_are_repaired(fit):
    phase, magnitude = data(snr=40)
    generator = torch.Generator().manual_seed(1)
    turns = (torch.rand(phase.shape, generator=generator) < 0.01).float()
    spoilt = fit(phase + 2 * math.pi * turns, magnitude, TIMES, B0)
    clean = fit(phase, magnitude, TIMES, B0)
    assert spoilt.repaired > 0.8 * int(turns.amax(-1).sum())
    torch.testing.assert_close(spoilt.field, clean.field, atol=1e-4, rtol=0)


def test_a_whole_region_off_by_a_cycle_is_repaired():
    # a field higher by 1/ΔTE turns echoes 2 to 4 alike, but the first by TE1/ΔTE only
    phase, magnitude = data(snr=40)
    cycle = 2 * math.pi / (TIMES[1] - TIMES[0])
    wrong = phase.clone()
    block = (slice(8, 16), slice(8, 16), slice(8, 16))
    for e, t in enumerate(TIMES):
        wrong[block][..., e] += 2 * math.pi * round(cycle * t / (2 * math.pi))
    result = linear_fit(wrong, magnitude, TIMES, B0)
    assert (result.field - field()).abs().max() < 0.02


def test_without_repair_outliers_stay_and_show_in_the_residual():
    phase, magnitude = data(snr=100)
    phase[16, 15, 14, 2] += 2 * math.pi
    result = linear_fit(phase, magnitude, TIMES, B0, repair=False)
    assert result.repaired == 0
    assert result.residual[16, 15, 14] > 1
    assert result.reliability[16, 15, 14] < 0.05
    assert result.noise[16, 15, 14] > 5 * result.noise.median()


def test_reliability_is_half_at_the_consensus_limit():
    t = torch.tensor(TIMES)
    phase, magnitude = data()
    # a residual orthogonal to the line, of weighted RMS 0.3 rad
    w = magnitude[0, 0, 0] ** 2
    shape = torch.tensor([1.0, -1.0, 1.0, -1.0])
    shape = shape - t * (w * t * shape).sum() / (w * t * t).sum()
    shape = shape * 0.3 / ((w * shape**2).sum() / w.sum()).sqrt()
    phase[10, 10, 10] += shape
    result = linear_fit(phase, magnitude, TIMES, B0, repair=False)
    assert abs(float(result.residual[10, 10, 10]) - 0.3) < 1e-3
    assert abs(float(result.reliability[10, 10, 10]) - 0.5) < 0.01
    assert result.reliability[20, 20, 20] > 0.99


def test_voxels_without_signal_are_finite_and_unreliable():
    phase, magnitude = data(snr=50)
    magnitude[5:9, 5:9, 5:9] = 0
    phase[5:9, 5:9, 5:9] = 0
    mask = magnitude[..., 0] > 0
    for fit in (linear_fit, nonlinear_fit):
        result = fit(phase, magnitude, TIMES, B0, mask=mask)
        for value in (result.field, result.noise, result.residual, result.reliability):
            assert torch.isfinite(value).all()
        assert (result.reliability[~mask] == 0).all()
        # the hole holds the continuation of the field around it
        assert (result.field - field())[~mask].abs().max() < 0.1
        assert result.noise[~mask].min() > 10 * result.noise[mask].median()


def test_all_zero_magnitude_gives_zeros():
    phase, magnitude = data()
    result = linear_fit(phase, torch.zeros_like(magnitude), TIMES, B0)
    assert torch.isfinite(result.field).all() and (result.reliability == 0).all()


def test_single_echo():
    phase, magnitude = data(snr=50, times=(0.02,))
    result = linear_fit(phase, magnitude, (0.02,), B0)
    error = (result.field - field()).std()
    assert 0.8 < float(result.noise.median() / error) < 1.15
    with pytest.raises(ValueError, match="at least two echoes"):
        linear_fit(phase, magnitude, (0.02,), B0, intercept=True)


def test_noise_of_a_single_echo_is_told_from_the_quiet_parts_of_the_phase():
    # voxels as large as the structures: the magnitude changes by half from one to the next, and
    # so does the field in half of the head
    phase, magnitude = data(snr=50, times=(0.02,))
    generator = torch.Generator().manual_seed(1)
    texture = 0.5 + torch.rand(magnitude.shape, generator=generator)
    vessels = 0.3 * torch.randn(phase.shape, generator=generator)
    vessels[:16] = 0
    result = linear_fit(phase + vessels, magnitude * texture, (0.02,), B0)
    assert noise_level((magnitude * texture)[..., 0], magnitude[..., 0] > 0) * 50 > 5
    assert 0.7 < result.sigma * 50 < 1.1


@pytest.mark.parametrize("times", [TIMES, TIMES[2:3]])
def test_noise_of_an_interpolated_image_is_not_what_neighbours_differ_by(times):
    # scanners fill the outer half of k-space with zeros
    shape, kept = (64, 64, 40), 0.5
    generator = torch.Generator().manual_seed(2)
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    head = (x**2 + y**2 + z**2 < 0.7).float() + 0.3 * (x.abs() + y.abs() < 0.4)
    turns = 50 * x.unsqueeze(-1) * torch.tensor(times)
    clean = torch.polar(head.unsqueeze(-1).expand_as(turns), turns)
    noise = torch.randn(*shape, len(times), 2, generator=generator)
    k = torch.fft.fftn(clean + torch.view_as_complex(noise) / 30, dim=(0, 1))
    inner = [torch.fft.fftfreq(n).abs() < kept / 2 for n in shape[:2]]
    k = k * (inner[0][:, None] & inner[1])[:, :, None, None]
    image = torch.fft.ifftn(k, dim=(0, 1))
    truth = kept / 30  # √(kept²): half of either axis is left
    phase, magnitude = image.angle(), image.abs()
    assert filled_share(phase[..., 0], magnitude[..., 0]) == pytest.approx((0.5, 0.5, 1), abs=0.04)
    mask = x**2 + y**2 + z**2 < 0.6
    sigma = linear_fit(phase, magnitude, times, B0, mask=mask).sigma
    assert 0.8 * truth < sigma < 1.25 * truth


def test_a_head_that_fills_its_k_space_is_not_taken_for_interpolated():
    phase, magnitude = data(snr=40)
    assert filled_share(phase[..., 0], magnitude[..., 0]) == (1.0, 1.0, 1.0)


def test_noise_level_ignores_structure():
    generator = torch.Generator().manual_seed(0)
    magnitude = 1 + field() + 0.02 * torch.randn(32, 30, 28, generator=generator)
    level = noise_level(magnitude, torch.ones(32, 30, 28, dtype=torch.bool))
    assert abs(level - 0.02) < 0.002


def test_inputs_are_not_changed():
    phase, magnitude = data(snr=40)
    before = phase.clone(), magnitude.clone()
    linear_fit(phase + 0, magnitude, TIMES, B0)
    phase.view(-1)[::50] += 0
    linear_fit(phase, magnitude, TIMES, B0)
    assert torch.equal(phase, before[0]) and torch.equal(magnitude, before[1])
