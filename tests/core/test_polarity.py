"""Alternating slices and the sign of the phase."""

import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.phase import wrap
from qsm_nipype.core.reading.acquisition import read_acquisition
from qsm_nipype.core.reading.polarity import (
    alternating_axis,
    shows_sign,
    sign_agreement,
    undo_alternation,
    undo_alternations,
)
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.errors import DataError

VOXEL = (3.0, 3.0, 3.0)


def head():
    n = 56
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n)] * 3, indexing="ij")
    tissue = (x / 0.65) ** 2 + (y / 0.8) ** 2 + (z / 0.7) ** 2 < 1
    tissue &= ~((x / 0.15) ** 2 + ((y - 0.5) / 0.2) ** 2 + ((z + 0.3) / 0.15) ** 2 < 1)
    field = dipole_field(tissue.float() * -9.4, VOXEL, (0, 0, 1)) + 0.3 * x - 0.2 * z
    t = torch.tensor([0.004, 0.008])
    phase = 2 * math.pi * 42.577478 * 3 * field.unsqueeze(-1) * t + (0.8 * y + 1).unsqueeze(-1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.complex(*(torch.randn(*phase.shape, 2, generator=generator) / 50).unbind(-1))
    signal = torch.polar(tissue.float().unsqueeze(-1).expand_as(phase).contiguous(), phase) + noise
    return signal.angle(), signal.abs()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_alternation_is_found_along_any_axis_and_undone(axis):
    phase, magnitude = head()
    assert alternating_axis(phase, magnitude) is None
    turned = undo_alternation(phase, axis)  # doing it and undoing it is the same
    assert alternating_axis(turned, magnitude) == axis
    assert wrap(undo_alternation(turned, axis) - phase).abs().max() < 1e-4


def test_alternation_is_found_though_steep_fields_hide_it_in_a_quarter_of_the_slices():
    # 3 mm voxels at 28 ms: a simulated head has 8 of 10 pairs of slices below the limit
    phase, magnitude = head()
    x = torch.arange(56.0)[:, None, None, None]
    steep = wrap(phase + 2.0 * (x - 40).clamp_min(0))
    assert alternating_axis(steep, magnitude) is None
    assert alternating_axis(undo_alternation(steep, 0), magnitude) == 0


def test_sign_follows_from_the_heads_shape():
    phase, magnitude = head()
    right = sign_agreement(phase, magnitude, VOXEL, (0, 0, 1))
    wrong = sign_agreement(-phase, magnitude, VOXEL, (0, 0, 1))
    assert right > 0.6 and wrong < -0.6


def test_no_outline_no_verdict():
    phase, magnitude = head()
    inner = (slice(24, 34),) * 3
    assert sign_agreement(phase[inner], torch.ones_like(magnitude[inner]), VOXEL, (0, 0, 1)) == 0


@pytest.mark.parametrize("axes", [[0, 1], [1, 2], [0, 1, 2]])
def test_alternation_along_several_axes_is_undone(axes):
    phase, magnitude = head()
    turned = phase
    for axis in axes:
        turned = undo_alternation(turned, axis)
    found, named = undo_alternations(turned, magnitude)
    assert named == axes
    assert wrap(found - phase).abs().max() < 1e-4
    assert undo_alternations(phase, magnitude)[1] == []


@pytest.mark.parametrize("size", [3.0, 1.8, 0.3])
def test_only_slabs_thin_along_b0_are_too_little_to_tell_the_sign(size):
    _, magnitude = head()
    voxel, b0 = (size,) * 3, (0.0, 0.0, 1.0)
    middle = slice(20, 36)
    assert shows_sign(magnitude, voxel, b0)
    assert not shows_sign(magnitude[:, :, middle], voxel, b0)
    assert shows_sign(magnitude[:, :, middle], voxel, (0.0, 1.0, 0.0))
    assert shows_sign(magnitude[middle], voxel, b0)


def stored(phase, magnitude):
    """What ReadPhase would make of two echoes."""
    times = (0.004, 0.008)
    return {
        part: [
            StoredEcho(
                f"{part}{e}",
                values[..., e].numpy(),
                metadata={"EchoTime": times[e], "Units": "rad"},
            )
            for e in range(2)
        ]
        for part, values in (("phase", phase), ("magnitude", magnitude))
    }


def test_the_sign_of_a_slab_is_left_with_a_warning():
    phase, magnitude = head()
    cut = (slice(None), slice(None), slice(20, 36))
    parts = stored(-phase[cut], magnitude[cut])
    found = read_acquisition(parts, VOXEL, (0, 0, 1))
    assert not found.record["sign_inverted"]
    assert any("too thin" in w for w in found.record["warnings"])
    forced = read_acquisition(parts, VOXEL, (0, 0, 1), sign="negative").record
    assert forced["sign_inverted"] and not forced["warnings"]


def test_a_sign_that_the_head_does_not_confirm_is_told():
    phase, magnitude = head()
    right = read_acquisition(stored(phase, magnitude), VOXEL, (0, 0, 1))
    assert right.record["warnings"] == []
    # a filter has left nothing of the head's own field
    generator = torch.Generator().manual_seed(1)
    flat = 0.1 * torch.randn(phase.shape, generator=generator)
    with pytest.raises(DataError, match="high-pass filter"):
        read_acquisition(stored(flat, magnitude), VOXEL, (0, 0, 1))
    found = read_acquisition(stored(flat, magnitude), VOXEL, (0, 0, 1), units="rad").record
    assert abs(found["sign_agreement"]) < 0.3 and not found["sign_inverted"]
    assert "may have been high-pass filtered" in found["warnings"][0]
    assert "could not be confirmed" in found["warnings"][1]


def test_a_forced_sign_that_turns_the_head_upside_down_is_an_error():
    phase, magnitude = head()
    for stored_as, sign in ((phase, "negative"), (-phase, "positive")):
        found = read_acquisition(stored(stored_as, magnitude), VOXEL, (0, 0, 1), sign=sign).record
        assert "upside down" in found["errors"][0] and sign in found["errors"][0]
        agreeing = {"negative": "positive", "positive": "negative"}[sign]
        good = read_acquisition(stored(stored_as, magnitude), VOXEL, (0, 0, 1), sign=agreeing)
        assert not good.record.get("errors")


def test_alternation_along_two_axes_is_recorded():
    phase, magnitude = head()
    turned = undo_alternation(undo_alternation(phase, 0), 1)
    found = read_acquisition(stored(turned, magnitude), VOXEL, (0, 0, 1))
    assert found.record["alternating_slices_axis"] == [0, 1]
    assert len(found.record["notes"]) == 2 and not found.record["warnings"]
