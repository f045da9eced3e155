"""Laws of the realistic scanner's effects."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.errors import UsageError
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.command import main
from qsm_nipype.simulation.head import Head, grid_affine
from qsm_nipype.simulation.scanner import (
    fat,
    finer,
    flow,
    frequency,
    kspace,
    noise,
    receive,
    storage,
)
from qsm_nipype.simulation.scanner.acquire import acquire_realistic
from qsm_nipype.simulation.scanner.effects import EFFECTS, chosen
from qsm_nipype.simulation.scanner.surroundings import with_surroundings
from qsm_nipype.simulation.signal import Protocol, Scan, acquire
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.simulation.tissue import Tissue, tissue_maps

SHAPE = (46, 56, 46)


@pytest.fixture(scope="module")
def head() -> Head:
    return heads.procedural(7, SHAPE, 4.0)


@pytest.fixture(scope="module")
def tissue(head: Head) -> Tissue:
    return tissue_maps(head, np.random.default_rng(1))


def _scan(head: Head, tissue: Tissue, *effects: str, **known) -> Scan:
    protocol = Protocol(effects=effects, **known)
    return acquire_realistic(head, tissue, protocol, np.random.default_rng(2))


def _complex(scan: Scan) -> np.ndarray:
    return scan.magnitude * np.exp(1j * scan.phase)


@pytest.mark.parametrize("snr", [None, 40.0])
def test_without_effects_it_is_the_clean_scanner(head: Head, tissue: Tissue, snr) -> None:
    clean = acquire(head, tissue, Protocol(snr=snr), np.random.default_rng(2))
    off = _scan(head, tissue, snr=snr)
    np.testing.assert_allclose(_complex(off), _complex(clean), atol=1e-6)


@pytest.mark.parametrize("effect", [e for e in EFFECTS if e not in ("finer", "surroundings")])
def test_every_effect_changes_the_echoes_alike_each_time(
    head: Head, tissue: Tissue, effect: str
) -> None:
    protocol = Protocol(effects=(effect,), b0=7.0)
    one, two = (
        acquire_realistic(head, tissue, protocol, np.random.default_rng(2)) for _ in range(2)
    )
    clean = acquire(head, tissue, replace(protocol, effects=()), np.random.default_rng(2))
    assert one.phase.tobytes() == two.phase.tobytes()
    assert np.isfinite(one.phase).all() and np.isfinite(one.magnitude).all()
    change = np.abs(_complex(one) - _complex(clean))
    assert change.max() > 1e-4 * clean.magnitude.max()


def test_switching_an_effect_off_leaves_the_others_as_they_were(
    head: Head, tissue: Tissue
) -> None:
    """Their generators are their own: phase poles stay where they are."""
    inside = head.brain & (tissue.m0 > 0.4)
    ratio = [
        _complex(_scan(head, tissue, *more, "poles", snr=None))[inside, 0]
        / _complex(_scan(head, tissue, *more, snr=None))[inside, 0]
        for more in ((), ("transmit",))
    ]
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-3)


def test_names_choose_effects_and_unknown_ones_are_refused() -> None:
    assert chosen() == ()
    assert chosen("realistic") == tuple(EFFECTS)
    assert "fat" not in chosen("realistic", without=("fat",))
    assert chosen("clean", ("storage", "fat")) == ("fat", "storage")
    with pytest.raises(UsageError, match="smoke"):
        chosen("realistic", ("smoke",))


def test_uncombined_coils_are_refused(head: Head, tissue: Tissue) -> None:
    with pytest.raises(ValueError, match="coils"):
        _scan(head, tissue, "fat", coils=2)


# ---- each effect ------------------------------------------------------------------------------


def test_fat_moves_along_the_readout_and_keeps_its_signal() -> None:
    image = torch.zeros(32, 8, 8, dtype=torch.complex64)
    image[10:14, 3, 3] = 1
    moved = fat.shifted(image, -2.0)
    torch.testing.assert_close(moved, image.roll(-2, 0), atol=1e-5, rtol=0)
    assert fat.displacement(3.0) == pytest.approx(-1.086, abs=1e-3)
    part = fat.shifted(image, fat.displacement(3.0))
    assert float(part.abs().square().sum()) == pytest.approx(4, rel=1e-4)


def test_the_spectrum_of_fat_starts_as_one_and_turns_at_its_main_peak() -> None:
    assert fat.fat_factor(0.0, 3.0) == pytest.approx(1, abs=1e-6)
    opposed = 0.5 / (3.4 * GYROMAGNETIC_RATIO * 3.0)
    assert fat.fat_factor(opposed, 3.0).real < -0.5


def test_averaging_a_split_head_gives_it_back(head: Head, tissue: Tissue) -> None:
    twice = finer.split(head)
    again = finer.whole_head(twice)
    np.testing.assert_array_equal(again.labels, head.labels)
    np.testing.assert_array_equal(again.brain, head.brain)
    np.testing.assert_allclose(again.affine, head.affine, atol=1e-9)
    np.testing.assert_allclose(np.array(twice.voxel_size) * 2, head.voxel_size)
    same = grid_affine(SHAPE, 4.0)
    np.testing.assert_allclose(
        finer.half_voxels(same), grid_affine([2 * n for n in SHAPE], 2.0), atol=1e-9
    )


def test_the_truth_of_a_finer_head_is_on_whole_voxels() -> None:
    scan = simulate_subject(
        3, shape=(22, 28, 22), voxel_size=8.0, protocol=Protocol(effects=("finer",))
    )
    assert scan.phase.shape == (22, 28, 22, 4) and scan.truth.chi.shape == scan.brain.shape
    assert scan.head.voxel_size == pytest.approx((8.0,) * 3)
    assert abs(float(scan.truth.chi[scan.brain].mean())) < 1e-6
    assert not scan.truth.chi[~scan.brain].any()
    total = scan.truth.local + scan.truth.background - scan.truth.shim
    np.testing.assert_allclose(scan.truth.total, total, atol=1e-5)


def test_the_surroundings_leave_the_brain_alone(head: Head) -> None:
    other = with_surroundings(head, np.random.default_rng(0))
    np.testing.assert_array_equal(other.brain, head.brain)
    tissue = head.brain & ~np.isin(head.labels, (lab.CSF,))
    np.testing.assert_array_equal(other.labels[tissue], head.labels[tissue])
    for label in (lab.DURA, lab.ARTERY):
        assert (other.labels == label).any()
    opened = (other.labels == lab.SINUS_AIR) & (head.labels != lab.SINUS_AIR)
    assert opened.any()
    # dura and mucosa stay between an opening and the brain
    assert not (opened & ndimage.binary_dilation(head.brain)).any()


def test_an_isotropic_tensor_would_make_the_dipole_field(head: Head) -> None:
    """Fibres along B0 everywhere: χ is 2/3 Δχ along, and b·χ·k has only that part."""
    ball = np.zeros(SHAPE, bool)
    ball[18:28, 22:34, 18:28] = True
    direction = np.zeros((3, *SHAPE), np.float32)
    direction[2, ball] = 1
    found = frequency.anisotropic_field(head, direction, difference=0.3)
    source = torch.from_numpy(np.where(ball, 0.2, 0).astype(np.float32))
    expected = dipole_field(source, head.voxel_size, head.b0_dir, padding=0.2).numpy()
    off = (found - found.mean()) - (expected - expected.mean())
    assert np.abs(off).max() < 1e-3 * np.abs(expected).max()


def test_microstructure_has_its_size_in_white_matter_alone(head: Head) -> None:
    direction = frequency.fibres(head, np.random.default_rng(0))
    made = frequency.microstructure(direction)
    white = head.brain & (head.labels == lab.WHITE_MATTER)
    assert made[white].std() == pytest.approx(0.003, rel=1e-3)
    assert abs(made[white].mean()) < 1e-6 and not made[~white].any()
    across = direction[2] ** 2 < 0.05
    assert (made[white & across] < 0).all()  # fibres across B0 precess slowest


def test_flow_grows_with_each_readout_and_stands_still_elsewhere(head: Head) -> None:
    velocity = flow.readout_velocity(head, np.random.default_rng(0))
    phases = [flow.flow_phase(velocity, n, head, 4.0) for n in range(3)]
    np.testing.assert_allclose(phases[2] - phases[1], phases[1] - phases[0], atol=1e-6)
    assert not phases[2][~np.isin(head.labels, (lab.VEIN, lab.ARTERY))].any()
    assert np.abs(velocity).max() > 30


def test_laminar_flow_loses_signal_as_the_mean_over_its_speeds() -> None:
    speeds = np.linspace(0.5, 1.5, 2001)
    for phase in (0.0, 0.3, 4.7, 16.0):
        expected = abs(np.exp(1j * phase * speeds).mean())
        assert flow.dephasing(np.array(phase)) == pytest.approx(expected, abs=1e-3)


def test_the_transmit_field_varies_more_at_7_t(head: Head) -> None:
    low, high = (
        receive.transmit_field(head, b0, np.random.default_rng(0))[head.brain] for b0 in (3, 7)
    )
    assert 0.02 < low.std() < 0.12 and high.std() > 2 * low.std()
    assert abs(high.mean() - 1) < 0.25


def test_the_phase_turns_once_around_a_pole(head: Head) -> None:
    factor = receive.poles(head, np.random.default_rng(0)).numpy()
    angle = np.angle(factor[..., SHAPE[2] // 2])
    along = [np.angle(np.exp(1j * np.diff(angle, axis=a))) for a in (0, 1)]
    around = along[0][:, :-1] + along[1][1:] - along[0][:, 1:] - along[1][:-1]
    turns = np.round(around / (2 * math.pi)).astype(int)
    assert (np.abs(turns) == 1).any()
    assert np.abs(factor).min() < 0.6 and np.abs(factor).max() <= 1.0 + 1e-6


def test_the_g_factor_doubles_noise_in_the_middle_and_keeps_its_mean(head: Head) -> None:
    white = head.labels == lab.WHITE_MATTER
    g = noise.g_factor(head, white)
    assert g.max() / g.min() == pytest.approx(2, rel=0.02)
    assert np.sqrt(np.mean(g[white] ** 2)) == pytest.approx(1, rel=1e-5)


def test_filtered_noise_keeps_the_snr_and_correlates(head: Head, tissue: Tissue) -> None:
    added = []
    for effects in ((), ("kspace",)):
        noisy, clean = (_complex(_scan(head, tissue, *effects, snr=s)) for s in (20.0, None))
        added.append((noisy - clean)[..., 0])
    assert added[1].real.std() == pytest.approx(added[0].real.std(), rel=0.1)
    neighbours = [np.corrcoef(x.real[:, 1:].ravel(), x.real[:, :-1].ravel())[0, 1] for x in added]
    assert abs(neighbours[0]) < 0.02 and neighbours[1] > 0.1


def test_the_window_is_an_ellipse_cut_on_one_side() -> None:
    part = torch.fft.fftshift(kspace.window((32, 40, 36)))
    assert float(part[16, 20, 18]) == pytest.approx(1)
    assert not part[16, 0].any() and not part[16, :, 0].any()  # zero filling
    assert not part[16, 5, 4].any() and not part[16, -5, 4].any()  # corners
    assert not part[16, 20 - 16, 18].any() and part[16, 20 + 16, 18] > 0  # partial Fourier


@pytest.mark.parametrize("effect", ["breathing", "drift", "motion"])
def test_errors_of_lines_keep_the_energy_of_a_still_object(head: Head, effect: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(SHAPE, dtype=torch.complex64, generator=generator)
    image = kspace.filtered(image, kspace.window(SHAPE))
    rngs = {e: np.random.default_rng(5) for e in EFFECTS}
    lines = kspace.lines_of(head, (effect,), 1, rngs)
    found = kspace.acquired(image, lines, 0, 0.02, 3.0)
    assert float((found - image).norm()) > 0.01 * float(image.norm())
    assert float(found.norm()) == pytest.approx(float(image.norm()), rel=0.03)
    still = kspace.acquired(image, kspace.Lines(), 0, 0.02, 3.0)
    assert still is image


def test_breathing_is_about_one_hertz_in_the_middle(head: Head) -> None:
    rngs = {"breathing": np.random.default_rng(0)}
    lines = kspace.lines_of(head, ("breathing",), 1, rngs)
    assert lines.breath is not None and lines.weight is not None
    hertz = float(lines.weight[SHAPE[2] // 2]) * GYROMAGNETIC_RATIO * 3
    assert 0.6 < hertz < 1.6 and float(lines.breath.max()) <= 1
    assert float(lines.weight[0]) > 2 * float(lines.weight[-1])  # nearer to the lungs


def test_a_shear_is_a_shift_line_by_line() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(16, 12, 10, dtype=torch.complex64, generator=generator)
    moved = kspace._shear(image, 0, 1, 1.0, 0.5)
    for y in range(12):
        step = round(y - 5.5 + 0.5)
        torch.testing.assert_close(moved[:, y], image[:, y].roll(step, 0), atol=1e-5, rtol=0)


def test_stored_integers_read_back_as_the_phase() -> None:
    phase = np.linspace(-np.pi, np.pi, 5001, dtype=np.float32)
    reads = {
        storage.siemens: lambda s: s.values * np.pi / 4096,
        storage.ge: lambda s: s.values / 1000,
        storage.philips: lambda s: s.values * s.slope + s.intercept,
    }
    for store, read in reads.items():
        kept = store(phase)
        off = np.angle(np.exp(1j * (read(kept) - phase)))
        assert kept.values.dtype == np.int16 and np.abs(off).max() <= 1.01 * np.pi / 2048
    assert len(np.unique(storage.twelve_bits(phase))) == 4096
    magnitude = np.random.default_rng(0).uniform(0, 7, (9, 9, 9, 2)).astype(np.float32)
    kept = magnitude < 6.9  # what lies above the 99.95th percentile is cut off
    off = np.abs(storage.twelve_bit_magnitude(magnitude) - magnitude)
    assert off[kept].max() <= 3.51 / 4095


@pytest.mark.slow
def test_all_effects_together_make_a_scan() -> None:
    protocol = Protocol(effects=chosen("realistic"), contrasts=("T1w",))
    scan = simulate_subject(3, shape=(30, 36, 30), voxel_size=6.0, protocol=protocol)
    assert scan.phase.shape == (30, 36, 30, 4) and np.isfinite(scan.phase).all()
    assert scan.extra["T1w"].shape == scan.brain.shape


def test_the_command_writes_what_a_scanner_with_these_effects_stores(tmp_path: Path) -> None:
    options = ["--voxel-size", "8", "--effects", "fat", "storage", "--phase", "philips"]
    assert main([str(tmp_path / "bids"), *options]) == 0
    image = nib.load(tmp_path / "bids/sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz")
    assert image.get_data_dtype() == np.int16
    phase = np.asarray(image.dataobj)
    assert -np.pi - 1e-3 < phase.min() < -2 and 2 < phase.max() < np.pi + 1e-3
    assert (tmp_path / "bids/derivatives/truth/sub-01/anat/sub-01_Chimap.nii.gz").exists()
