"""Phase and magnitude that are not of one image, images that are no whole turn, copied slices."""

import numpy as np
import pytest
import torch

from qsm_nipype.core.reading.acquisition import read_acquisition
from qsm_nipype.core.reading.agreement import best_place
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.errors import DataError
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

TIMES = (0.006, 0.014, 0.022)
VOXEL = 4.0


@pytest.fixture(scope="module")
def head():
    """Phase (rad) and magnitude `(X, Y, Z, 3)` of a simulated head with air around it."""
    scan = simulate_subject(
        3, shape=(48, 57, 48), voxel_size=VOXEL, protocol=Protocol(echo_times=TIMES)
    )
    return scan.phase.astype(np.float32), (1000 * scan.magnitude).astype(np.float32)


def read(phase, magnitude, **sidecar):
    parts = {
        part: [
            StoredEcho(f"sub-01_echo-{e + 1}_part-{part}_MEGRE.nii",
                       np.ascontiguousarray(values[..., e]),
                       metadata={"EchoTime": TIMES[e], "MagneticFieldStrength": 3, **sidecar})
            for e in range(3)
        ]
        for part, values in (("phase", phase), ("magnitude", magnitude))
    }  # fmt: skip
    return read_acquisition(parts, (VOXEL,) * 3, (0, 0, 1)).record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p[::-1], "mirrored along axis 1"),
        (lambda p: p[:, ::-1], "mirrored along axis 2"),
        (lambda p: p[:, :, ::-1], "mirrored along axis 3"),
        (lambda p: np.roll(p, 3, 1), "moved by +12 mm along axis 2"),
        (lambda p: np.roll(p, -2, 0), "moved by -8 mm along axis 1"),
        (lambda p: p, ""),
    ],
)
def test_phase_beside_its_magnitude_is_an_error(head, change, words):
    phase, magnitude = head
    found = read(change(phase), magnitude)["errors"]
    assert len(found) == bool(words) and words in "".join(found)


def test_where_magnitude_tells_nothing_of_the_head_nothing_is_said(head):
    phase, magnitude = (torch.from_numpy(x[..., 0].copy()) for x in head)
    half = magnitude.clone()
    half[:24] = 0
    near_a_coil = magnitude * torch.exp(-torch.linspace(0, 4, 48))[:, None, None]
    for dark in (half, near_a_coil, torch.ones_like(magnitude)):
        place = best_place(phase, dark, (VOXEL,) * 3)
        assert place is None or not place.elsewhere


def test_signal_that_grows_is_a_warning(head):
    phase, magnitude = head
    assert not any("grows" in text for text in read(phase, magnitude)["warnings"])
    order = [0, 2, 1]
    found = read(phase[..., order], magnitude[..., order])["warnings"]
    assert any("grows by" in t and "from 14 to 22 ms" in t and "exchanged" in t for t in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: np.clip(p, -2.2, 2.2), "what lay beyond was cut off"),
        (lambda p: np.arctan(np.tan(p)), "says radians, of which that is no whole turn"),
        (np.abs, "says radians, of which that is no whole turn"),
        (lambda p: p[:, :, np.arange(48) // 2 * 2], "24 of 48 slices along axis 3 are copies"),
    ],
)
def test_what_is_no_whole_turn_or_no_whole_image_is_refused(head, change, words):
    phase, magnitude = head
    with pytest.raises(DataError, match=words) as caught:
        read(change(phase), magnitude, Units="rad")
    assert "\n" not in str(caught.value) and "echo-1" in str(caught.value)


def test_a_padded_slice_is_a_warning(head):
    phase, magnitude = head
    phase = phase.copy()
    phase[:, :, 47] = phase[:, :, 46]
    assert any(
        "1 of 48 slices along axis 3" in text for text in read(phase, magnitude)["warnings"]
    )
