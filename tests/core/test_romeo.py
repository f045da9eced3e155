"""The unwrapping engine: edge costs, growth, voxel quality."""

import math

import numpy as np
import pytest

from qsm_nipype.core import romeo

EMPTY = np.zeros(0, np.float32)
ONE = np.float32(1)


def grown(phase, mask=None, magnitude=None):
    shape = phase.shape
    keep = np.ones(phase.size, bool) if mask is None else mask.reshape(-1)
    flat = phase.astype(np.float32).reshape(-1).copy()
    signal = EMPTY if magnitude is None else magnitude.astype(np.float32).reshape(-1)
    costs = romeo.edge_costs(flat, EMPTY, ONE, signal, ONE, keep, shape)
    label = romeo.grow(flat, costs, keep, shape)
    return flat.reshape(shape), label.reshape(shape), costs


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_published_literal(axis):
    shape = [1, 1, 1]
    shape[axis] = 4
    phase = np.array([0.1, 0.2 + 2 * math.pi, 0.3, 0.4]).reshape(shape)
    result, _, _ = grown(phase)
    result -= 2 * math.pi * np.round(result.ravel()[0] / (2 * math.pi))  # the seed keeps its turn
    np.testing.assert_allclose(result.ravel(), [0.1, 0.2, 0.3, 0.4], atol=1e-5)


def test_unwrapping_inverts_wrapping_up_to_one_constant():
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 21, 18)], indexing="ij")
    truth = 12 * np.exp(-2 * (x**2 + y**2 + z**2)) + 5 * x - 4 * y * z
    wrapped = np.angle(np.exp(1j * truth))
    result, _, _ = grown(wrapped)
    error = result - truth
    assert np.ptp(error) < 1e-4
    assert abs(error.mean() / (2 * math.pi) - round(error.mean() / (2 * math.pi))) < 1e-4


def test_costs_are_worst_where_phase_jumps_and_zero_outside_the_mask():
    phase = np.zeros((4, 4, 4), np.float32)
    phase[2:] = math.pi  # a jump between planes 1 and 2
    mask = np.ones((4, 4, 4), bool)
    mask[:, :, 3] = False
    _, label, costs = grown(phase, mask)
    costs = costs.reshape(4, 4, 4, 3)
    assert costs[1, :, :3, 0].min() > costs[0, :, :3, 0].max()
    assert (costs[:, :, 2:, 2] == 0).all() and (costs[:, :, 3] == 0).all()
    assert (costs[3, :, :, 0] == 0).all()  # the border has no next neighbour
    assert (label[:, :, 3] == 0).all() and (label[:, :, :3] == 1).all()


def test_weak_signal_costs_more():
    rng = np.random.default_rng(0)
    phase = 0.05 * rng.normal(size=(8, 8, 8))
    magnitude = np.ones((8, 8, 8))
    magnitude[4:] = 0.1
    _, _, costs = grown(phase, magnitude=magnitude)
    costs = costs.reshape(8, 8, 8, 3)[..., 1].astype(float)
    assert np.median(costs[5:7, :-1]) > np.median(costs[1:3, :-1]) + 10


def test_disconnected_parts_become_regions():
    mask = np.ones((9, 5, 5), bool)
    mask[4] = False
    _, label, _ = grown(np.zeros((9, 5, 5)), mask)
    assert set(np.unique(label)) == {0, 1, 2}
    assert label[:4].min() == label[:4].max() != label[5:].min() == label[5:].max()


def test_path_goes_round_a_noisy_wall():
    # a ramp of many turns, cut by a wall of noise with a gap: only good edges may carry turns
    rng = np.random.default_rng(1)
    truth = np.broadcast_to(np.linspace(0, 25, 40)[:, None, None], (40, 20, 6)).copy()
    noisy = np.zeros(truth.shape, bool)
    noisy[18:22, :15] = True
    phase = truth + np.where(noisy, rng.uniform(-3, 3, truth.shape), 0)
    magnitude = np.where(noisy, 0.05, 1.0)
    result, _, _ = grown(np.angle(np.exp(1j * phase)), magnitude=magnitude)
    error = (result - truth)[~noisy]
    assert np.ptp(error) < 1e-3


def test_quality_tells_noise_from_signal_and_stays_in_unit_range():
    rng = np.random.default_rng(2)
    phase = np.zeros((16, 16, 16), np.float32)
    phase[8:] = rng.uniform(-math.pi, math.pi, (8, 16, 16))
    keep = np.ones(phase.size, bool)
    quality = romeo.voxel_quality(phase.ravel(), EMPTY, ONE, EMPTY, ONE, keep, phase.shape)
    quality = quality.reshape(phase.shape)
    assert quality.min() >= 0 and quality.max() <= 1
    assert quality[2:6, 2:-2, 2:-2].min() > 0.9
    assert quality[10:14, 2:-2, 2:-2].max() < 0.7


def test_quality_is_the_mean_of_the_edge_qualities():
    rng = np.random.default_rng(3)
    phase = rng.uniform(-2, 2, (5, 6, 4)).astype(np.float32)
    keep = np.ones(phase.size, bool)
    _, _, costs = grown(phase)
    quality = romeo.voxel_quality(phase.ravel(), EMPTY, ONE, EMPTY, ONE, keep, phase.shape)
    edges = 1 - costs.reshape(5, 6, 4, 3) / 255.0
    for axis in range(3):
        edges[..., axis].swapaxes(0, axis)[-1] = 0
    total = edges.sum(-1)
    for axis in range(3):
        moved = np.zeros_like(total)
        moved.swapaxes(0, axis)[1:] = edges[..., axis].swapaxes(0, axis)[:-1]
        total += moved
    np.testing.assert_allclose(quality.reshape(5, 6, 4), total / 6, atol=0.004)
