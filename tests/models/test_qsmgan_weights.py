"""The shipped QSMGAN: better than direct inversion, true to size and sign, odd in the field."""

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.direct import tikhonov, tkd
from qsm_nipype.models import registry, weights
from qsm_nipype.models.qsmgan import load_network, qsmgan

SIZE, UP = (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def generator():
    return load_network(registry.read_weights("qsmgan"))


@pytest.fixture(scope="module")
def phantom():
    """Two balls and a tube of known χ in a ball of brain, and its field with 2 ppb of noise."""
    x, y, z = torch.meshgrid(*[torch.arange(56.0) - 27.5] * 3, indexing="ij")
    mask = x.square() + y.square() + z.square() < 24**2
    parts = {
        0.15: (x - 8).square() + y.square() + z.square() < 36,
        -0.1: (x + 9).square() + (y - 4).square() + z.square() < 25,
        0.2: ((y + 12).square() + (z - 4).square() < 6) & (x.abs() < 14),
    }
    chi = torch.zeros_like(x)
    for value, where in parts.items():
        chi[where] = value
    chi = torch.where(mask, chi - chi[mask].mean(), 0.0)
    noise = 0.002 * torch.randn(chi.shape, generator=torch.Generator().manual_seed(0))
    return chi, (dipole_field(chi, SIZE, UP) + noise) * mask, mask, parts


def relative(found, chi, mask):
    return float((found - chi)[mask].norm() / chi[mask].norm())


def test_it_is_small_and_its_card_says_simulated():
    entry = registry.find("qsmgan")
    assert (weights.FOLDER / entry.file).stat().st_size < 6e6
    card = (weights.FOLDER / "qsmgan.md").read_text()
    assert entry.checksum in card and "simulated data only" in card


def test_it_is_better_than_direct_inversion_and_true_to_size(generator, phantom):
    chi, field, mask, parts = phantom
    found = qsmgan(field, mask, SIZE, UP, generator=generator).chi
    others = [relative(f(field, mask, SIZE, UP).chi, chi, mask) for f in (tkd, tikhonov)]
    assert relative(found, chi, mask) < 0.6 * min(others)
    around = found[mask & ~torch.stack(list(parts.values())).any(0)].mean()
    for value, where in parts.items():
        assert float(found[where].mean() - around) == pytest.approx(value, rel=0.15)


def test_the_opposite_field_gives_the_opposite_map(generator, phantom):
    _, field, mask, _ = phantom
    one, two = (qsmgan(s * field, mask, SIZE, UP, generator=generator).chi for s in (1, -1))
    assert float((one + two)[mask].norm() / one[mask].norm()) < 0.15
