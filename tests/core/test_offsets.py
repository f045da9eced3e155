"""MCPC-3D-S, bipolar readouts and coils against offsets that are known."""

import math

import pytest
import torch

from qsm_nipype.core.offsets import (
    bipolar_phase,
    combine_coils,
    continues_core,
    mcpc3ds,
    smooth_phase,
)
from qsm_nipype.core.unwrapping import wrap

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
    plain = mcpc3ds(phase, magnitude, TIMES, VOXEL)
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
