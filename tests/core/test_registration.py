import numpy as np
import pytest

from qsm_nipype.core.registration import Rigid, resample, rigid
from qsm_nipype.simulation.head import rotation_matrix
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject


@pytest.fixture(scope="module")
def scan():
    protocol = Protocol(echo_times=(0.008,), contrasts=("T1w",))
    return simulate_subject(3, shape=(60, 72, 60), voxel_size=3.0, protocol=protocol)


def motion(angles, shift):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation_matrix(angles), shift
    return matrix


def largest_error(found, true, scan):
    """mm, over the brain."""
    index = np.argwhere(scan.brain)[::97]
    points = np.c_[index @ scan.affine[:3, :3].T + scan.affine[:3, 3], np.ones(len(index))]
    return np.linalg.norm((points @ (found - true).T)[:, :3], axis=1).max()


@pytest.mark.parametrize(
    ("angles", "shift"), [((4, -6, 9), (6, -8, 5)), ((0, 0, 0), (40, -30, 20))]
)
def test_a_known_motion_is_found_between_contrasts(scan, angles, shift):
    # The head moves between the two scans: what lies at x in the T1w now lies at M·x.
    true = motion(angles, shift)
    affine = true @ scan.affine
    found = rigid(scan.magnitude[..., 0], scan.affine, scan.extra["T1w"], affine)
    assert largest_error(found.matrix, true, scan) < 1.0  # a third of a voxel
    assert found.trusted and found.similarity > found.before


def test_registered_images_stay_and_other_axes_do_not_matter(scan):
    t1w = scan.extra["T1w"][::-1].transpose(2, 0, 1)  # stored as S, L, A
    turned = scan.affine[:, [2, 0, 1, 3]] * [1, -1, 1, 1]
    turned[:3, 3] = scan.affine[:3, 3] + scan.affine[:3, 0] * (t1w.shape[1] - 1)
    found = rigid(scan.magnitude[..., 0], scan.affine, t1w, turned)
    assert largest_error(found.matrix, np.eye(4), scan) < 0.6
    back = resample(t1w, turned, scan.brain.shape, scan.affine)
    assert np.allclose(back, scan.extra["T1w"], rtol=1e-4, atol=1e-4)


def test_images_of_nothing_common_are_not_trusted(scan):
    noise = np.random.default_rng(0).random((40, 40, 40))
    affine = scan.affine.copy()
    assert not rigid(scan.magnitude[..., 0], scan.affine, noise, affine).trusted


def test_labels_keep_their_values_and_type(scan):
    labels = scan.head.labels
    finer = scan.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    out = resample(labels, scan.affine, (120, 144, 120), finer, labels=True)
    assert out.dtype == labels.dtype and set(np.unique(out)) <= set(np.unique(labels))
    assert np.array_equal(out[::2, ::2, ::2], labels)
    moved = resample(
        labels, scan.affine, labels.shape, scan.affine, motion((0, 0, 0), (3, 0, 0)), labels=True
    )
    assert np.array_equal(moved[:-1], labels[1:])


def test_rotation_angle():
    assert Rigid(motion((0, 0, 30), (0, 0, 0)), 1.1, 1.0, 1.0).rotation == pytest.approx(30)
