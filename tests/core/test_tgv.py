"""Laws of single-step TGV."""

import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.nonlinear import nltgv
from qsm_nipype.core.inversion.tgv import tgv


def head(shape=(40, 40, 40)):
    """Three spheres of χ in a ball, and a strong source outside: (total, local, chi, mask)."""
    axes = [torch.arange(n) - n / 2 for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    mask = x**2 + y**2 + z**2 < 13**2
    chi = torch.zeros(shape)
    for centre, radius, value in (
        ((3, 4, 0), 4, 0.1),
        ((-5, -2, 3), 3, -0.08),
        ((2, -6, -3), 3, 0.15),
    ):
        a, b, c = centre
        chi[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2] = value
    air = 9.0 * ((x - 1) ** 2 + y**2 + (z + 17) ** 2 < 2.5**2)
    background = dipole_field(air, (1, 1, 1), (0, 0, 1), padding=1.0)
    local = dipole_field(chi, (1, 1, 1), (0, 0, 1), padding=1.0)
    torch.manual_seed(0)
    local = local + 1e-3 * torch.randn(shape)
    return (local + background) * mask, local * mask, chi, mask


def error(chi, truth, mask):
    a, b = chi[mask] - chi[mask].mean(), truth[mask] - truth[mask].mean()
    return float((a - b).norm() / b.norm())


def test_external_source_leaves_chi():
    total, local, truth, mask = head()
    assert float((total - local).norm()) > 3 * float(local.norm())
    chi = tgv(total, mask, (1, 1, 1)).chi
    inside = chi != 0
    assert float(inside.sum() / mask.sum()) > 0.7
    assert error(chi, truth, inside) < 0.4
    assert error(nltgv(total, mask, (1, 1, 1)).chi, truth, inside) > 1
    for value in (0.1, -0.08, 0.15):
        core = truth == value
        step = float(chi[core].mean() - chi[inside & (truth == 0)].mean())
        assert step == pytest.approx(value, rel=0.25)


def test_harmonic_field_changes_little():
    total, _, truth, mask = head()
    axes = [torch.arange(n) - n / 2 for n in mask.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    more = total + (0.05 * x + 2e-3 * (x * x - z * z)) * mask
    one = tgv(total, mask, (1, 1, 1), regularization=1e-4).chi
    two = tgv(more, mask, (1, 1, 1), regularization=1e-4).chi
    assert float((one - two).norm() / one.norm()) < 0.02


def test_zero_and_non_finite_fields():
    total, _, _, mask = head()
    assert not tgv(0 * total, mask, (1, 1, 1)).chi.any()
    total[20, 20, 20] = math.nan
    chi = tgv(total, mask, (1, 1, 1), max_iterations=5).chi
    assert torch.isfinite(chi).all()
    assert not chi[~mask].any()
