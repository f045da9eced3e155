"""Simulated sources: χ and field belong together, the seed decides, patches keep the physics."""

import numpy as np
import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.errors import UsageError
from qsm_nipype.models.training.qsmgan import Patches, make_cache
from qsm_nipype.models.training.sources import Sample, families, sample, smooth_noise

SHAPE = (40, 40, 40)


def _makers():
    axis = np.linspace(-1, 1, 40)
    r = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2)
    image = np.where(r < 0.8, 100 * (1.2 - r), 0).astype(np.float32)
    return families(image, (4 * r).astype(np.int16))


@pytest.mark.parametrize("family", range(4))
def test_field_belongs_to_chi_and_both_end_at_the_mask(family):
    volume = sample(*_makers()[family](np.random.default_rng(3), SHAPE))
    assert volume.chi.shape == SHAPE and volume.mask.any()
    assert np.isfinite(volume.field).all()
    assert np.abs(volume.chi[~volume.mask]).max(initial=0) == 0
    assert abs(volume.chi[volume.mask].mean()) < 1e-4
    field = dipole_field(torch.from_numpy(volume.chi), (1, 1, 1), (0, 0, 1)).numpy()
    assert np.allclose(volume.field[volume.mask], field[volume.mask], atol=1e-6)


def test_smooth_noise_is_normal_and_smooth():
    x = smooth_noise(np.random.default_rng(0), (48, 48, 48), 3.0)
    assert x.mean() == pytest.approx(0, abs=1e-4) and x.std() == pytest.approx(1, rel=1e-3)
    neighbour = np.corrcoef(x[:-3].ravel(), x[3:].ravel())[0, 1]
    assert neighbour == pytest.approx(np.exp(-(3.0**2) / (4 * 3.0**2)), abs=0.05)


def test_the_seed_decides_and_finished_volumes_are_kept(tmp_path):
    make_cache(tmp_path / "a", 2, seed=5, edge=24, report=lambda line: None)
    make_cache(tmp_path / "b", 2, seed=5, edge=24, report=lambda line: None)
    first, second = (Patches.load(tmp_path / d).volumes for d in "ab")
    assert all(np.array_equal(p.chi, q.chi) for p, q in zip(first, second, strict=True))
    before = (tmp_path / "a" / "volume-0000.npz").stat().st_mtime_ns
    make_cache(tmp_path / "a", 3, seed=5, edge=24, report=lambda line: None)
    assert (tmp_path / "a" / "volume-0000.npz").stat().st_mtime_ns == before
    assert len(Patches.load(tmp_path / "a").volumes) == 3


def test_augmentation_keeps_field_and_chi_a_dipole_pair():
    """A compact source explains its (noisy) field after any flip, exchange, gain and sign."""
    chi = np.zeros((48, 48, 48), np.float32)
    chi[21:26, 20:25, 22:28] = 0.3
    field = dipole_field(torch.from_numpy(chi), (1, 1, 1), (0, 0, 1), padding=1.0).numpy()
    mask = np.zeros(chi.shape, bool)
    mask[18:29, 17:28, 19:31] = True
    patches = Patches([Sample(chi, field, mask)])
    for seed in range(8):
        f, x, m = (t[0, 0] for t in patches.batch(np.random.default_rng(seed), 48, 1))
        if x.abs().sum() < 0.9 * 150 * 0.15:  # bitten off by the wrong mask
            continue
        expected = dipole_field(x, (1, 1, 1), (0, 0, 1), padding=1.0) * m
        both = torch.stack([f[m > 0], expected[m > 0]])
        assert torch.corrcoef(both)[0, 1] > 0.9


def test_validation_patches_have_the_noise_asked_for():
    chi = np.zeros((40, 40, 40), np.float32)
    patches = Patches([Sample(chi, chi, chi == 0)])
    f, _, m = patches.batch(np.random.default_rng(0), 32, 2, noise=0.002)
    assert f[m > 0].std().item() == pytest.approx(0.002, rel=0.03)


def test_an_empty_cache_says_how_to_fill_it(tmp_path):
    with pytest.raises(UsageError, match="--volumes"):
        Patches.load(tmp_path)
