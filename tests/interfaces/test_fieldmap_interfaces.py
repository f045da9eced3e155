"""The field-mapping chain on files: accuracy, geometry, real data."""

import itertools
import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.fieldmap import (
    MCPC3DS,
    LaplacianUnwrap,
    LinearFit,
    NonlinearFit,
    Romeo,
)

HERE = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("QSM_NIPYPE_TEST_DATA", HERE.parent / "shared" / "data"))
TIMES = [0.004, 0.011, 0.018, 0.025]
B0 = 3.0
AFFINE = np.diag([1.5, 1.8, 2.0, 1.0])


def head(shape=(30, 28, 26), snr=40.0, seed=0):
    """Complex echoes of a ball with a dipole-like field, and that field in ppm."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8
    r = np.sqrt((x - 0.1) ** 2 + (y - 0.9) ** 2 + (z + 0.2) ** 2) + 0.15
    field = 0.02 * (3 * ((z + 0.2) / r) ** 2 - 1) / r**3 + 0.1 * x
    offset = 1.2 * x - 0.8 * y * z + 0.4
    t = np.array(TIMES)
    phase = 2 * math.pi * GYROMAGNETIC_RATIO * B0 * field[..., None] * t + offset[..., None]
    noise = np.random.default_rng(seed).normal(size=(2, *shape, 4)) / snr
    s = inside[..., None] * np.exp(-30 * t + 1j * phase) + noise[0] + 1j * noise[1]
    return s, field, inside


def write(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return str(path)


def chain(folder, monkeypatch, s, affine=AFFINE, fit=LinearFit, unwrap=Romeo):
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    phase = write(folder / "phase.nii", np.angle(s), affine)
    same = {"in_magnitude": write(folder / "magnitude.nii", np.abs(s), affine)}
    same["echo_times"] = TIMES[: s.shape[3]]
    removed = MCPC3DS(in_phase=phase, **same).run().outputs
    unwrapped = unwrap(in_phase=removed.out_phase, **same).run().outputs
    fitted = fit(in_phase=unwrapped.out_unwrapped, b0=B0, **same).run().outputs
    return removed, unwrapped, fitted


def values(path):
    return nib.load(path).get_fdata()


@pytest.mark.parametrize("fit", [LinearFit, NonlinearFit])
def test_chain_measures_the_field(tmp_path, monkeypatch, fit):
    s, field, inside = head()
    _, unwrapped, fitted = chain(tmp_path, monkeypatch, s, fit=fit)
    error = (values(fitted.total_field) - field)[inside]
    assert np.linalg.norm(error) / np.linalg.norm(field[inside]) < 0.04
    assert values(fitted.reliability)[inside].mean() > 0.95
    assert np.isfinite(values(fitted.field_noise)).all()
    record = json.loads(Path(unwrapped.out_record).read_text())
    assert record["mode"] == "template" and record["inconsistency"]["template"] < 0.2
    assert "repaired_voxels" in json.loads(Path(fitted.out_record).read_text())
    quality = values(unwrapped.out_quality)
    assert quality.min() >= 0 and quality.max() <= 1
    assert values(unwrapped.out_mask)[inside].mean() > 0.99


def test_laplacian_interface_unwraps_the_smooth_part(tmp_path, monkeypatch):
    s, field, inside = head()
    _, unwrapped, _ = chain(tmp_path, monkeypatch, s, unwrap=LaplacianUnwrap)
    phase = values(unwrapped.out_unwrapped)[..., 1]
    truth = 2 * math.pi * GYROMAGNETIC_RATIO * B0 * field * TIMES[1]
    far = inside & (np.abs(field) < 0.15)
    error = (phase - truth)[far]
    assert np.percentile(np.abs(error - np.median(error)), 95) < 0.3


GEOMETRIES = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def stored(s, order, flips):
    """The same volume stored with permuted and flipped axes, and its affine."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, old in enumerate(order):
        turn[old, new] = flips[new]
        turn[old, 3] += 0 if flips[new] > 0 else s.shape[old] - 1
    moved = np.transpose(s, (*order, 3))
    step = tuple(slice(None, None, f) for f in flips)
    return np.ascontiguousarray(moved[step]), AFFINE @ turn


def restored(field, order, flips):
    step = tuple(slice(None, None, f) for f in flips)
    return np.transpose(field[step], np.argsort(order))


def test_all_48_ways_of_storing_give_one_field(tmp_path, monkeypatch):
    s, field, inside = head(shape=(21, 20, 18), snr=100)
    reference = None
    for number, (order, flips) in enumerate(GEOMETRIES):
        turned, affine = stored(s, order, flips)
        _, _, fitted = chain(tmp_path / str(number), monkeypatch, turned, affine)
        got = restored(values(fitted.total_field), order, flips)[inside]
        reference = got if reference is None else reference
        assert np.linalg.norm(got - reference) < 1e-3 * np.linalg.norm(reference), (order, flips)


def test_wrong_number_of_echo_times_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "p.nii", np.zeros((4, 4, 4, 2)))
    with pytest.raises(DataError, match="2 echoes for 3 echo times"):
        Romeo(in_phase=path, echo_times=[0.004, 0.008, 0.012]).run()


def test_magnitude_of_other_shape_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phase = write(tmp_path / "p.nii", np.zeros((4, 4, 4, 2)))
    magnitude = write(tmp_path / "m.nii", np.zeros((4, 4, 5, 2)))
    with pytest.raises(DataError, match="differs from the phase's"):
        LinearFit(in_phase=phase, in_magnitude=magnitude, echo_times=[4e-3, 8e-3], b0=3.0).run()


def test_no_wraps_are_left_in_real_data(tmp_path, monkeypatch):
    folder = DATA / "romeo_small"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set QSM_NIPYPE_TEST_DATA to the real data")
    phase = np.asarray(nib.load(folder / "Phase.nii").dataobj.get_unscaled())
    magnitude = nib.load(folder / "Mag.nii").get_fdata()
    s = magnitude * np.exp(1j * phase)
    _, unwrapped, fitted = chain(tmp_path, monkeypatch, s, nib.load(folder / "Mag.nii").affine)
    bright = magnitude[..., 2] > 0.3 * np.median(magnitude[..., 2])
    jumps = 0
    result = values(unwrapped.out_unwrapped)[..., 0]
    for axis in range(3):
        step = np.abs(np.diff(result, axis=axis))
        both = np.take(bright, range(1, bright.shape[axis]), axis)
        both &= np.take(bright, range(bright.shape[axis] - 1), axis)
        jumps += int((step[both] > math.pi).sum())
    assert jumps < 5e-4 * bright.sum()
    assert np.median(values(fitted.residual)[bright]) < 0.1


def test_the_record_of_the_offset_tells_of_an_alternating_readout(tmp_path, monkeypatch):
    s, _, _ = head()
    monkeypatch.chdir(tmp_path)
    turn = 1.2 * np.linspace(-1, 1, 30)[:, None, None, None] * np.array([1, -1, 1, -1])
    magnitude = write(tmp_path / "magnitude.nii", np.abs(s))
    for phase, alternates in ((np.angle(s), False), (np.angle(s * np.exp(1j * turn)), True)):
        node = MCPC3DS(
            in_phase=write(tmp_path / "phase.nii", phase),
            in_magnitude=magnitude,
            echo_times=TIMES,
        )
        record = json.loads(Path(node.run().outputs.out_record).read_text())
        assert record["parameters"] == {"bipolar": alternates}
        assert ["readout alternates" in w for w in record["notes"]] == [True] * alternates
        assert record["warnings"] == []
