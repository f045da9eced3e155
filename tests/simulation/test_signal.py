"""Laws of the simulated acquisition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.contrast import t1w
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.head import Head, grid_affine
from qsm_nipype.simulation.shapes import ellipsoid
from qsm_nipype.simulation.signal import Fields, Protocol, Scan, acquire, fields, harmonic_fit
from qsm_nipype.simulation.subject import random_protocol, simulate_subject
from qsm_nipype.simulation.tissue import AIR_CHI, PROPERTIES, Tissue, tissue_maps

SHAPE = (46, 56, 46)


@pytest.fixture(scope="module")
def head() -> Head:
    return heads.procedural(7, SHAPE, 4.0)


@pytest.fixture(scope="module")
def noiseless(head: Head) -> Scan:
    return simulate_subject(7, head=head, protocol=Protocol(snr=None))


@pytest.fixture(scope="module")
def truth(head: Head) -> Fields:
    chi = tissue_maps(head, np.random.default_rng(0)).chi
    return fields(head, chi)


def _sphere(radius: float, inside: float, outside: float) -> tuple[Head, np.ndarray, np.ndarray]:
    n = 64
    axis = np.arange(n) - (n - 1) / 2
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    chi = np.where(r < radius, inside, outside).astype(np.float32)
    whole = Head(np.zeros((n,) * 3, np.uint8), r < 28, grid_affine((n,) * 3, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        dipole = (inside - outside) / 3 * (radius / r) ** 3 * (3 * (z / r) ** 2 - 1)
    return whole, chi, np.where(r < radius, 0.0, dipole)


def test_same_seed_same_bytes_other_seed_other_noise() -> None:
    a, b, c = (simulate_subject(s, shape=(24, 30, 24), voxel_size=7.5) for s in (1, 1, 2))
    assert a.phase.tobytes() == b.phase.tobytes()
    assert a.magnitude.tobytes() == b.magnitude.tobytes()
    assert not np.array_equal(a.phase, c.phase)


def test_phase_is_wrapped_and_everything_is_finite(noiseless: Scan) -> None:
    assert noiseless.phase.shape == (*SHAPE, 4)
    assert np.abs(noiseless.phase).max() <= math.pi + 1e-5
    for array in (noiseless.phase, noiseless.magnitude, noiseless.truth.total):
        assert np.isfinite(array).all()
    assert (noiseless.magnitude >= 0).all()


def test_noiseless_phase_evolves_with_the_field(noiseless: Scan) -> None:
    protocol, water = noiseless.protocol, noiseless.brain & (noiseless.tissue.fat == 0)
    omega = 2 * math.pi * GYROMAGNETIC_RATIO * protocol.b0
    step = protocol.echo_times[1] - protocol.echo_times[0]
    measured = noiseless.phase[..., 1] - noiseless.phase[..., 0]
    difference = np.angle(np.exp(1j * (measured - omega * step * noiseless.truth.total)))
    strong = water & (noiseless.magnitude[..., 1] > 1e-4)
    assert np.abs(difference[strong]).max() < 2e-3


def test_total_is_local_plus_background_minus_shim(truth: Fields) -> None:
    np.testing.assert_allclose(truth.total, truth.local + truth.background - truth.shim, atol=1e-5)


def test_true_chi_has_no_mean_and_lives_in_the_brain(head: Head, truth: Fields) -> None:
    assert abs(float(truth.chi[head.brain].mean())) < 1e-5
    assert not truth.chi[~head.brain].any()


def test_background_is_harmonic_deep_inside_the_brain() -> None:
    whole, chi, _ = _sphere(6.0, 0.0, 0.0)
    x = np.indices(chi.shape)[0]
    chi[x > 60] = AIR_CHI  # a slab of air outside the brain
    background = fields(whole, chi, shim=0).background.astype(np.float64)
    laplacian = -6 * background
    for axis in range(3):
        laplacian += np.roll(background, 1, axis) + np.roll(background, -1, axis)
    deep = np.zeros(chi.shape, bool)
    deep[22:42, 22:42, 22:42] = True
    assert np.abs(laplacian[deep]).max() < 0.01 * np.abs(background[deep]).max()


def test_sphere_in_the_forward_model_has_the_analytic_field() -> None:
    whole, chi, expected = _sphere(8.0, 1.0, 0.0)
    whole = replace(whole, brain=np.ones_like(whole.brain))
    total = fields(whole, chi + AIR_CHI, shim=0)
    field = total.local + total.background
    field -= field[0, 0, 0] - expected[0, 0, 0]
    r = np.linalg.norm(np.indices(chi.shape).reshape(3, -1).T - 31.5, axis=1).reshape(chi.shape)
    shell = (r > 10) & (r < 22)
    error = np.sqrt(np.mean((field - expected)[shell] ** 2))
    assert error < 0.05 * np.sqrt(np.mean(expected[shell] ** 2))


def _cavity(angles: tuple[float, float, float]) -> tuple[Head, np.ndarray]:
    """A ball of water with an air cavity in its front, seen by a turned grid."""
    shape = (48, 48, 48)
    affine = grid_affine(shape, (3.0, 3.0, 4.0), angles=angles, center=(0, 0, 0))
    points = grid_points(shape, affine)
    # edges are partial volumes, so that the staircase of voxels makes no field of its own
    water = np.clip(0.5 - ellipsoid(points, (0, 0, 0), (45, 45, 45)) / 6, 0, 1)
    water *= np.clip(0.5 + ellipsoid(points, (0, 28, -12), (12, 12, 12)) / 6, 0, 1)
    chi = (AIR_CHI * (1 - water)).astype(np.float32)
    brain = ellipsoid(points, (0, 0, 0), (40, 40, 40)) < 0
    return Head(np.zeros(shape, np.uint8), brain & (water > 0.999), affine), chi


def test_tilting_the_grid_does_not_change_the_physics() -> None:
    """The field at the same scanner points is the same, however the slab is turned."""
    probes = np.random.default_rng(0).uniform(-15, 15, (200, 3)) + (0, -5, 5)
    seen = []
    for angles in ((0.0, 0.0, 0.0), (25.0, 0.0, 0.0), (-20.0, 15.0, 30.0)):
        head, chi = _cavity(angles)
        total = fields(head, chi, shim=0).total
        index = (np.linalg.inv(head.affine) @ np.c_[probes, np.ones(200)].T)[:3]
        values = map_coordinates(total, index, order=1)
        seen.append(values - values.mean())
    for other in seen[1:]:
        assert np.linalg.norm(other - seen[0]) < 0.08 * np.linalg.norm(seen[0])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_shim_removes_the_harmonics_up_to_its_order(head: Head, order: int) -> None:
    x, y, z = (np.indices(SHAPE, dtype=np.float32) - np.array(SHAPE).reshape(3, 1, 1, 1) / 2) / 30
    terms = [0 * x + 3.0, 2 * x - y, x * y + (z**2 - x**2)]
    field = sum(terms[: order + 1])
    residual = (field - harmonic_fit(field, head, order))[head.brain]
    assert np.abs(residual).max() < 1e-3
    rough = field + 0.3 * x**2 * z
    left = (rough - harmonic_fit(rough, head, order))[head.brain]
    assert left.std() <= rough[head.brain].std() + 1e-6


def test_dephasing_takes_signal_only_where_the_field_is_steep(head: Head) -> None:
    tissue = tissue_maps(head, np.random.default_rng(1))
    scans = [
        acquire(head, tissue, Protocol(snr=None, dephasing=on), np.random.default_rng(2))
        for on in (True, False)
    ]
    ratio = scans[0].magnitude[..., 3] / np.maximum(scans[1].magnitude[..., 3], 1e-9)
    assert ratio.max() < 1 + 1e-5
    slope = np.sqrt(sum(g**2 for g in np.gradient(scans[0].truth.total)))
    flat, steep = head.brain & (slope < 0.01), head.brain & (slope > 0.12)
    assert ratio[flat].min() > 0.97
    assert ratio[steep].mean() < 0.6


def test_noise_has_the_chosen_snr_in_white_matter(head: Head) -> None:
    tissue = tissue_maps(head, np.random.default_rng(1))
    clean, noisy = (
        acquire(head, tissue, Protocol(snr=snr), np.random.default_rng(2)) for snr in (None, 25.0)
    )
    white = head.labels == lab.WHITE_MATTER
    a, b = (s.magnitude[..., 0] * np.exp(1j * s.phase[..., 0]) for s in (clean, noisy))
    sigma = float((b - a)[white].real.std())
    assert abs(float(np.abs(a[white]).mean()) / sigma - 25) < 1.0


def test_bipolar_phase_alternates_and_coils_come_last(head: Head) -> None:
    tissue = tissue_maps(head, np.random.default_rng(1))
    base = Protocol(snr=None, echo_times=(0.004, 0.008, 0.012), dephasing=False)
    plain = acquire(head, tissue, base, np.random.default_rng(0))
    bipolar = acquire(head, tissue, replace(base, bipolar=1.0), np.random.default_rng(0))
    turn = np.exp(1j * (bipolar.phase - plain.phase))[head.brain]
    np.testing.assert_allclose(turn[:, 0], turn[:, 2], atol=1e-3)
    np.testing.assert_allclose(turn[:, 0], turn[:, 1].conj(), atol=1e-3)
    coils = acquire(head, tissue, replace(base, coils=3), np.random.default_rng(0))
    assert coils.phase.shape == (*SHAPE, 3, 3)
    difference = coils.phase[..., 1, :] - coils.phase[..., 0, :]
    evolution = np.exp(1j * difference)[head.brain]
    np.testing.assert_allclose(evolution[:, 0], evolution[:, 2], atol=1e-3)


@pytest.mark.parametrize("label", [lab.HAEMORRHAGE, lab.CALCIFICATION])
def test_the_stronger_a_bleed_or_calcification_the_faster_its_decay(label: int) -> None:
    labels = np.full((8, 8, 8), label, np.uint8)
    head = Head(labels, labels > 0, grid_affine(labels.shape, 1.0))
    own = PROPERTIES[label][0]
    rates = []
    for strength in (0.25, 0.5, 1.0, 1.5, 2.0):
        offset = np.full(labels.shape, (strength - 1) * own, np.float32)
        varied = replace(head, chi_offset=offset)
        tissue = tissue_maps(varied, np.random.default_rng(0), texture=0.0)
        assert tissue.chi.mean() == pytest.approx(strength * own, rel=1e-4)
        rates.append(float(tissue.r2star.mean()))
    assert rates[2] == pytest.approx(PROPERTIES[label][3], rel=1e-4)
    assert rates == sorted(rates)
    assert rates[4] - rates[2] == pytest.approx(100 * abs(own), rel=1e-3)


def test_t1w_of_tissue_that_never_relaxes_is_dark() -> None:
    ones = np.ones((6, 6, 6), np.float32)
    labels = np.full(ones.shape, lab.WHITE_MATTER, np.uint8)
    head = Head(labels, labels > 0, grid_affine(ones.shape, 1.0))
    slow = Tissue(0 * ones, ones, 0 * ones, 0 * ones, 0 * ones, 0 * ones)
    image = t1w(head, slow, np.random.default_rng(0), snr=1e6)
    assert np.abs(image).max() < 1e-4


def test_random_protocols_are_possible_and_reproducible() -> None:
    for seed in range(40):
        protocol = random_protocol(np.random.default_rng(seed))
        assert protocol == random_protocol(np.random.default_rng(seed))
        times = np.array(protocol.echo_times)
        assert (np.diff(times) > 0).all() and times[0] > 0
        assert times[-1] < protocol.repetition_time


def test_field_strength_scales_phase_not_field(head: Head, noiseless: Scan) -> None:
    strong = simulate_subject(7, head=head, protocol=Protocol(snr=None, b0=7.0))
    np.testing.assert_array_equal(strong.truth.total, noiseless.truth.total)
    inside = head.brain & (noiseless.magnitude[..., 3] > 0.3 * noiseless.magnitude[..., 0])
    decay = [
        s.magnitude[..., 3][inside] / s.magnitude[..., 0][inside] for s in (strong, noiseless)
    ]
    assert decay[0].mean() < decay[1].mean()


def test_field_agrees_with_qsm_forward(head: Head) -> None:
    forward = pytest.importorskip("qsm_forward")
    chi = tissue_maps(head, np.random.default_rng(0)).chi
    own = fields(head, chi, shim=0)
    theirs = forward.generate_field(own.chi, voxel_size=head.voxel_size, B0_dir=(0, 0, 1))
    a, b = own.local[head.brain], np.asarray(theirs)[head.brain]
    a, b = a - a.mean(), b - b.mean()
    assert np.linalg.norm(a - b) / np.linalg.norm(b) < 0.03
