"""One file for each vendor's habit, made from a simulated head, read back as the same phase."""

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.interfaces.phase import ReadPhase

N = 56
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
TIMES = (0.004, 0.008)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """Complex signal (X, Y, Z, 2) of a head with a cavity at 3 T, SNR 50."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, N)] * 3, indexing="ij")
    tissue = (x / 0.65) ** 2 + (y / 0.8) ** 2 + (z / 0.7) ** 2 < 1
    tissue &= ~((x / 0.15) ** 2 + ((y - 0.5) / 0.2) ** 2 + ((z + 0.3) / 0.15) ** 2 < 1)
    field = dipole_field(tissue.float() * -9.4, (3.0,) * 3, (0, 0, 1)) + 0.3 * x - 0.2 * z
    t = torch.tensor(TIMES)
    phase = 2 * math.pi * 42.577478 * 3 * field.unsqueeze(-1) * t + (0.8 * y + 1).unsqueeze(-1)
    noise = torch.randn(*phase.shape, 2, generator=torch.Generator().manual_seed(0)) / 50
    signal = tissue.unsqueeze(-1) * torch.polar(torch.ones_like(phase), phase)
    return (signal + torch.view_as_complex(noise)).numpy()


def write(path: Path, data: np.ndarray) -> str:
    """A NIfTI file with these values, without slope."""
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return str(path)


def write_stored(path: Path, data: np.ndarray, slope: float, intercept: float) -> str:
    """As a scanner's converter writes: stored values with a slope and an intercept beside them."""
    write(path, data)
    header = np.float32([slope, intercept]).tobytes()
    content = path.read_bytes()
    path.write_bytes(content[:112] + header + content[120:])  # scl_slope, scl_inter
    return str(path)


def read(tmp_path, monkeypatch, head, phase, **more):
    """Phase and record that ReadPhase makes of phase files and the head's magnitude."""
    monkeypatch.chdir(tmp_path)
    if "real_files" not in more:
        magnitude = write(tmp_path / "mag.nii", np.abs(head).astype(np.float32))
        more |= {"phase_files": phase, "magnitude_files": [magnitude]}
    more.setdefault("metadata", [{"EchoTime": t} for t in TIMES])
    outputs = ReadPhase(**more).run().outputs
    record = json.loads(Path(outputs.out_record).read_text())
    return nib.load(outputs.out_phase).get_fdata(), record


def apart(a, b, where=slice(None)):
    """Largest difference of two phases, up to turns."""
    return np.abs(np.angle(np.exp(1j * (a - b)))[where]).max()


def test_ge_inverted_sign_is_found_and_turned_around(tmp_path, monkeypatch, head):
    stored = np.rint(-np.angle(head) * 1000).astype(np.int16)  # GE: milliradians
    path = write(tmp_path / "phase.nii", stored)
    phase, record = read(tmp_path, monkeypatch, head, [path], metadata=[{"Manufacturer": "GE"}])
    assert record["sign_inverted"] and record["sign_agreement"] < -0.5
    assert any("inverted sign" in w for w in record["notes"])
    assert "milliradians" in record["decision"] and apart(phase, np.angle(head)) < 2e-3


def test_ge_alternating_slices_in_real_and_imaginary_files(tmp_path, monkeypatch, head):
    turned = head * np.where(np.arange(N) % 2, -1, 1)[:, None]  # (X, Y, Z, E): along z
    files = {
        f"{name}_files": [
            write(tmp_path / f"{name}{e}.nii", np.rint(part[..., e] * 2000).astype(np.int16))
            for e in range(2)
        ]
        for name, part in (("real", turned.real), ("imaginary", turned.imag))
    }
    phase, record = read(tmp_path, monkeypatch, head, None, **files)
    assert record["alternating_slices_axis"] == [2] and not record["sign_inverted"]
    tissue = np.abs(head) > 0.5
    assert apart(phase, np.angle(head), tissue) < 2e-3


