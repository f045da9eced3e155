"""Quality numbers of maps whose values are known."""

import numpy as np
import pytest

from qsm_nipype.core.quality import reference_number, trimming, volume_numbers


def test_numbers_of_a_known_block():
    mask = np.zeros((10, 10, 10))
    mask[:5] = 1
    inner = mask.copy()
    inner[4:] = 0
    residual = np.where(np.arange(10)[None, None] < 2, 0.5, 0.1) * np.ones_like(mask)
    chi = np.linspace(-0.1, 0.1, 1000).reshape(10, 10, 10)
    maps = {"mask": mask, "mask_chi": inner, "noise": mask * 2e-3, "residual": residual}
    found = volume_numbers({**maps, "chi": chi, "r2star": mask * 20}, (2.0, 1.0, 1.0))
    values = {name: number["value"] for name, number in found.items()}
    assert values["mask_volume"] == pytest.approx(1.0)
    assert values["mask_kept"] == pytest.approx(80)
    assert values["field_noise"] == pytest.approx(2)
    assert values["residual"] == pytest.approx(0.1)
    assert values["unreliable_fraction"] == pytest.approx(20)
    assert values["chi_sd"] == pytest.approx(chi[:4].std())
    assert values["r2star"] == 20


def test_without_a_mask_there_are_no_numbers_and_an_empty_one_has_no_volume():
    assert volume_numbers({"chi": np.zeros((2, 2, 2))}, (1, 1, 1)) == {}
    empty = np.zeros((2, 2, 2))
    assert volume_numbers({"mask": empty, "noise": empty}, (1, 1, 1)).keys() == {"mask_volume"}


def test_reference_keeps_mean_and_spread():
    number = reference_number("csf", 0.01, 0.02)
    assert (number["value"], number["sd"], number["unit"]) == (0.01, 0.02, "ppm")


def test_trimming_is_measured_on_the_mask_before_it():
    whole = np.zeros((10, 10, 10), bool)
    whole[:8] = True
    reliability = np.where(np.arange(10) < 3, 0.2, 0.9) * np.ones((10, 10, 10))
    numbers, warnings = trimming(whole, whole & (reliability > 0.5), reliability)
    assert numbers["mask_reliable"]["value"] == pytest.approx(70)
    assert numbers["unreliable_fraction"]["value"] == pytest.approx(30)
    assert not warnings
    kept = whole & (np.arange(10) < 4)
    assert trimming(whole, kept, reliability)[1][0].startswith("trimming left only 40 %")
    assert trimming(whole & False, kept, reliability)[0]["mask_reliable"]["value"] == 0
