"""Simulated sources: χ and field belong together, the seed decides, patches keep the physics."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.errors import UsageError
from qsm_nipype.training.qsmgan_data import Patches, background_rest, disturbed, make_cache
from qsm_nipype.training.sources import Sample, families, sample, smooth_noise

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
    one = make_cache(tmp_path / "a", 2, seed=5, edge=24)
    two = make_cache(tmp_path / "b", 2, seed=5, edge=24, workers=2)
    first, second = (Patches.load(paths).volumes for paths in (one, two))
    assert all(np.array_equal(p.chi, q.chi) for p, q in zip(first, second, strict=True))
    before = (tmp_path / "a" / "volume-0000.npz").stat().st_mtime_ns
    assert len(make_cache(tmp_path / "a", 3, seed=5, edge=24)) == 3
    for other in ({"seed": 6, "edge": 24}, {"seed": 5, "edge": 24, "held_out": 1}):
        with pytest.raises(UsageError, match="give another --cache"):
            make_cache(tmp_path / "a", 3, **other)
    assert (tmp_path / "a" / "volume-0000.npz").stat().st_mtime_ns == before
    assert len(list((tmp_path / "a").glob("*.npz"))) == 3


def _source():
    chi = np.zeros((48, 48, 48), np.float32)
    chi[21:26, 20:25, 22:28] = 0.3
    field = dipole_field(torch.from_numpy(chi), (1, 1, 1), (0, 0, 1), padding=1.0).numpy()
    mask = np.zeros(chi.shape, bool)
    mask[18:29, 17:28, 19:31] = True
    return Sample(chi, field * mask, mask)


def _alike(a, b, mask):
    return float(torch.corrcoef(torch.stack([a[mask], b[mask]]))[0, 1])


def test_flips_and_exchange_keep_field_guess_and_chi_together():
    volume = disturbed(np.random.default_rng(0), _source(), noise=0.002)
    patches = Patches([volume])
    for seed in range(8):
        field, guesses, chi, mask = (p[0] for p in patches.batch(_rng(seed), 48, 1))
        field, chi, mask = field[0], chi[0], mask[0]
        inside = mask > 0
        expected = dipole_field(chi, (1, 1, 1), (0, 0, 1), padding=1.0)
        assert _alike(field, expected, inside) > 0.9
        assert all(_alike(guess, chi, inside) > 0.7 for guess in guesses)


def _rng(seed):
    return np.random.default_rng(seed)


def test_disturbed_volumes_have_noise_gain_and_wrong_masks():
    source = _source()
    clean = Sample(source.chi, source.field, np.ones_like(source.mask))
    gains, holes = [], 0
    for seed in range(12):
        volume = disturbed(_rng(seed), clean)
        kept = volume.mask & (clean.chi > 0.2)
        gains.append(float(volume.chi[kept].mean()) / 0.3 if kept.any() else np.nan)
        holes += bool((clean.mask & ~volume.mask).any())
        assert not (volume.mask & ~clean.mask).any()
        assert np.abs(volume.field[~volume.mask]).max(initial=0) == 0
    sizes = np.abs(np.array(gains))[~np.isnan(gains)]
    assert sizes.min() > 0.49 and sizes.max() < 2.01 and sizes.max() > 1.3 * sizes.min()
    assert holes > 0


def test_held_out_volumes_have_the_noise_asked_for():
    chi = np.zeros((40, 40, 40), np.float32)
    volume = disturbed(_rng(0), Sample(chi, chi, chi == 0), noise=0.002)
    assert volume.field.std() == pytest.approx(0.002, rel=0.03)


def test_the_rest_of_the_background_is_harmonic_and_as_large_as_stated():
    volume = sample(*_makers()[0](_rng(3), SHAPE))
    rest = background_rest(_rng(1), volume.field, volume.mask)
    deep = ndimage.binary_erosion(volume.mask, iterations=3)
    rms = [np.square(x[volume.mask]).mean() ** 0.5 for x in (rest, volume.field)]
    assert 0.05 <= rms[0] / rms[1] <= 0.4

    def curvature(x):
        return np.square(ndimage.laplace(x)[deep]).mean() / np.square(x[deep]).mean()

    assert curvature(rest) < 0.05 * curvature(volume.field)
    assert not background_rest(_rng(1), volume.field, np.ones_like(volume.mask)).any()
