"""Laws of the reader's scores and of cut masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from qsm_nipype.core.dipole import dipole_field, dipole_kernel
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation import reader_scores as rs
from qsm_nipype.simulation.cut import cut_field, cut_mask
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

EDGES, B0 = (2.0, 2.0, 2.0), (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def known() -> dict[str, np.ndarray]:
    scan = simulate_subject(5, shape=(46, 56, 46), voxel_size=4.0, protocol=Protocol(snr=None))
    return {"truth": scan.truth.chi, "brain": scan.brain, "labels": scan.head.labels}


def _scores(chi: np.ndarray, mask: np.ndarray, known: dict[str, np.ndarray]) -> dict[str, float]:
    return dict(
        rs.reader_scores(
            chi, known["truth"], mask, known["brain"], known["labels"],
            voxel_size=(4.0,) * 3, b0_dir=B0,
        )
    )  # fmt: skip


def test_the_truth_is_perfect_whatever_its_reference(known) -> None:
    scores = _scores(known["truth"] + 0.2, known["brain"], known)
    assert scores["fixed_nrmse"] < 1e-3 and scores["kept"] == 100
    assert scores["nuclei.slope"] == pytest.approx(1) and abs(scores["nuclei.intercept"]) < 1e-6
    assert all(v < 1e-3 for n, v in scores.items() if n.startswith(("tissue", "depth")))
    assert scores["outside.ml_strong"] == 0


def test_a_smaller_mask_never_lowers_the_error_of_the_truth(known) -> None:
    errors = [
        _scores(known["truth"], cut_mask(known["brain"], n), known)["fixed_nrmse"]
        for n in (0, 1, 2, 4)
    ]
    assert errors == sorted(errors) and errors[-1] > 30
    nothing = np.zeros_like(known["brain"])
    assert rs.fixed_nrmse(known["truth"], known["truth"], nothing, known["brain"]) == 100


def test_half_the_contrast_is_half_the_slope_and_half_the_error(known) -> None:
    scores = _scores(known["truth"] / 2, known["brain"], known)
    assert scores["fixed_nrmse"] == pytest.approx(50)
    assert scores["nuclei.slope"] == pytest.approx(0.5)


def test_what_is_bright_beside_the_brain_is_measured_in_ml(known) -> None:
    mask, chi = known["brain"].copy(), known["truth"].copy()
    outside = np.argwhere(~known["brain"] & (known["labels"] == lab.BONE))[:20]
    for place in map(tuple, outside):
        mask[place], chi[place] = True, 1.0
    scores = _scores(chi, mask, known)
    assert scores["outside.ml_strong"] == pytest.approx(20 * 4.0**3 / 1000)
    assert scores["fixed_nrmse"] < 1e-3  # which the brain's voxels do not tell


def test_energy_at_the_cone_is_a_streak() -> None:
    rng = np.random.default_rng(0)
    chi = gaussian_filter(rng.standard_normal((48, 48, 48)), 1.0).astype(np.float32)
    mask = np.ones(chi.shape, bool)
    plain = rs.streaks(chi, mask, EDGES, B0)
    volume = torch.from_numpy(chi)
    kernel = dipole_kernel(chi.shape, EDGES, B0, volume)
    cone = torch.where(kernel.abs() < 0.04, 3.0, 1.0)
    streaked = torch.fft.irfftn(torch.fft.rfftn(volume) * cone, s=chi.shape).numpy()
    assert plain == pytest.approx(1, abs=0.2)
    assert rs.streaks(streaked, mask, EDGES, B0) == pytest.approx(9 * plain, rel=0.1)


def test_a_cut_field_keeps_the_sources_beyond_its_mask() -> None:
    scan = simulate_subject(5, shape=(30, 36, 30), voxel_size=6.0, protocol=Protocol(snr=None))
    field, mask = cut_field(scan, 2)
    assert mask.sum() < scan.brain.sum() and not (mask & ~scan.brain).any()
    assert not field[~mask].any()
    chi = torch.from_numpy(scan.truth.chi)
    whole = dipole_field(chi, scan.head.voxel_size, scan.head.b0_dir).numpy()
    np.testing.assert_allclose(field[mask], whole[mask], atol=1e-5)
    inner = torch.from_numpy(np.where(mask, scan.truth.chi, 0))
    own = dipole_field(inner, scan.head.voxel_size, scan.head.b0_dir).numpy()
    assert np.linalg.norm((field - own)[mask]) > 0.1 * np.linalg.norm(field[mask])
