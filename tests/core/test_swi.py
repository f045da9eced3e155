"""Susceptibility-weighted images: sign, invariance, projections, and who gets dark."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import irfft, rfft
from qsm_nipype.core.swi.chi import smwi, smwi_diamagnetic, susceptibility_mask, true_swi
from qsm_nipype.core.swi.filters import high_passed, low_pass
from qsm_nipype.core.swi.magnitude import joined_echoes, receive_sensitivity, softplus
from qsm_nipype.core.swi.phase import clear, homodyne, phase_mask, sigmoid
from qsm_nipype.core.swi.projection import minimum_projection, slice_axis, window_slices

TE, B0 = (0.006, 0.014, 0.022), 3.0
SHAPE, VOXEL, ALONG = (30, 26, 20), (1.0, 1.0, 1.5), (0.0, 0.0, 1.0)
#: rad for a field of 1 ppm at 1 s
RATE = 2 * math.pi * 42.577478 * B0


def head(chi_line: float = 0.0, voxel=VOXEL) -> dict[str, torch.Tensor]:
    """An ellipsoid with a line of `chi_line` ppm along B0, and a steep background field."""
    grid = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    inside = sum((g / (0.42 * n)) ** 2 for g, n in zip(grid, SHAPE, strict=True)) < 1
    chi = torch.zeros(SHAPE)
    chi[15, 12, :] = chi_line
    chi = chi * inside
    kernel = dipole_kernel(SHAPE, voxel, ALONG, like=chi)
    local = irfft(rfft(chi) * kernel, SHAPE)
    background = 0.02 * grid[0] + 0.01 * grid[2]
    field = (local + background) * inside
    phase = torch.stack([RATE * t * field for t in TE], -1)
    magnitude = torch.stack([torch.exp(torch.tensor(-25.0 * t)) * inside.float() for t in TE], -1)
    wrapped = torch.remainder(phase + math.pi, 2 * math.pi) - math.pi
    return {"magnitude": magnitude, "mask": inside, "phase": wrapped, "field": field, "chi": chi}


def made(name: str, data: dict[str, torch.Tensor], voxel=VOXEL, along=ALONG, **parameters):
    """The image by the method `name`."""
    method, extra = {
        "homodyne": (homodyne, {"phase": data["phase"]}),
        "clear": (clear, {"total_field": data["field"]}),
        "true": (true_swi, {"chi": data["chi"]}),
        "smwi": (smwi, {"chi": data["chi"]}),
        "diamagnetic": (smwi_diamagnetic, {"chi": data["chi"]}),
    }[name]
    common = {"echo_times": TE, "thickness": 4.0, **parameters}
    return method(data["magnitude"], data["mask"], voxel, along, **extra, **common)


METHODS = ("homodyne", "clear", "true", "smwi", "diamagnetic")
LINE = (15, 12, slice(7, 13))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("chi", [0.3, -0.3])
def test_a_line_gets_dark_where_its_sign_is_the_methods(name, chi):
    plain, line = made(name, head()), made(name, head(chi))
    before, after = (float(x.weight[LINE].mean()) for x in (plain, line))
    if (chi > 0) == (name != "diamagnetic"):
        assert after < 0.9 * before
        assert (line.projection[LINE] <= line.image[LINE] + 1e-6).all()
    else:
        assert after > 0.98 * before


@pytest.mark.parametrize("name", ["homodyne", "true", "smwi", "diamagnetic"])
def test_without_phase_and_susceptibility_the_magnitude_stays(name):
    data = head()
    data |= {"phase": torch.zeros_like(data["phase"]), "chi": torch.zeros(SHAPE)}
    found = made(name, data)
    assert torch.equal(found.weight, torch.ones(SHAPE))
    weighting = "te" if name in ("homodyne", "true") else "snr"
    assert torch.allclose(found.image, joined_echoes(data["magnitude"], TE, weighting))


def test_masks_are_one_at_zero_and_fall_monotonically_with_positive_phase():
    phase = torch.linspace(-4, 4, 81)
    mask = phase_mask(phase)
    assert (mask[phase <= 0] == 1).all() and (mask[phase >= math.pi] == 0).all()
    between = mask[(phase > 0) & (phase < math.pi)]
    assert (between.diff() < 0).all()
    everywhere = torch.ones(81, dtype=torch.bool)
    curve = sigmoid(phase, everywhere, strength=4.0)
    assert (curve.diff() < 0).all() and curve[40] == pytest.approx((1 + math.tanh(1)) / 2)
    assert torch.allclose(curve, sigmoid(1e-3 * phase, everywhere, strength=4.0), atol=1e-5)
    chi = torch.linspace(-1, 1, 41)
    assert torch.allclose(susceptibility_mask(chi, 0.0, 0.5), (1 - 2 * chi).clamp(0, 1))


def test_the_homodyne_filter_does_not_see_wraps_nor_an_offset():
    data = head(0.3)
    moved = {**data, "phase": data["phase"] + 4 * math.pi + 1.3}
    assert torch.allclose(made("homodyne", data).weight, made("homodyne", moved).weight, atol=1e-3)


def test_clear_does_not_see_the_receive_sensitivity():
    data = head(0.3)
    bias = 1 + 0.3 * torch.linspace(-1, 1, SHAPE[0])[:, None, None]
    uneven = {**data, "magnitude": data["magnitude"] * bias[..., None]}
    flat, corrected = (made("clear", d, smoothness=3.0).image for d in (data, uneven))
    inside = data["mask"]
    ratio = (corrected / flat.clamp_min(1e-6))[inside]
    assert float(ratio.std() / ratio.mean()) < 0.5 * float(bias.expand(SHAPE)[inside].std())


TURNS = list(itertools.product(itertools.permutations(range(3)), [(), (0,), (1, 2)]))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("order", "flips"), TURNS[::4])
def test_how_the_axes_are_stored_changes_nothing(name, order, flips):
    data = head(-0.3 if name == "diamagnetic" else 0.3)

    def turn(x: torch.Tensor) -> torch.Tensor:
        return x.permute(*order, *range(3, x.dim())).flip(flips)

    voxel, along = ([v[a] for a in order] for v in (VOXEL, ALONG))
    along = [-c if a in flips else c for a, c in enumerate(along)]
    stored = {k: turn(x).contiguous() for k, x in data.items()}
    straight, turned = made(name, data), made(name, stored, voxel, along)
    for part in ("image", "projection"):
        expected, found = turn(getattr(straight, part)), getattr(turned, part)
        assert torch.allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("voxel", "along", "axis", "count"),
    [
        ((1.0, 1.0, 1.0), (0.0, 0.1, 0.99), 2, 7),
        ((1.0, 1.0, 1.0), (0.0, -1.0, 0.0), 1, 7),
        ((0.5, 0.5, 2.0), (0.0, 1.0, 0.0), 2, 3),
        ((3.0, 0.6, 0.6), (0.0, 0.0, 1.0), 0, 3),
        ((1.0, 1.0, 12.0), (0.0, 0.0, 1.0), 2, 1),
    ],
)
def test_the_projection_is_numpys_minimum_over_the_window(voxel, along, axis, count):
    assert slice_axis(voxel, along) == axis and window_slices(7.0, voxel[axis]) == count
    image = np.random.default_rng(4).random((9, 8, 11), dtype=np.float32)
    whole = torch.ones(image.shape, dtype=torch.bool)
    found = minimum_projection(torch.from_numpy(image), whole, voxel, along, thickness=7.0)
    half = count // 2
    padded = np.pad(
        image, [(half, half) if a == axis else (0, 0) for a in range(3)], constant_values=np.inf
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, count, axis=axis)
    assert np.array_equal(found.numpy(), windows.min(-1))


def test_the_projection_of_a_constant_is_the_constant_inside_the_mask_and_zero_outside():
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[2:6, 2:6, 2:6] = True
    image = torch.where(mask, 3.0, 0.5)
    found = minimum_projection(image, mask, VOXEL, ALONG, thickness=6.0)
    assert torch.equal(found, torch.where(mask, 3.0, 0.0))


def test_a_hole_of_the_mask_is_projected():
    data = head()
    data["mask"][14:16, 12:14, 9:11] = False
    data["magnitude"][14:16, 12:14, 9:11] = 0
    assert float(made("smwi", data).projection[14, 12, 11]) == 0


def test_filters_keep_a_constant_and_take_the_slow_away():
    data = head()
    mask = data["mask"]
    assert float(high_passed(torch.full(SHAPE, 5.0), mask, VOXEL, 4.0).abs().max()) < 1e-4
    low = low_pass(mask, VOXEL, 2.0, data["chi"])
    point = torch.zeros(SHAPE)
    point[15, 13, 10] = 1
    spread = low(point)
    distance = (torch.arange(SHAPE[0]) - 15.0).square()
    profile = spread.sum((1, 2))
    assert float((profile * distance).sum() / profile.sum()) == pytest.approx(4.0, rel=0.05)
    flat = receive_sensitivity(mask * 7.0, mask, VOXEL, sigma=5.0)
    assert torch.allclose(flat[mask], torch.tensor(7.0), rtol=0.01)


def test_softplus_is_dark_below_its_knee_and_straight_above():
    x = torch.linspace(0, 10, 101)
    y = softplus(x, 1.0)
    assert y[0] == pytest.approx(0, abs=1e-6) and (y.diff() > 0).all()
    assert float((y[-1] - y[-11]) / (x[-1] - x[-11])) == pytest.approx(1, abs=1e-3)
    assert float(y[1] / x[1]) < 0.2


def test_echoes_are_joined_by_time_or_by_signal():
    magnitude = torch.tensor([4.0, 2.0, 1.0]).expand(2, 2, 2, 3)
    by_time = joined_echoes(magnitude, (0.01, 0.02, 0.03), "te")
    assert torch.allclose(by_time, torch.full((2, 2, 2), (4 + 4 + 3) / 6))
    assert torch.allclose(joined_echoes(magnitude, TE, "snr"), torch.full((2, 2, 2), 7**0.5))
    one = joined_echoes(magnitude[..., :1], TE[:1], "te")
    assert torch.equal(one, magnitude[..., 0])


def test_what_cannot_be_is_refused():
    data = head()
    with pytest.raises(ValueError, match="above 0 mm"):
        made("homodyne", data, sigma=0.0)
    with pytest.raises(ValueError, match="give one of te, snr"):
        made("smwi", data, weighting="mean")
    with pytest.raises(ValueError, match="above the lower"):
        made("true", data, upper=-0.1)
