"""The shipped mask weights: theirs, whole, and good on a head that they have never seen."""

import numpy as np
import pytest
import torch

from qsm_nipype.core.masking import combined_magnitude
from qsm_nipype.errors import WeightsError
from qsm_nipype.models import registry, weights
from qsm_nipype.models.mask import clean_mask, load_network, segment
from qsm_nipype.models.qsmgan import Generator
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject


@pytest.fixture(scope="module")
def network():
    return load_network(registry.read_weights("mask"))


@pytest.fixture(scope="module")
def scan():
    """A head of a seed, protocol and noise that no training used, 3 mm voxels."""
    protocol = Protocol(echo_times=(0.005, 0.015), snr=40.0, receive_bias=0.4)
    return simulate_subject(
        880_011, shape=(64, 76, 64), voxel_size=3.0, protocol=protocol, pathology=True
    )


@pytest.fixture(scope="module")
def mask(network, scan):
    magnitude = combined_magnitude(torch.from_numpy(scan.magnitude))
    return segment(magnitude, scan.head.voxel_size, *network)


def dice(one, two):
    return 2 * float((one & two).sum()) / float(one.sum() + two.sum())


def test_they_know_their_voxel_and_are_small(network):
    entry = registry.find("mask")
    assert network[1] == entry.voxel_size
    assert (weights.FOLDER / entry.file).stat().st_size < 15e6
    card = (weights.FOLDER / "mask.md").read_text()
    assert entry.checksum in card and "simulated" in card


def test_an_unseen_head_is_found(mask, scan):
    assert dice(mask, torch.from_numpy(scan.brain)) > 0.95


def test_one_part_without_holes(mask):
    assert torch.equal(clean_mask(mask), mask)


def test_left_and_right_are_alike_and_the_unit_does_not_matter(network, scan, mask):
    magnitude = 4000 * combined_magnitude(torch.from_numpy(scan.magnitude)).flip(0)
    assert dice(segment(magnitude, scan.head.voxel_size, *network).flip(0), mask) > 0.98


def test_one_changed_byte_is_noticed(tmp_path, monkeypatch):
    entry = registry.find("mask")
    data = bytearray((weights.FOLDER / entry.file).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / entry.file).write_bytes(bytes(data))
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="checksum"):
        registry.read_weights("mask")


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    weights.save(path, Generator(2, 2).state_dict(), {})
    with pytest.raises(WeightsError, match="another network"):
        load_network(registry.read_weights("mask", path))


def test_an_empty_image_gives_a_mask_of_finite_kind(network):
    found = segment(torch.zeros(20, 24, 20), (4.0, 4.0, 4.0), *network)
    assert found.dtype == torch.bool and found.shape == (20, 24, 20)
    assert np.isfinite(found.float().numpy()).all()
