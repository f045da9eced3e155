"""The decay of a known exponential is recovered; noise brings no bias."""

import pytest
import torch

from qsm_nipype.core.relaxometry import arlo, loglinear

TE = (0.004, 0.010, 0.016, 0.022, 0.028)


def decaying(rates: torch.Tensor, noise: float = 0.0, seed: int = 1) -> torch.Tensor:
    """Magnitude `(X, Y, Z, E)` of unit signal decaying at `rates` (1/s), with Rician noise."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.exp(-rates[..., None] * torch.tensor(TE))
    real, imaginary = (torch.randn(clean.shape, generator=draw) * noise for _ in range(2))
    return torch.hypot(clean + real, imaginary)


@pytest.mark.parametrize("method", [loglinear, arlo])
def test_recovers_a_noiseless_decay(method):
    rates = torch.linspace(5, 120, 6 * 5 * 4).reshape(6, 5, 4)
    mask = torch.ones(6, 5, 4, dtype=torch.bool)
    decay = method(decaying(rates), mask, TE)
    assert torch.allclose(decay.r2star, rates, rtol=0.02)
    assert torch.allclose(decay.t2star * decay.r2star, torch.ones_like(rates), atol=1e-5)
    assert torch.allclose(decay.amplitude, torch.ones_like(rates), rtol=0.02)


@pytest.mark.parametrize("method", [loglinear, arlo])
def test_noise_at_snr_40_biases_the_mean_by_less_than_two_percent(method):
    rates = torch.full((20, 20, 20), 40.0)
    decay = method(decaying(rates, noise=1 / 40), rates > 0, TE)
    assert float(decay.r2star.mean()) == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize("snr", [5, 10, 30])
def test_the_noise_floor_does_not_slow_a_decay(snr):
    # half of the head decays slowly, as tissue does: the noise is measured in it
    rates = torch.full((30, 30, 30), 20.0)
    fast = {50.0: slice(0, 8), 120.0: slice(8, 15)}
    for rate, where in fast.items():
        rates[where] = rate
    found = loglinear(decaying(rates, noise=1 / snr), rates > 0, TE).r2star
    line = loglinear(decaying(rates, noise=1 / snr), rates > 0, TE, sigma=0.0).r2star
    tolerance = 0.06 if snr == 5 else 0.03
    for rate, where in {**fast, 20.0: slice(15, None)}.items():
        assert float(found[where].median()) == pytest.approx(rate, rel=tolerance)
    if snr == 5:
        assert float(line[8:15].median()) < 90  # what it was without


def test_a_decay_below_the_noise_in_the_second_echo_is_not_told_faster():
    rates = torch.full((12, 12, 12), 20.0)
    rates[6:] = 500  # first echo 5 σ, second 0.3 σ
    found = loglinear(decaying(rates, noise=1 / 40), rates > 0, TE).r2star[6:]
    limit = float(torch.tensor(40.0).log() - 500 * TE[0]) / (TE[1] - TE[0])
    assert float(found.median()) == pytest.approx(limit, rel=0.1)


@pytest.mark.parametrize("method", [loglinear, arlo])
def test_signal_scale_does_not_matter_and_outside_is_zero(method):
    rates = torch.full((5, 5, 5), 30.0)
    mask = torch.zeros(5, 5, 5, dtype=torch.bool)
    mask[1:4, 1:4, 1:4] = True
    signal = decaying(rates, noise=0.01)
    small, large = method(signal, mask, TE), method(signal * 3000, mask, TE)
    assert torch.allclose(small.r2star, large.r2star, rtol=1e-4)
    assert small.r2star[~mask].abs().max() == 0


def test_no_signal_gives_finite_maps():
    mask = torch.ones(3, 3, 3, dtype=torch.bool)
    for method in (loglinear, arlo):
        decay = method(torch.zeros(3, 3, 3, 5), mask, TE)
        assert all(torch.isfinite(m).all() for m in (decay.r2star, decay.t2star, decay.amplitude))


def test_too_few_or_uneven_echoes_are_refused():
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="two or more echoes"):
        loglinear(torch.ones(2, 2, 2, 1), mask, TE[:1])
    with pytest.raises(ValueError, match="equally spaced"):
        arlo(torch.ones(2, 2, 2, 3), mask, (0.004, 0.01, 0.03))
