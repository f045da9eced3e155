"""Every way in which scanners store phase, each on data that show it."""

import json
import math

import numpy as np
import pytest
import torch

from qsm_nipype.core.phase import wrap
from qsm_nipype.core.reading.parts import from_parts
from qsm_nipype.core.reading.phase import read_phase
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.errors import DataError

SHAPE = (24, 22, 20)


def truth(echoes=2, seed=0):
    """Wrapped phase (rad): a smooth head in noise, which spans a whole turn."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    out = []
    for e in range(echoes):
        phase = np.broadcast_to(1.5 * (e + 1) * x, SHAPE).copy()
        phase[:, :6] = rng.uniform(-math.pi, math.pi, (24, 6, 20))
        out.append(wrap(phase.astype(np.float32)))
    return out


def smooth(reach):
    """A smooth phase (rad) from −reach to reach, without noise and without wraps."""
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    y = np.linspace(-1, 1, SHAPE[1])[None, :, None]
    return np.broadcast_to(reach * x * np.cos(y), SHAPE).astype(np.float32).copy()


def difference(reading, phases):
    return max(float(np.abs(wrap(reading.phase[..., e] - p)).max()) for e, p in enumerate(phases))


def stored(arrays, slope=1.0, intercept=0.0, **sidecar):
    return [
        StoredEcho(f"echo-{e + 1}.nii", a, slope, intercept, sidecar) for e, a in enumerate(arrays)
    ]


@pytest.mark.parametrize(
    ("turn", "zero", "low", "high", "word"),
    [
        (4096, 2048, 0, 4095, "Siemens"),
        (8192, 0, -4096, 4095, "Siemens"),
        (2000 * math.pi, 0, -3142, 3142, "GE"),
        (2000 * math.pi, 1000 * math.pi, 0, 6283, "milliradians"),
        (4096, 0, -2048, 2047, "12-bit"),
        (65536, 32768, 0, 65535, "16-bit"),
        (360, 0, -180, 180, "degrees"),
        (256, 128, 0, 255, "8-bit"),
    ],
)
def test_integer_ranges(turn, zero, low, high, word):
    phases = truth()
    raw = [
        np.clip(np.rint(p * turn / (2 * math.pi) + zero), low, high).astype(int) for p in phases
    ]
    reading = read_phase(stored(raw, Units="arbitrary"))
    assert word in reading.record["decision"]
    assert difference(reading, phases) < 2 * 2 * math.pi / turn + 1e-3


def test_philips_slope_and_intercept():
    phases = truth()
    slope, intercept = 2 * math.pi / 4095, -math.pi
    raw = [np.rint((p - intercept) / slope).astype(np.int16) for p in phases]
    reading = read_phase(stored(raw, slope, intercept, Units="rad"))
    assert reading.record["decision"] == "radians"
    assert difference(reading, phases) < 2e-3


def test_philips_milliradian_intercept():
    phases = truth()
    raw = [np.rint((p * 1000 + 3142) / 1.53455).astype(np.int16) for p in phases]
    reading = read_phase(stored(raw, 1.53455, -3142.0, Units="arbitrary"))
    assert "milliradians" in reading.record["decision"]
    assert difference(reading, phases) < 3e-3


def test_siemens_slope_two():
    phases = truth()
    raw = [np.rint((p / math.pi * 4096 + 4096) / 2).clip(0, 4095).astype(np.int16) for p in phases]
    reading = read_phase(stored(raw, 2.0, -4096.0))
    assert "Siemens" in reading.record["decision"]
    assert difference(reading, phases) < 2e-3


@pytest.mark.parametrize("shift", [0.0, math.pi])
def test_radians_signed_or_from_zero(shift):
    phases = truth()
    reading = read_phase(stored([p + np.float32(shift) for p in phases]))
    assert reading.record["decision"] == "radians"
    assert difference(reading, [p + np.float32(shift) for p in phases]) < 1e-5


def test_bogus_slope_is_ignored():
    phases = truth()
    reading = read_phase(stored(phases, 0.00116959))
    assert "slope is ignored" in reading.record["decision"] and reading.record["warnings"]
    assert difference(reading, phases) < 1e-6


def test_joint_scaling_never_per_echo():
    # the first echo spans less than a turn: scaled on its own it would be stretched
    phases = truth(3)
    phases[0] = smooth(0.4)
    reading = read_phase(stored([p * np.float32(0.00117) for p in phases]))
    assert reading.record["decision"] == "one turn as measured" and reading.record["warnings"]
    assert difference(reading, phases) < 0.01


def test_an_echo_beyond_pi_next_to_one_that_spans_a_turn_is_radians():
    phases = truth()
    phases[0] = smooth(6.0)
    reading = read_phase(stored(phases))
    assert reading.record["decision"] == "radians"
    assert "beyond one turn" in reading.record["notes"][0]
    assert difference(reading, phases) < 1e-5


def test_echoes_in_different_units_are_refused():
    good = truth()
    for other in (good[1] * 1000, smooth(1.0) * 1000, smooth(0.02)):
        with pytest.raises(DataError, match="export all echoes with the same scaling"):
            read_phase(stored([good[0], other]))


def test_wrong_units_in_the_sidecar_are_noticed():
    phases = truth()
    raw = [np.rint(p / math.pi * 4096).clip(-4096, 4095).astype(np.int16) for p in phases]
    reading = read_phase(stored(raw, Units="rad"))
    assert "Siemens" in reading.record["decision"]
    assert any("Units: rad" in w for w in reading.record["warnings"])
    assert difference(reading, phases) < 2e-3


def test_maker_decides_where_the_range_is_not_filled():
    phases = [smooth(1.0), smooth(2.0)]
    raw = [np.rint(p / math.pi * 4096).astype(np.int16) for p in phases]
    reading = read_phase(stored(raw, Manufacturer="Siemens Healthineers"))
    assert "13-bit" in reading.record["decision"] and reading.record["warnings"]
    assert difference(reading, phases) < 2e-3


def test_philips_fill_is_no_signal_and_takes_part_in_nothing():
    phases = truth()
    air = np.zeros(SHAPE, bool)
    air[:, 12:] = True
    raw = [np.rint((p + math.pi) / (2 * math.pi) * 4095).astype(np.int16) for p in phases]
    for r in raw:
        r[air] = 0
    reading = read_phase(stored(raw, 2 * math.pi / 4095, -math.pi, Units="rad"))
    assert not reading.signal[air].any() and (reading.phase[air] == 0).all()
    assert reading.record["fill_value"] == 0.0
    assert reading.signal[~air].mean() > 0.999


def test_nan_is_no_signal():
    phases = truth()
    phases[1][3:5] = np.nan
    reading = read_phase(stored(phases))
    assert np.isfinite(reading.phase).all()
    assert not reading.signal[3:5].any() and reading.signal[5:].all()
    assert reading.record["voxels_without_signal"] == 2 * 22 * 20


def test_no_value_is_made_up_at_zero_and_pi():
    phases = truth()
    phases[0][4, 8, 4:8] = [0.0, math.pi, -math.pi, 0.0]
    reading = read_phase(stored(phases, Units="rad"))
    np.testing.assert_allclose(reading.phase[4, 8, 4:8, 0], [0, math.pi, -math.pi, 0], atol=1e-6)
    np.testing.assert_array_equal(read_phase(stored(phases, Units="rad")).phase, reading.phase)


def test_record_is_json():
    record = read_phase(stored(truth(), Units="rad")).record
    assert json.loads(json.dumps(record)) == record
    assert {"decision", "reason", "warnings"} <= set(record)


def test_real_and_imaginary_parts():
    phase = truth(1)[0]
    magnitude = np.linspace(1, 2, phase.size, dtype=np.float32).reshape(SHAPE)
    got_phase, got_magnitude = from_parts(magnitude * np.cos(phase), magnitude * np.sin(phase))
    np.testing.assert_allclose(np.cos(got_phase - phase), 1, atol=1e-5)
    np.testing.assert_allclose(got_magnitude, magnitude, rtol=1e-5)
    with pytest.raises(DataError, match="no negative values"):
        from_parts(np.abs(magnitude), np.abs(magnitude))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p[:, :, 0], "is not a 3-D volume"),
        (lambda p: p[:-1], "differs from"),
        (lambda p: np.full_like(p, np.nan), "no voxel has a finite phase"),
        (lambda p: np.full_like(p, 2.0), "the phase is 2 everywhere"),
    ],
)
def test_bad_phase_gets_one_sentence(change, words):
    good, bad = truth()
    with pytest.raises(DataError, match=words) as caught:
        read_phase(stored([good, change(bad)]))
    assert "echo-2.nii" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("low", "scale"), [(-1.0, 1.0), (0.0, 0.5)])
def test_shares_of_a_turn_that_are_called_radians_are_noticed(low, scale):
    phases = truth()
    raw = [((p / math.pi + 1) * scale + low).astype(np.float32) for p in phases]
    reading = read_phase(stored(raw, Units="rad"))
    assert reading.record["decision"] in ("half turns −1…1", "cycles 0…1")
    assert any("Units: rad" in w for w in reading.record["warnings"])
    assert difference(reading, phases) < 0.02


def test_radians_that_end_at_one_in_a_few_voxels_stay_radians():
    # a field map: most of it small, a sinus at either end
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    field = np.broadcast_to(x**9, SHAPE).astype(np.float32).copy()
    field[[0, -1], 1:] *= 0.6
    field[1:-1] *= np.linspace(0.8, 1, SHAPE[1], dtype=np.float32)[:, None]
    assert field.min() == -1 and field.max() == 1
    for values in (field, np.abs(field), field[..., ::-1] * np.float32(0.5)):
        reading = read_phase(stored([values], Units="rad"))
        assert reading.record["decision"] == "radians" and not reading.record["warnings"]
        assert difference(reading, [values]) < 1e-6


def test_wrap_takes_whole_turns_of_arrays_and_tensors_alike():
    phase = np.linspace(-20, 20, 401)
    found = wrap(phase)
    assert np.abs(found).max() <= math.pi * (1 + 1e-12)
    assert np.allclose(np.exp(1j * found), np.exp(1j * phase))
    assert np.array_equal(wrap(torch.from_numpy(phase)).numpy(), found)
