"""ReadPhase on files: vendors' quirks, real data, and one sentence for each bad input."""

import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.phase import ReadPhase

HERE = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("QSM_NIPYPE_TEST_DATA", HERE.parent / "shared" / "data"))
SHAPE = (20, 18, 16)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def real_data(name):
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set QSM_NIPYPE_TEST_DATA to the real data")
    return folder


def read(tmp_path, monkeypatch, **inputs):
    monkeypatch.chdir(tmp_path)
    outputs = ReadPhase(**inputs).run().outputs
    record = json.loads(Path(outputs.out_record).read_text())
    phase = nib.load(outputs.out_phase).get_fdata()
    magnitude = nib.load(outputs.out_magnitude).get_fdata()
    return phase, magnitude, record, outputs


def write(path, data, affine=AFFINE):
    image = nib.Nifti1Image(data, affine)
    nib.save(image, path)
    return str(path)


def signal(echoes=2, seed=0):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-4, 4, SHAPE[0])[:, None, None, None] * np.arange(1, echoes + 1)
    noise = rng.normal(size=(2, *SHAPE, echoes)) * 0.05
    inside = np.zeros(SHAPE)
    inside[3:-3, 3:-3, 3:-3] = 1
    return (inside[..., None] * np.exp(1j * ramp) + noise[0] + 1j * noise[1]).astype(np.complex64)


def files(tmp_path, s, scale=4096 / math.pi):
    phase, magnitude = [], []
    for e in range(s.shape[3]):
        raw = np.rint(np.angle(s[..., e]) * scale).clip(-4096, 4095).astype(np.int16)
        phase.append(write(tmp_path / f"phase{e}.nii.gz", raw))
        magnitude.append(write(tmp_path / f"mag{e}.nii.gz", np.abs(s[..., e]).astype(np.float32)))
    return phase, magnitude


def apart(a, b):
    return np.abs(np.angle(np.exp(1j * (a - b)))).max()


def test_echoes_in_files_or_in_one_file_are_the_same(tmp_path, monkeypatch):
    s = signal()
    phase, magnitude = files(tmp_path, s)
    metadata = [{"EchoTime": 0.004}, {"EchoTime": 0.008}]
    one, mag, record, outputs = read(
        tmp_path, monkeypatch, phase_files=phase, magnitude_files=magnitude, metadata=metadata
    )
    assert one.shape == (*SHAPE, 2) and apart(one, np.angle(s)) < 2e-3
    np.testing.assert_allclose(mag, np.abs(s), rtol=1e-5)
    assert "Siemens" in record["decision"]
    stack = np.stack([nib.load(p).get_fdata() for p in phase], axis=-1).astype(np.int16)
    whole = write(tmp_path / "all.nii", stack)
    mags = write(tmp_path / "mags.nii", np.abs(s).astype(np.float32))
    other, _, _, _ = read(tmp_path, monkeypatch, phase_files=[whole], magnitude_files=[mags])
    np.testing.assert_array_equal(one, other)


def test_the_sidecar_of_a_file_holds_for_all_echoes_in_it(tmp_path, monkeypatch):
    s = signal()
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None, None]
    y = np.linspace(-1, 1, SHAPE[1])[:, None, None]
    phase = np.broadcast_to(x * np.cos(y) * np.array([1.0, 2.0]), s.shape)
    # no turn is spanned: only the sidecar tells that these are radians
    four = write(tmp_path / "p.nii.gz", phase.astype(np.float32))
    magnitude = write(tmp_path / "m.nii.gz", np.abs(s).astype(np.float32))
    sidecar = {"Units": "rad", "EchoTime": [0.004, 0.008]}
    found, _, record, outputs = read(
        tmp_path,
        monkeypatch,
        phase_files=[four],
        magnitude_files=[magnitude],
        metadata=[sidecar],
        sign="positive",
    )
    assert record["decision"] == "radians" and record["units_in_sidecar"] == ["rad"]
    np.testing.assert_allclose(found, phase, atol=1e-5)


def test_real_and_imaginary_files(tmp_path, monkeypatch):
    s = signal()
    real = write(tmp_path / "real.nii", s.real.copy())
    imaginary = write(tmp_path / "imag.nii", s.imag.copy())
    phase, magnitude, record, _ = read(
        tmp_path, monkeypatch, real_files=[real], imaginary_files=[imaginary]
    )
    assert apart(phase, np.angle(s)) < 1e-5 and record["decision"] == "real and imaginary parts"
    np.testing.assert_allclose(magnitude, np.abs(s), rtol=1e-5)


