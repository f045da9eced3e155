"""Alternating slices and the sign of the phase."""

import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.polarity import alternating_axis, sign_agreement, undo_alternation
from qsm_nipype.core.unwrapping import wrap

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


def test_sign_follows_from_the_heads_shape():
    phase, magnitude = head()
    right = sign_agreement(phase, magnitude, VOXEL, (0, 0, 1))
    wrong = sign_agreement(-phase, magnitude, VOXEL, (0, 0, 1))
    assert right > 0.6 and wrong < -0.6


def test_no_outline_no_verdict():
    phase, magnitude = head()
    inner = (slice(24, 34),) * 3
    assert sign_agreement(phase[inner], torch.ones_like(magnitude[inner]), VOXEL, (0, 0, 1)) == 0
