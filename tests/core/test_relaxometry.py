"""The decay of a known exponential is recovered; noise brings no bias."""

import pytest
import torch

from qsm_nipype.core.dephasing import field_steps, log_loss
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


@pytest.mark.parametrize("rate", [50.0, 70.0, 100.0])
def test_a_last_echo_of_twice_the_noise_biases_by_less_than_five_percent(rate):
    rates = torch.full((36, 30, 30), 20.0)
    rates[:8] = rate
    noise = float(torch.exp(torch.tensor(-rate * TE[-1]))) / 2
    found = loglinear(decaying(rates, noise=noise), rates > 0, TE).r2star[:8]
    assert float(found.mean()) == pytest.approx(rate, rel=0.05)


def test_a_gradient_of_the_field_feigns_no_decay():
    shape, b0 = (20, 16, 12), 3.0
    ramp = torch.arange(20.0)[:, None, None] * torch.linspace(0, 0.08, 16)[None, :, None]
    field = ramp.expand(shape)
    rates = torch.linspace(15, 40, 12).expand(shape)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:3] = False
    loss = log_loss(field, torch.ones(shape, dtype=torch.bool), TE, b0).reshape(*shape, len(TE))
    measured = decaying(rates) * torch.exp(-loss)
    known = {"total_field": field, "b0": b0}
    corrected = loglinear(measured, mask, TE, sigma=0.0, **known)
    plain = loglinear(measured, mask, TE, sigma=0.0)
    assert torch.allclose(corrected.r2star[mask], rates[mask], rtol=0.02)
    assert float((plain.r2star - rates)[mask].max()) > 10
    flat = loglinear(measured, mask, TE, sigma=0.0, total_field=0 * field + 1, b0=b0)
    assert torch.allclose(flat.r2star, plain.r2star)


def test_steps_of_a_field_are_those_of_its_neighbours_inside():
    field = torch.arange(6.0).square()[:, None, None].expand(6, 4, 4)
    mask = torch.zeros(6, 4, 4, dtype=torch.bool)
    mask[1:5] = True
    along, across, _ = field_steps(field, mask)
    assert along[:, 0, 0].tolist() == [0, 3, 4, 6, 7, 0] and not across.any()
