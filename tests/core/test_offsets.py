"""MCPC-3D-S, bipolar readouts and coils against offsets that are known."""

import math

import pytest
import torch

from qsm_nipype.core.offsets import (
    bipolar_phase,
    combine_coils,
    continues_core,
    mcpc3ds,
    measure_alternation,
    smooth_phase,
)
from qsm_nipype.core.phase import wrap
from qsm_nipype.core.unwrapping import signal_mask

TIMES = (0.004, 0.011, 0.018, 0.025)
SHAPE = (40, 44, 36)
VOXEL = (1.5, 1.5, 1.5)


def grid(shape=SHAPE):
    return torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")


def offset_map():
    x, y, z = grid()
    return 1.5 * x - 1.2 * y * z + 0.8 * z**2 + 1.1 + 0.7 * torch.sin(2 * y)


def head(snr=40.0, offset=None, alternating=0.0, times=TIMES, seed=0):
    x, y, z = grid()
    mask = x**2 / 0.8 + y**2 / 0.9 + z**2 / 0.8 < 1
    f = 180 * torch.exp(-4 * ((x - 0.2) ** 2 + y**2 + z**2)) + 40 * z
    magnitude = torch.stack([mask * math.exp(-30 * t) for t in times], dim=-1).float()
    phase = torch.stack([f * t for t in times], dim=-1)
    phase = phase + (offset_map() if offset is None else offset).unsqueeze(-1)
    signs = torch.tensor([(-1.0) ** e for e in range(len(times))])
    phase = phase + alternating * (0.6 * x + 0.2).unsqueeze(-1) * signs
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*phase.shape, 2, generator=generator) / snr
    signal = torch.polar(magnitude, phase) + torch.complex(*noise.unbind(-1))
    return signal.angle(), signal.abs(), mask, f


def test_offset_is_recovered_within_hundredths_of_a_radian():
    phase, magnitude, mask, _ = head()
    result = mcpc3ds(phase, magnitude, TIMES, VOXEL)
    error = wrap(result.offset - offset_map())[mask]
    error = error - error.median()
    assert error.abs().quantile(0.99) < 0.05
    assert error.square().mean().sqrt() < 0.02


def test_corrected_phase_is_the_fields_alone():
    phase, magnitude, mask, f = head(snr=1000.0)
    result = mcpc3ds(phase, magnitude, TIMES, VOXEL)
    for e, t in enumerate(TIMES):
        assert wrap(result.phase[..., e] - f * t)[mask].abs().quantile(0.99) < 0.05
    torch.testing.assert_close(
        wrap(result.phase + result.offset.unsqueeze(-1) - phase), torch.zeros_like(phase),
        atol=1e-4, rtol=0,
    )  # fmt: skip


def test_nothing_is_removed_where_there_is_no_offset():
    phase, magnitude, mask, _ = head(offset=torch.zeros(SHAPE))
    result = mcpc3ds(phase, magnitude, TIMES, VOXEL)
    assert wrap(result.offset)[mask].abs().max() < 0.06


def test_single_echo_is_left_alone():
    phase, magnitude, _, _ = head(times=(0.01,))
    result = mcpc3ds(phase, magnitude, (0.01,), VOXEL)
    torch.testing.assert_close(result.phase, phase)
    assert (result.offset == 0).all()


@pytest.mark.parametrize("times", [TIMES, (0.004, 0.010, 0.018)])
def test_bipolar_phase_is_found(times):
    phase, magnitude, mask, _ = head(alternating=1.0, times=times)
    beta = bipolar_phase(phase, magnitude, times, VOXEL, mask=mask)
    truth = 0.6 * grid()[0] + 0.2
    assert (beta - truth)[mask].abs().quantile(0.99) < 0.04


def test_bipolar_correction_restores_a_common_field():
    phase, magnitude, mask, f = head(alternating=1.0)
    plain = mcpc3ds(phase, magnitude, TIMES, VOXEL, bipolar=False)
    right = mcpc3ds(phase, magnitude, TIMES, VOXEL, bipolar=True)
    error = [wrap(r.phase[..., 1] - f * TIMES[1])[mask].square().mean() for r in (plain, right)]
    assert error[1] < 0.05 * error[0]


def test_bipolar_needs_three_echoes():
    phase, magnitude, mask, _ = head(times=TIMES[:2])
    with pytest.raises(ValueError, match="at least three echoes"):
        bipolar_phase(phase, magnitude, TIMES[:2], VOXEL, mask=mask)


