"""Radiomics of lesions: which features, and what must not change them."""

import numpy as np
import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.models import radiomics

needed = pytest.mark.skipif(not radiomics.available(), reason="PyRadiomics is not installed")


def scene(seed=0):
    rng = np.random.default_rng(seed)
    chi = rng.normal(0, 0.03, (36, 34, 32)).astype(np.float32)
    instances = np.zeros(chi.shape, np.int32)
    instances[10:18, 12:19, 9:20] = 1
    instances[20:25, 20:27, 22:26] = 2
    return chi, instances


def test_what_is_missing_is_said_with_the_cure(monkeypatch):
    monkeypatch.setattr(radiomics, "available", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'qsm-nipype\[rim\]'"):
        radiomics.features(*scene(), (1, 1, 1))


@needed
def test_there_are_as_many_as_published():
    names = radiomics.feature_names()
    assert len(names) == 527 == len(set(names))


@needed
def test_padding_and_far_away_values_change_nothing():
    chi, instances = scene()
    first = radiomics.features(chi, instances, (1, 1, 1))
    chi[:2] = 5.0
    padded = [np.pad(v, ((3, 8), (5, 2), (4, 7)), constant_values=c)
              for v, c in ((chi, -3.0), (instances, 0))]  # fmt: skip
    moved = radiomics.features(*padded, (1, 1, 1))
    assert np.allclose(first, moved, rtol=1e-5, atol=1e-6)


@needed
def test_simple_features_are_what_they_say_in_ppb():
    chi, instances = scene()
    names = [
        "original_firstorder_Mean",
        "original_firstorder_Maximum",
        "original_shape_VoxelVolume",
        "original_firstorder_Entropy",
    ]
    table = radiomics.features(chi, instances, (1, 1, 2), names=names)
    inside = 1e3 * chi[instances == 1]
    _, counts = np.unique(np.floor(inside / 25), return_counts=True)
    p = counts / counts.sum()
    wanted = [inside.mean(), inside.max(), 2 * inside.size, -(p * np.log2(p)).sum()]
    assert np.allclose(table[0], wanted, rtol=1e-4)


@needed
def test_lesions_too_small_for_textures_have_finite_rows():
    chi, instances = scene()
    instances[1, 1, 1] = 3
    instances[5, 5, 1:4] = 4
    table = radiomics.features(chi, instances, (1, 1, 1), names=radiomics.feature_names()[:40])
    assert table.shape == (4, 40) and np.isfinite(table).all()
    assert (table[2] == 0).all()
    assert radiomics.features(chi, 0 * instances, (1, 1, 1)).shape == (0, 527)


@needed
def test_an_unknown_feature_is_named():
    with pytest.raises(UsageError, match="original_glcm_Nonsense"):
        radiomics.features(*scene(), (1, 1, 1), names=["original_glcm_Nonsense"])