def test_alternating_slices_are_undone(tmp_path, monkeypatch):
    s = signal()
    turned = s.copy()
    turned[:, :, 1::2] *= -1
    phase, magnitude = files(tmp_path, turned)
    got, _, record, _ = read(tmp_path, monkeypatch, phase_files=phase, magnitude_files=magnitude)
    assert record["alternating_slices_axis"] == [2] and record["warnings"]
    assert apart(got, np.angle(s)) < 2e-3


def test_sign_can_be_forced(tmp_path, monkeypatch):
    s = signal()
    phase, magnitude = files(tmp_path, s)
    got, _, record, _ = read(
        tmp_path, monkeypatch, phase_files=phase, magnitude_files=magnitude, sign="negative"
    )
    assert record["sign_inverted"] and apart(got, -np.angle(s)) < 2e-3


def test_coils_are_combined(tmp_path, monkeypatch):
    s = signal()
    turns = [(1.0, 0.3), (1.1, 2.0), (0.9, -1.5)]
    coils = np.stack([g * s * np.exp(1j * a) for g, a in turns], axis=-1).reshape(*SHAPE, 6)
    phase = write(tmp_path / "p.nii", np.angle(coils).astype(np.float32))
    magnitude = write(tmp_path / "m.nii", np.abs(coils).astype(np.float32))
    got, mag, record, outputs = read(
        tmp_path, monkeypatch, phase_files=[phase], magnitude_files=[magnitude], coils=3,
        metadata=[{"EchoTime": t} for t in (4e-3,) * 3 + (8e-3,) * 3],
    )  # fmt: skip
    assert got.shape == (*SHAPE, 2) and record["coils"] == 3
    inside = (slice(4, -4),) * 3
    step = got[inside][..., 1] - got[inside][..., 0]
    assert apart(step, np.angle(s[inside][..., 1] * s[inside][..., 0].conj())) < 0.05
    assert mag[inside].min() > 1.2  # √3 times one coil: nothing cancels


def test_philips(tmp_path, monkeypatch):
    folder = real_data("bids_philips") / "sub-01" / "anat"
    phase, mag, record, _ = read(
        tmp_path, monkeypatch,
        phase_files=sorted(map(str, folder.glob("*phase*.nii.gz"))),
        magnitude_files=sorted(map(str, folder.glob("*mag*.nii.gz"))),
        metadata=[json.loads(p.read_text()) for p in sorted(folder.glob("*phase*.json"))],
    )  # fmt: skip
    assert record["decision"] == "radians" and record["fill_value"] == 0
    assert record["voxels_without_signal"] > 0.5 * phase[..., 0].size
    assert record["sign_agreement"] > 0.4 and not record["sign_inverted"]
    assert not record["warnings"]
    assert np.abs(phase).max() <= math.pi + 1e-6 and (mag[phase == 0] == 0).mean() > 0.99


def test_romeo_small_has_a_bogus_slope(tmp_path, monkeypatch):
    folder = real_data("romeo_small")
    phase, _, record, _ = read(
        tmp_path, monkeypatch,
        phase_files=[str(folder / "Phase.nii")], magnitude_files=[str(folder / "Mag.nii")],
    )  # fmt: skip
    assert "slope is ignored" in record["decision"]
    raw = nib.load(folder / "Phase.nii").dataobj.get_unscaled()
    assert apart(phase, raw) < 1e-5


def test_phase_with_nan_and_an_echo_beyond_pi(tmp_path, monkeypatch):
    path = real_data("romeo_small") / "phase_with_nan.nii"
    raw = nib.load(path).get_fdata()
    magnitude = write(tmp_path / "m.nii", np.ones(raw.shape, np.float32), nib.load(path).affine)
    phase, mag, record, _ = read(
        tmp_path, monkeypatch, phase_files=[str(path)], magnitude_files=[magnitude]
    )
    missing = np.isnan(raw).any(-1)
    assert np.isfinite(phase).all() and (mag[missing] == 0).all()
    assert record["decision"] == "radians" and apart(phase[~missing], raw[~missing]) < 1e-5


def test_clearswi_shows_what_a_turn_is(tmp_path, monkeypatch):
    folder = real_data("clearswi_small")
    phase, _, record, _ = read(
        tmp_path, monkeypatch,
        phase_files=[str(folder / "Phase.nii")], magnitude_files=[str(folder / "Mag.nii")],
    )  # fmt: skip
    assert record["decision"] == "one turn as measured" and record["warnings"]
    raw = nib.load(folder / "Phase.nii").get_fdata()
    assert apart(phase, raw * math.pi / np.abs(raw).max()) < 2e-3
    assert np.abs(phase[..., 0]).max() < 2.4  # the first echo keeps its smaller span