@pytest.mark.parametrize("echoes", [1, 3])
def test_coils_add_up_in_phase(echoes):
    x, y, z = grid()
    times = TIMES[:echoes]
    coils = []
    for n, (a, b) in enumerate([(1.0, 0.4), (-1.2, 1.9), (0.3, -2.2), (2.0, 0.1)]):
        phase, magnitude, mask, f = head(
            snr=30, offset=a * x + b + 0.5 * a * y * z, times=times, seed=n
        )
        coils.append((phase, magnitude))
    phase = torch.stack([p for p, _ in coils], dim=-1)
    magnitude = torch.stack([m for _, m in coils], dim=-1)
    combined, total = combine_coils(phase, magnitude, times, VOXEL)
    torch.testing.assert_close(total, magnitude.square().sum(-1).sqrt())
    # what the coils' average leaves: the common field, with the noise of four coils, not one
    step = wrap(combined[..., -1] - combined[..., 0]) if echoes > 1 else None
    if echoes > 1:
        error = wrap(step - f * (times[-1] - times[0]))[mask]
        assert error.std() < 1.2 * (2**0.5) * math.exp(30 * times[-1]) / 30 / 4**0.5
    single = wrap(phase[..., 0, 0] - combined[..., 0])
    smooth = smooth_phase(single, mask.float(), VOXEL, 5.0)
    assert wrap(single - smooth)[mask].std() < 0.09  # no destructive interference anywhere


def test_smoothing_has_no_bias_at_borders_and_ignores_outliers():
    x, y, z = grid()
    truth = 2 * x + 1.5 * y * z
    mask = x**2 + y**2 + z**2 < 0.7
    spoilt = truth.clone()
    spoilt[::7, ::7, ::7] += 2.5
    for phase, limit in ((truth, 0.09), (spoilt, 0.12)):
        error = wrap(smooth_phase(wrap(phase), mask.float(), VOXEL, 5.0) - truth)[mask]
        assert error.abs().max() < limit and error.square().mean().sqrt() < 0.025


def scalp_head():
    """2 mm: brain, dark skull 6 mm, 8 mm of bright fat 3.4 ppm off at 3 T."""
    x, y, z = grid((84, 96, 84))
    depth = 80 * (1 - (x**2 + y**2 + z**2).sqrt() / 0.97)  # mm below the outline
    fat, brain = (depth > 0) & (depth < 8), depth > 14
    f = 60 * torch.exp(-4 * ((x - 0.2) ** 2 + y**2 + z**2)) + 40 * z
    f = f - fat * 2 * math.pi * 434
    size = (0.7 * brain + 1.5 * fat).float()
    offset = 1.1 + x - 0.7 * y * z + 0.6 * z**2
    noise = torch.randn(*x.shape, len(TIMES), 2, generator=torch.Generator().manual_seed(3)) / 40
    signal = torch.stack([torch.polar(size, f * t + offset) for t in TIMES], dim=-1)
    signal = signal + torch.complex(*noise.unbind(-1))
    return signal, offset, brain, fat


def test_fat_in_the_scalp_does_not_reach_the_brain():
    # t1 is no multiple of the spacing: extrapolated to t = 0, fat's phase is off by a part of 2π
    signal, offset, brain, fat = scalp_head()
    result = mcpc3ds(signal.angle(), signal.abs(), TIMES, (2.0, 2.0, 2.0))
    error = wrap(result.offset - offset)
    assert wrap(error - error[brain].median())[brain].abs().max() < 0.08


def test_only_what_continues_the_core_is_let_in():
    _, offset, brain, fat = scalp_head()
    weight = (brain | fat).float()
    for shift, share in ((2.5, 0.0), (0.2, 1.0)):
        kept = continues_core(wrap(offset + shift * fat), weight, (2.0, 2.0, 2.0), 5.0)
        assert kept[brain].mean() > 0.999
        assert abs(kept[fat].mean() - share) < 0.02


def test_a_phase_that_no_smooth_course_follows_is_left_whole():
    _, offset, brain, fat = scalp_head()
    noise = 2 * math.pi * torch.rand(offset.shape, generator=torch.Generator().manual_seed(1))
    kept = continues_core(wrap(noise), (brain | fat).float(), (2.0, 2.0, 2.0), 5.0)
    assert (kept == 1).all()