def test_ge_inverted_sign_and_alternating_slices_together(tmp_path, monkeypatch, head):
    turned = head.conj() * np.where(np.arange(N) % 2, -1, 1)[:, None]
    path = write(tmp_path / "phase.nii", np.rint(np.angle(turned) * 1000).astype(np.int16))
    phase, record = read(tmp_path, monkeypatch, head, [path])
    assert record["alternating_slices_axis"] == [2] and record["sign_inverted"]
    assert apart(phase, np.angle(head)) < 2e-3


def test_philips_fill_in_air_takes_part_in_nothing(tmp_path, monkeypatch, head):
    slope, intercept = 2 * math.pi / 4095, -math.pi  # 0…4095 stored, 0 in air: −π
    stored = np.rint((np.angle(head) - intercept) / slope).astype(np.int16)
    air = (np.abs(head) < 0.5).all(-1)
    stored[air] = 0
    path = write_stored(tmp_path / "phase.nii", stored, slope, intercept)
    metadata = [{"EchoTime": t, "Manufacturer": "Philips", "Units": "rad"} for t in TIMES]
    phase, record = read(tmp_path, monkeypatch, head, [path], metadata=metadata)
    assert record["fill_value"] == 0 and record["voxels_without_signal"] == air.sum()
    assert np.all(phase[air] == 0) and apart(phase, np.angle(head), ~air) < 3e-3
    assert not record["sign_inverted"]


@pytest.mark.parametrize("shift", [0.0, math.pi])
def test_float_radians_signed_or_from_zero_are_the_same_up_to_an_offset(
    tmp_path, monkeypatch, head, shift
):
    stored = (np.angle(head) + shift).astype(np.float32)
    path = write(tmp_path / "phase.nii", stored)
    phase, record = read(tmp_path, monkeypatch, head, [path])
    assert record["decision"] == "radians" and apart(phase, stored) < 1e-5


def test_float_radians_with_a_bogus_slope(tmp_path, monkeypatch, head):
    stored = np.angle(head).astype(np.float32)
    path = write_stored(tmp_path / "phase.nii", stored, 0.00117, 0.0)  # as some tools leave it
    phase, record = read(tmp_path, monkeypatch, head, [path])
    assert "slope is ignored" in record["decision"] and apart(phase, stored) < 1e-5


@pytest.mark.parametrize(
    ("slope", "intercept", "word"),
    [(1.0, 0.0, "12-bit 0…4095"), (2.0, -4096.0, "13-bit")],
)
def test_siemens_integers(tmp_path, monkeypatch, head, slope, intercept, word):
    stored = np.rint((np.angle(head) + math.pi) / (2 * math.pi) * 4096).clip(0, 4095)
    path = write_stored(tmp_path / "phase.nii", stored.astype(np.int16), slope, intercept)
    phase, record = read(tmp_path, monkeypatch, head, [path])
    assert word in record["decision"] and apart(phase, np.angle(head)) < 4e-3


def test_siemens_phase_difference_with_one_magnitude(tmp_path, monkeypatch, head):
    difference = np.angle(head[..., 1] * head[..., 0].conj())
    stored = np.rint(difference / math.pi * 2048 + 2048).clip(0, 4095).astype(np.int16)
    path = write_stored(tmp_path / "phase.nii", stored, 2.0, -4096.0)
    magnitude = write(tmp_path / "one.nii", np.abs(head[..., 0]).astype(np.float32))
    sidecar = {"EchoTime1": TIMES[0], "EchoTime2": TIMES[1], "EchoTime": TIMES[1]}
    monkeypatch.chdir(tmp_path)
    outputs = ReadPhase(
        phase_files=[path], magnitude_files=[magnitude], metadata=[sidecar]
    ).run().outputs  # fmt: skip
    phase = nib.load(outputs.out_phase).get_fdata()[..., 0]
    assert apart(phase, difference) < 4e-3
