"""A head's phase stored in every way that we know of, right and wrong: read right, or refused."""

import math

import numpy as np
import pytest

from qsm_nipype.core.phase import wrap
from qsm_nipype.core.reading.acquisition import read_acquisition
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.core.reading.units import parse_units
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

TIMES = (0.006, 0.020)
VOXEL = 4.0


class Head:
    """Phase (rad), magnitude `(X, Y, Z, 2)` and regions of a simulated head at 3 T."""

    def __init__(self):
        scan = simulate_subject(
            3, shape=(48, 57, 48), voxel_size=VOXEL, protocol=Protocol(echo_times=TIMES)
        )
        self.phase = scan.phase.astype(np.float32)
        self.magnitude = (1000 * scan.magnitude).astype(np.float32)
        self.signal = self.magnitude * np.exp(1j * self.phase)
        self.brain = scan.brain
        # a well-shimmed brain at short echo times: no wrap in it
        self.field = scan.truth.total.astype(np.float32)
        calm = 2 * math.pi * 42.577478 * 3 * self.field[..., None] * np.float32([0.0006, 0.0012])
        self.calm = np.where(self.brain[..., None], np.clip(calm, -2.5, 2.5), 0).astype(np.float32)
        steep = 2 * math.pi * 42.577478 * 3 * self.field[..., None] * np.float32(TIMES)
        self.unwrapped = np.where(self.brain[..., None], steep, 0).astype(np.float32)


@pytest.fixture(scope="module")
def head():
    return Head()


def integers(phase, turn, zero, low, high, dtype=np.int16):
    return np.rint(phase * turn / (2 * math.pi) + zero).clip(low, high).astype(dtype)


def masked(values, head, fill=0):
    return np.where(head.brain[..., None], values, np.asarray(fill, values.dtype))


def echoes(values, part, slope=1.0, intercept=0.0, times=TIMES, **sidecar):
    return [
        StoredEcho(
            f"sub-01_echo-{e + 1}_part-{part}_MEGRE.nii",
            np.ascontiguousarray(values[..., e]),
            slope,
            intercept,
            {"EchoTime": times[e], "MagneticFieldStrength": 3, **sidecar},
        )
        for e in range(values.shape[3])
    ]


def read(parts, **more):
    return read_acquisition(parts, (VOXEL,) * 3, (0, 0, 1), sign="positive", **more)


def siemens(p):
    return integers(p, 8192, 0, -4096, 4095)


def siemens_12(p):
    return integers(p, 4096, 2048, 0, 4095)


def philips(p):
    return integers(p, 4095, 2047.5, 0, 4095)


def ge(p):
    return np.rint(1000 * p).astype(np.int16)