def with_readout(beta, times=TIMES, decaying=0.0, snr=40.0):
    """The head with a phase of `beta` `(X, Y, Z)` that alternates, and one that dies away."""
    phase, magnitude, mask, f = head(times=times, snr=snr)
    signs = torch.tensor([(-1.0) ** e for e in range(len(times))])
    eddy = decaying * grid()[0].unsqueeze(-1) * torch.tensor([0.5**e for e in range(len(times))])
    return wrap(phase + beta.unsqueeze(-1) * signs + eddy), magnitude, mask, f


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("level", [0.15, 0.6])
def test_an_alternating_readout_is_found_and_corrected(strength, level):
    # a ramp over the field of view, and a phase that is the same everywhere
    phase, magnitude, mask, f = with_readout(strength * grid()[0] / 2 + level)
    found = mcpc3ds(phase, magnitude, TIMES, VOXEL)
    assert found.alternating is not None
    assert "readout alternates" in found.notes[0] and "bipolar=false" in found.notes[0]
    assert not found.warnings  # it was proved and undone
    told = mcpc3ds(phase, magnitude, TIMES, VOXEL, bipolar=True)
    torch.testing.assert_close(found.phase, told.phase)
    assert not told.notes and not told.warnings  # the user knows
    inner = mask & (magnitude.amin(-1) > 0.2)
    error = wrap(found.phase[..., 1] - found.phase[..., 0] - f * (TIMES[1] - TIMES[0]))[inner]
    assert wrap(error - error.median()).abs().quantile(0.99) < 0.25  # noise: 0.05 rad


@pytest.mark.parametrize(("snr", "decaying"), [(40.0, 0.0), (6.0, 0.0), (40.0, 1.5)])
def test_a_monopolar_readout_is_left_alone(snr, decaying):
    # an eddy current that dies away bends the phase as well, but not to and fro
    phase, magnitude, _, _ = with_readout(torch.zeros(SHAPE), decaying=decaying, snr=snr)
    found = mcpc3ds(phase, magnitude, TIMES, VOXEL)
    assert found.alternating is None and not found.notes and not found.warnings


def test_the_users_word_on_the_readout_holds():
    phase, magnitude, _, _ = with_readout(grid()[0])
    found = mcpc3ds(phase, magnitude, TIMES, VOXEL, bipolar=False)
    assert found.alternating is None and not found.notes and not found.warnings


@pytest.mark.parametrize("times", [TIMES[:3], (0.004, 0.011, 0.018, 0.026)])
def test_three_even_echoes_are_not_enough_to_correct_but_to_warn(times):
    phase, magnitude, _, _ = with_readout(grid()[0], times)
    found = mcpc3ds(phase, magnitude, times, VOXEL)
    assert found.alternating is None and "bipolar=true corrects it" in found.warnings[0]
    assert not mcpc3ds(*head(times=times)[:2], times, VOXEL).warnings


@pytest.mark.parametrize("times", [TIMES[:2], (0.004, 0.010, 0.018, 0.025)])
def test_uneven_echoes_tell_nothing_of_the_readout(times):
    phase, magnitude, mask, _ = with_readout(grid()[0], times)
    assert measure_alternation(phase, magnitude, times, VOXEL, mask=mask) == (0.0, None)


@pytest.mark.parametrize(("radius", "steepness"), [(0.5, 2.0), (0.5, 4.0), (0.7, 5.0)])
def test_a_steep_alternating_phase_is_unwrapped_through_the_head(radius, steepness):
    # turns of 4β must not be counted on ways through the air around
    x, y, z = grid()
    ball = x**2 + y**2 + z**2 < radius**2
    beta = steepness * x + 0.6
    turn = beta.unsqueeze(-1) * torch.tensor([1.0, -1.0, 1.0, -1.0])
    noise = torch.randn(2, *turn.shape, generator=torch.Generator().manual_seed(0)) / 40
    signal = ball.unsqueeze(-1) * torch.polar(torch.ones_like(turn), turn) + torch.complex(*noise)
    mask = signal_mask(signal.abs())
    found = bipolar_phase(signal.angle(), signal.abs(), TIMES, (4.0, 4.0, 4.0), mask=mask)
    error = (found - beta)[ball]
    assert (error - error.median()).abs().quantile(0.99) < 0.1