def test_siemens_phase_difference(tmp_path, monkeypatch):
    folder = real_data("siemens_me_fmap")
    sidecar = json.loads((folder / "me_FieldMap_GRE_3_e2_ph.json").read_text())
    phase, magnitude, record, outputs = read(
        tmp_path, monkeypatch,
        phase_files=[str(folder / "me_FieldMap_GRE_3_e2_ph.nii")],
        magnitude_files=[str(folder / f"me_FieldMap_GRE_2_e{n}.nii") for n in (1, 2)],
        metadata=[sidecar],
    )  # fmt: skip
    assert "phase difference" in record["kind"] and "Siemens" in record["decision"]
    assert phase.shape == magnitude.shape


def bad_shape(tmp_path, phase, magnitude):
    return {"magnitude_files": [write(tmp_path / "x.nii", np.ones((4, 4, 4), np.float32))]}


def bad_affine(tmp_path, phase, magnitude):
    data = nib.load(phase[1]).get_fdata().astype(np.int16)
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", data, np.diag([2, 2, 3, 1.0]))]}


def cut_short(tmp_path, phase, magnitude):
    path = tmp_path / "x.nii"
    write(path, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    path.write_bytes(path.read_bytes()[:2000])
    return {"phase_files": [phase[0], str(path)]}


def flat(tmp_path, phase, magnitude):
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", np.zeros(SHAPE, np.int16))]}


def all_nan(tmp_path, phase, magnitude):
    data = np.full(SHAPE, np.nan, np.float32)
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", data)]}


def two_dimensional(tmp_path, phase, magnitude):
    data = nib.load(phase[0]).get_fdata()[:, :, 0].astype(np.int16)
    return {"phase_files": [write(tmp_path / "x.nii", data)], "magnitude_files": [magnitude[0]]}


def damaged(tmp_path, phase, magnitude):
    content = bytearray(Path(phase[1]).read_bytes())
    content[len(content) // 2] ^= 0x55  # one byte in the middle of the stream
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    return {"phase_files": [phase[0], str(path)]}


def stream_cut_short(tmp_path, phase, magnitude):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(Path(phase[1]).read_bytes()[:-200])
    return {"phase_files": [phase[0], str(path)]}


def wrong_checksum(tmp_path, phase, magnitude):
    content = bytearray(Path(phase[1]).read_bytes())
    content[-6] ^= 0x55  # in the checksum: what unpacks is not what was packed
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    return {"phase_files": [phase[0], str(path)]}


def complex_numbers(tmp_path, phase, magnitude):
    data = np.ones(SHAPE, np.complex64) * np.exp(1j * np.arange(SHAPE[2]))
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", data.astype(np.complex64))]}


def colours(tmp_path, phase, magnitude):
    data = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", data)]}


def coloured_magnitude(tmp_path, phase, magnitude):
    data = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return {"magnitude_files": [magnitude[0], write(tmp_path / "x.nii", data)]}


def infinite(tmp_path, phase, magnitude):
    data = nib.load(phase[1]).get_fdata().astype(np.float32)
    data[3, 4, 5] = np.inf
    return {"phase_files": [phase[0], write(tmp_path / "x.nii", data)]}


def copied(tmp_path, phase, magnitude):
    return {"phase_files": [phase[0], phase[0]]}


def exchanged(tmp_path, phase, magnitude):
    return {"phase_files": magnitude, "magnitude_files": phase}


def no_magnitude(tmp_path, phase, magnitude):
    return {"magnitude_files": []}


def too_few(tmp_path, phase, magnitude):
    return {"magnitude_files": magnitude[:1]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (bad_shape, "shape or affine differs"),
        (bad_affine, "shape or affine differs"),
        (cut_short, "cut short"),
        (damaged, "damaged"),
        (stream_cut_short, "damaged"),
        (wrong_checksum, "damaged"),
        (complex_numbers, "complex numbers"),
        (colours, "colours"),
        (coloured_magnitude, "colours"),
        (infinite, "1 voxels are infinite"),
        (copied, "the same image"),
        (exchanged, "exchange the names"),
        (flat, "is 0 everywhere"),
        (all_nan, "no voxel has a finite phase"),
        (two_dimensional, "not a 3-D volume"),
        (no_magnitude, "no magnitude"),
        (too_few, "2 phase volumes for 1 magnitude"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, monkeypatch, spoil, words):
    phase, magnitude = files(tmp_path, signal())
    inputs = {"phase_files": phase, "magnitude_files": magnitude}
    inputs.update(spoil(tmp_path, phase, magnitude))
    inputs = {k: v for k, v in inputs.items() if v}
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, monkeypatch, **inputs)
    assert "\n" not in str(caught.value) and ".nii" in str(caught.value)


def test_no_phase_at_all(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no phase was given"):
        read(tmp_path, monkeypatch)