#: name: (what is stored, of which phase, slope, intercept, sidecar, words of the decision)
RIGHT = {
    "radians": lambda h: (h.phase, {}, "radians"),
    "radians from zero": lambda h: (np.mod(h.phase, 2 * np.pi), {}, "radians"),
    "Siemens 12 bit": lambda h: (siemens_12(h.phase), {}, "12-bit 0…4095"),
    "Siemens 13 bit": lambda h: (siemens(h.phase), {}, "13-bit"),
    "Siemens slope 2": lambda h: (
        siemens_12(h.phase), {"slope": 2.0, "intercept": -4096.0}, "13-bit"),
    "Philips radians": lambda h: (
        philips(h.phase), {"slope": 2 * math.pi / 4095, "intercept": -math.pi}, "radians"),
    "Philips milliradians": lambda h: (
        philips(h.phase), {"slope": 1.53455, "intercept": -3142.0}, "milliradians"),
    "GE": lambda h: (ge(h.phase), {}, "milliradians"),
    "degrees": lambda h: (np.rint(np.degrees(h.phase)).astype(np.int16), {}, "degrees"),
    "8 bit": lambda h: (integers(h.phase, 256, 128, 0, 255, np.uint8), {}, "8-bit"),
    "6 bit": lambda h: (integers(h.phase, 64, 32, 0, 63, np.uint8), {}, "measured"),
    "16 bit": lambda h: (integers(h.phase, 65536, 0, -32768, 32767), {}, "16-bit"),
    "cycles": lambda h: (h.phase / np.float32(2 * np.pi), {}, "cycles"),
    "a scale that nobody knows": lambda h: (h.phase * np.float32(0.00117), {}, "measured"),
    "a header's slope that is wrong": lambda h: (h.phase, {"slope": 0.00117}, "slope is ignored"),
    "integers called radians": lambda h: (siemens(h.phase), {"Units": "rad"}, "13-bit"),
    "13 bit, signed as unsigned": lambda h: (siemens(h.phase).astype(np.uint16), {}, "13-bit"),
    "milliradians, signed as unsigned": lambda h: (
        ge(h.phase).astype(np.uint16), {}, "milliradians"),
    "12 bit, signed as unsigned": lambda h: (
        integers(h.phase, 4096, 0, -2048, 2047).astype(np.uint16).astype(np.float32), {},
        "12-bit −2048"),
    "12 bit, two's complement": lambda h: (
        integers(h.phase, 4096, 0, -2048, 2047).astype(np.uint16) & 4095, {}, "12-bit"),
    "masked, signed as unsigned": lambda h: (
        masked(siemens(h.phase), h).astype(np.uint16), {}, "13-bit"),
    "masked with zero": lambda h: (masked(h.phase, h), {}, "radians"),
    "masked with zero, 12 bit": lambda h: (masked(siemens_12(h.phase), h), {}, "12-bit"),
    "masked with phase zero, 12 bit": lambda h: (
        masked(siemens_12(h.phase), h, 2048), {}, "12-bit"),
    "masked with −π": lambda h: (masked(h.phase, h, -np.pi), {}, "radians"),
    "masked with π": lambda h: (masked(h.phase, h, np.pi), {}, "radians"),
    "masked with NaN": lambda h: (masked(h.phase, h, np.nan), {}, "radians"),
    "unwrapped radians": lambda h: (h.unwrapped, {"Units": "rad"}, "radians"),
    "unwrapped radians, stated": lambda h: (h.unwrapped, {"units": "rad"}, "radians"),
    "unwrapped radians, air quiet": lambda h: (
        np.where(h.brain[..., None], h.unwrapped, 0.1 * h.phase), {"Units": "rad"}, "radians"),
    "no wrap, radians": lambda h: (h.calm, {"Units": "rad"}, "radians"),
    "no wrap, stated as 13 bit": lambda h: (siemens(h.calm), {"units": "-4096..4095"}, "13-bit"),
    "no wrap, slope and intercept": lambda h: (
        philips(h.calm), {"slope": 1.53455, "intercept": -3142.0}, "milliradians"),
    "no wrap, Siemens": lambda h: (
        siemens(h.calm), {"Manufacturer": "Siemens"}, "13-bit"),
    "no wrap, stated as cycles": lambda h: (
        h.calm / np.float32(2 * np.pi), {"units": "cycles"}, "cycles"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_phase_is_read_right_however_it_is_stored(head, name):
    stored, more, words = RIGHT[name](head)
    calm = "no wrap" in name
    truth = head.calm if calm else head.unwrapped if "unwrapped" in name else head.phase
    units = more.pop("units", None)
    times = (0.0006, 0.0012) if calm else TIMES
    parts = {
        "phase": echoes(stored, "phase", times=times, **more),
        "magnitude": echoes(head.magnitude, "mag", times=times),
    }
    found = read(parts, units=units)
    assert words in found.record["decision"]
    where = head.brain
    apart = np.exp(1j * (found.phase.numpy() - truth))[where]
    apart *= np.conj(apart.mean()) / abs(apart.mean())  # another zero level changes nothing
    coarse = {"6 bit": 0.1, "8 bit": 0.026}.get(name, 0.01)
    assert np.abs(np.angle(apart)).max() < coarse


def exchanged(h):
    return {"phase": echoes(h.magnitude, "phase"), "magnitude": echoes(h.phase, "mag")}


def second_echo_exchanged(h):
    phase, magnitude = echoes(h.phase, "phase"), echoes(h.magnitude, "mag")
    return {"phase": [phase[0], magnitude[1]], "magnitude": [magnitude[0], phase[1]]}


def as_phase(values, **sidecar):
    return lambda h: {
        "phase": echoes(values(h), "phase", **sidecar), "magnitude": echoes(h.magnitude, "mag")
    }  # fmt: skip


def magnitude_again(h):
    return np.rint(1.3 * np.roll(h.magnitude, 1, axis=3)).astype(np.int16)


def high_pass(h, width=12):
    """The phase as for SWI: less that of the middle of k-space, slice by slice."""
    window = np.zeros(h.signal.shape[:2])
    middle = tuple(slice(n // 2 - width, n // 2 + width) for n in window.shape)
    window[middle] = np.outer(np.hanning(2 * width), np.hanning(2 * width))
    k = np.fft.fft2(h.signal, axes=(0, 1)) * np.fft.ifftshift(window)[..., None, None]
    return np.angle(h.signal * np.conj(np.fft.ifft2(k, axes=(0, 1)))).astype(np.float32)


def bright(h):
    return (h.magnitude > np.median(h.magnitude[h.brain], axis=0)).astype(np.uint8)


def changed(values, echo, value):
    values = values.copy()
    values[..., echo] = value
    return values


def two_parts(real, imaginary):
    return lambda h: {
        "real": echoes(real(h), "real"), "imaginary": echoes(imaginary(h), "imag")
    }  # fmt: skip


#: name: (parts of the head, what the sentence must say)
WRONG = {
    "parts exchanged": (exchanged, "exchange the names"),
    "parts of one echo exchanged": (second_echo_exchanged, "echo-2.*exchange the names"),
    "magnitude as phase": (as_phase(magnitude_again), "looks like a magnitude"),
    "magnitude as phase, Siemens": (
        as_phase(magnitude_again, Manufacturer="Siemens"), "looks like a magnitude"),
    "magnitude as phase, rad": (
        as_phase(lambda h: h.magnitude[..., ::-1] / 300, Units="rad"), "looks like a magnitude"),
    "masked magnitude as phase": (
        as_phase(lambda h: masked(magnitude_again(h), h), Manufacturer="Siemens"),
        "looks like a magnitude"),
    "the magnitude itself": (as_phase(lambda h: h.magnitude), "the same image as the"),
    "real part as phase": (
        as_phase(lambda h: h.signal.real.astype(np.float32)), "real or imaginary part"),
    "a mask": (as_phase(bright), "a mask or labels"),
    "phase twice": (
        as_phase(lambda h: np.repeat(h.phase[..., :1], 2, axis=3)), "echo-2.*same image"),
    "phase twice, stored otherwise": (
        lambda h: {"phase": [*echoes(siemens(h.phase), "phase")[:1],
                             *echoes(siemens(h.phase)[..., [0, 0]].astype(float) + 0.25,
                                     "phase")[1:]],
                   "magnitude": echoes(h.magnitude, "mag")}, "echo-2.*echo before"),
    "phase as both": (
        lambda h: {"phase": echoes(h.phase, "phase"),
                   "magnitude": echoes(2 * h.phase, "mag")}, "holds phase, not magnitude"),
    "filtered": (as_phase(high_pass), "high-pass filter"),
    "filtered, integers": (as_phase(lambda h: siemens(high_pass(h))), "high-pass filter"),
    "a local field": (
        as_phase(lambda h: h.calm * np.float32(0.1), Units="rad"), "high-pass filter"),
    "an unwrapped field map without unit": (
        as_phase(lambda h: h.unwrapped * 17), "--phase-units rad"),
    "no wrap and no unit": (as_phase(lambda h: h.calm), "--phase-units rad"),
    "integers without wrap or unit": (as_phase(lambda h: siemens(h.calm)), "--phase-units rad"),
    "echoes in two units": (
        as_phase(lambda h: h.phase * np.float32([1, 1000])), "export all echoes with the same"),
    "complex": (as_phase(lambda h: h.signal.astype(np.complex64)), "complex numbers"),
    "infinite": (
        as_phase(lambda h: np.where(h.brain[..., None], h.phase, np.inf)), "voxels are infinite"),
    "an echo of zeros": (as_phase(lambda h: changed(h.phase, 1, 0)), "echo-2.* is 0 everywhere"),
    "a magnitude of zeros": (
        lambda h: {"phase": echoes(h.phase, "phase"),
                   "magnitude": echoes(changed(h.magnitude, 1, 0), "mag")}, "echo-2.*above zero"),
    "a negative magnitude": (
        lambda h: {"phase": echoes(h.phase, "phase"),
                   "magnitude": echoes(h.unwrapped, "mag")}, "negative values"),
    "one echo missing": (
        lambda h: {"phase": echoes(h.phase[..., :1], "phase"),
                   "magnitude": echoes(h.magnitude, "mag")}, "1 phase volumes for 2 magnitude"),
    "magnitude as real part": (
        two_parts(lambda h: h.magnitude, lambda h: h.signal.imag), "never negative"),
    "phase as imaginary part": (
        two_parts(lambda h: h.signal.real, lambda h: h.phase), "holds phase, not the imaginary"),
    "real part twice": (
        two_parts(lambda h: h.signal.real, lambda h: h.signal.real), "same image as the real"),
    "parts scaled differently": (
        two_parts(lambda h: 3 * h.signal.real, lambda h: h.signal.imag), "scaling differs"),
    "parts without sign": (
        two_parts(lambda h: h.signal.real + 4096, lambda h: h.signal.imag + 4096), "no negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_the_phase_of_these_echoes_gets_one_sentence(head, name):
    make, words = WRONG[name]
    with pytest.raises(DataError, match=words) as caught:
        read(make(head))
    said = str(caught.value)
    assert "\n" not in said and ".nii" in said and ";" in said


@pytest.mark.parametrize(
    ("values", "units", "words"),
    [
        (lambda h: h.phase, "deg", "says degrees, but"),
        (lambda h: siemens(h.phase), "rad", r"says radians, but .* \[-4096, 4095\] is one turn"),
        (lambda h: siemens(h.calm), "rad", "differ by over half a turn"),
        (lambda h: h.calm * np.float32(0.001), "rad", "not a hundredth of a turn"),
        (lambda h: h.magnitude[..., ::-1] / 3, "0..4095", "looks like a magnitude"),
    ],
)
def test_a_stated_unit_is_held_against_the_data(head, values, units, words):
    with pytest.raises(DataError, match=words):
        read(as_phase(values)(head), units=units)


def test_exchanged_parts_stay_refused_whatever_is_stated(head):
    with pytest.raises(DataError, match="exchange the names"):
        read(exchanged(head), units="rad")


def test_a_stated_unit_lets_filtered_phase_pass_with_a_warning(head):
    record = read(as_phase(high_pass)(head), units="rad").record
    assert any("high-pass" in warning for warning in record["warnings"])


def test_an_unwrapped_difference_of_two_echoes_is_brought_back(head):
    sidecar = {"EchoTime1": TIMES[0], "EchoTime2": TIMES[1], "Units": "rad"}
    step = head.unwrapped[..., 1] - head.unwrapped[..., 0]
    parts = {
        "phase": [StoredEcho("sub-01_phasediff.nii", step, metadata=sidecar)],
        "magnitude": echoes(head.magnitude, "mag"),
    }
    found = read(parts)
    assert np.abs(step).max() > math.pi and any("unwrapped" in n for n in found.record["notes"])
    assert np.abs(wrap(found.phase[..., 0].numpy() - step)).max() < 1e-4


def test_alternating_slices_hide_no_turn(head):
    turned = head.signal * np.where(np.arange(48) % 2, -1, 1)[:, None]
    parts = {"phase": echoes(ge(np.angle(turned)), "phase"),
             "magnitude": echoes(head.magnitude, "mag")}  # fmt: skip
    found = read(parts)
    assert "milliradians" in found.record["decision"]
    assert np.abs(wrap(found.phase.numpy() - head.phase))[head.brain].max() < 0.01


@pytest.mark.parametrize(
    ("text", "turn"),
    [("rad", 2 * math.pi), ("Degrees", 360), ("mrad", 2000 * math.pi), ("turns", 1)]
    + [("-4096..4095", 8192), ("0..4095", 4096), ("−3142..3142", 2000 * math.pi), ("0..5", 5)],
)
def test_units_are_words_or_ranges(text, turn):
    assert parse_units(text).turn == pytest.approx(turn)


@pytest.mark.parametrize("text", ["", "gauss", "4095", "5..-5", "a..b"])
def test_what_is_no_unit_is_said(text):
    with pytest.raises(UsageError, match="give rad, mrad, deg, cycles"):
        parse_units(text)
