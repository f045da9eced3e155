"""ROMEO over echoes and regions, and Laplacian unwrapping."""

import math

import pytest
import torch

from qsm_nipype.core.phase import wrap
from qsm_nipype.core.unwrapping import laplacian, quality_map, romeo, signal_mask

TIMES = (0.004, 0.011, 0.018, 0.025)


def field(shape=(30, 26, 22), height=500.0):
    axes = [torch.linspace(-1, 1, n) for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    return height * torch.exp(-3 * (x**2 + y**2 + z**2)) + 200 * x * y - 150


def echoes(f, snr=None, seed=0):
    phase = torch.stack([f * t for t in TIMES], dim=-1)
    if snr is not None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(*phase.shape, 2, generator=generator) / snr
        phase = torch.angle(
            torch.polar(torch.ones_like(phase), phase) + torch.complex(*noise.unbind(-1))
        )
    return phase


def test_published_literal():
    phase = torch.tensor([0.1, 0.2 + 2 * math.pi, 0.3, 0.4]).view(4, 1, 1, 1)
    result = romeo(phase, [0.004])
    torch.testing.assert_close(result.phase.flatten(), torch.tensor([0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize("mode", ["template", "individual"])
def test_all_echoes_come_back_from_wrapping(mode):
    truth = echoes(field())
    result = romeo(wrap(truth), TIMES, mode=mode)
    torch.testing.assert_close(result.phase, truth, atol=2e-4, rtol=0)
    assert result.mode == mode and result.regions == 1


def test_result_is_congruent_to_the_input_whatever_the_noise():
    wrapped = echoes(field(), snr=2.0)
    result = romeo(wrapped, TIMES)
    turns = (result.phase - wrapped) / (2 * math.pi)
    assert (turns - turns.round()).abs().max() < 1e-4


def test_following_the_fit_beats_scaling_the_template():
    f = field()
    truth = echoes(f)
    wrapped = echoes(f, snr=6.0)
    result = romeo(wrapped, TIMES, mode="template").phase[..., 3]
    scaled = romeo(wrapped[..., :1], TIMES[:1]).phase[..., 0] * (TIMES[3] / TIMES[0])
    scaled = wrapped[..., 3] + 2 * math.pi * torch.round(
        (scaled - wrapped[..., 3]) / (2 * math.pi)
    )
    wrong = ((result - truth[..., 3]).abs() > math.pi).float().mean()
    wrong_scaled = ((scaled - truth[..., 3]).abs() > math.pi).float().mean()
    assert wrong < 2e-3 and wrong < 0.5 * wrong_scaled


def test_auto_takes_the_mode_that_leaves_the_echoes_closer_to_one_field():
    result = romeo(echoes(field(), snr=1.0), TIMES, mode="auto")
    assert set(result.inconsistency) == {"template", "individual"}
    assert result.inconsistency[result.mode] == min(result.inconsistency.values())
    clean = romeo(wrap(echoes(field())), TIMES, mode="auto")
    assert set(clean.inconsistency) == {"template"} and clean.inconsistency["template"] < 1e-3


def test_separate_parts_agree_on_the_field():
    f = field() + 0.0
    mask = torch.ones(f.shape, dtype=torch.bool)
    mask[14:16] = False
    f[16:] += 600  # more than a turn of the first echo, on the far side of a gap
    result = romeo(wrap(echoes(f)), TIMES, mask=mask)
    assert result.regions == 2
    error = (result.phase - echoes(f))[mask]
    assert (error - error.median()).abs().max() < 1e-3


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="choose auto, template or individual"):
        romeo(torch.zeros(4, 4, 4, 1), [0.01], mode="both")


def test_signal_mask_keeps_tissue_and_drops_air():
    generator = torch.Generator().manual_seed(0)
    magnitude = (torch.randn(40, 40, 40, 2, generator=generator) / 100).norm(dim=-1)
    magnitude[10:30, 10:30, 10:30] += 1
    mask = signal_mask(magnitude)
    assert mask[10:30, 10:30, 10:30].all()
    assert mask.float().mean() < 0.2
    assert signal_mask(torch.ones(4, 4, 4)).all()
    assert not signal_mask(torch.zeros(4, 4, 4)).any()


def test_quality_map_is_that_of_romeo():
    wrapped = echoes(field(), snr=10.0)
    torch.testing.assert_close(quality_map(wrapped, TIMES), romeo(wrapped, TIMES).quality)


@pytest.mark.parametrize("shape", [(24, 20, 16), (23, 15, 11)])
def test_laplacian_is_exact_where_neighbours_differ_by_less_than_pi(shape):
    truth = field(shape) * 0.02
    result = laplacian(wrap(truth))
    error = result - truth
    assert (error - error.median()).abs().max() < 1e-4


def test_laplacian_respects_the_mask_and_stacks_echoes():
    truth = echoes(field(height=200.0))
    x = torch.linspace(-1, 1, 30).view(-1, 1, 1)
    mask = (x**2 + torch.zeros(30, 26, 22)) < 0.8
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(truth.shape, generator=generator) * 6 - 3
    wrapped = wrap(torch.where(mask.unsqueeze(-1), truth, noise))
    result = laplacian(wrapped, mask=mask)
    assert result.shape == truth.shape and (result[~mask] == 0).all()
    for e in range(4):
        error = (result - truth)[..., e][mask]
        assert (error - error.median()).abs().max() < 1e-3
