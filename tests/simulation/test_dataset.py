"""The dataset of simulated heads is valid BIDS and says what it holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.simulation.command import main
from qsm_nipype.simulation.dataset import write_description, write_scan
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

VALIDATOR = shutil.which("bids-validator-deno") or shutil.which(
    "bids-validator-deno", path=str(Path(sys.executable).parent)
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "bids"
    options = ["--n", "2", "--voxel-size", "5", "--angles", "15", "0", "5", "--phase", "int16"]
    more = ["--pathology", "--contrasts", "FLAIR", "--echo-times", "0.005", "0.015"]
    assert main([str(out), *options, *more]) == 0
    return out


def test_files_and_sidecars(dataset: Path) -> None:
    anat = dataset / "sub-01" / "anat"
    names = {p.name for p in anat.glob("*.nii.gz")}
    assert "sub-01_FLAIR.nii.gz" in names and "sub-01_echo-2_part-phase_MEGRE.nii.gz" in names
    sidecar = json.loads((anat / "sub-01_echo-2_part-phase_MEGRE.json").read_text())
    assert sidecar["EchoTime"] == 0.015
    assert sidecar["Units"] == "arbitrary"
    assert abs(sidecar["ImagingFrequency"] - 127.732) < 0.01
    truth = dataset / "derivatives" / "truth" / "sub-01" / "anat"
    for suffix in ("Chimap", "desc-total_fieldmap", "desc-local_fieldmap", "desc-brain_mask"):
        assert (truth / f"sub-01_{suffix}.nii.gz").exists()
    assert "SIMULATED" in (dataset / "README").read_text()
    rows = (dataset / "participants.tsv").read_text().splitlines()
    assert [r.split("\t")[0] for r in rows] == ["participant_id", "sub-01", "sub-02"]


def test_stored_phase_reads_back_as_the_phase(tmp_path: Path) -> None:
    scan = simulate_subject(3, shape=(20, 24, 20), voxel_size=9.0, protocol=Protocol(snr=50.0))
    for kind, tolerance in (("rad", 1e-6), ("int16", np.pi / 2000)):
        anat = write_scan(tmp_path / kind, "x", scan, phase=kind)
        image = nib.load(anat / "sub-x_echo-1_part-phase_MEGRE.nii.gz")
        stored = np.asarray(image.dataobj, dtype=np.float64)
        read = stored if kind == "rad" else stored / 4096 * np.pi
        away = np.angle(np.exp(1j * (read - scan.phase[..., 0])))
        assert np.abs(away).max() < tolerance
        np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)


def test_affine_is_oblique_and_shared_by_the_truth(dataset: Path) -> None:
    raw = nib.load(dataset / "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz")
    chi = nib.load(dataset / "derivatives/truth/sub-01/anat/sub-01_Chimap.nii.gz")
    np.testing.assert_allclose(raw.affine, chi.affine)
    assert raw.header["sform_code"] == raw.header["qform_code"] == 1
    np.testing.assert_allclose(raw.header.get_qform(), raw.affine, atol=1e-3)
    assert abs(raw.affine[2, 1]) > 0.5


def test_uncombined_coils_are_refused(tmp_path: Path) -> None:
    scan = simulate_subject(3, shape=(16, 20, 16), voxel_size=10.0, protocol=Protocol(coils=2))
    with pytest.raises(ValueError, match="coils"):
        write_scan(tmp_path, "x", scan)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--echo-times", "4", "12"], "seconds"),
        (["--echo-times", "0.02", "0.01"], "rising"),
        (["--voxel-size", "0.1"], "voxel-size"),
        (["--voxel-size", "nan"], "voxel-size"),
        (["--voxel-size", "60"], "voxel-size"),
        (["--b0", "0"], "tesla"),
        (["--b0", "-3"], "tesla"),
        (["--seed", "-1"], "seed"),
        (["--snr", "-1"], "snr"),
    ],
)
def test_unusable_options_are_explained(tmp_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        main([str(tmp_path / "out"), *options])


def test_overwriting_leaves_nothing_of_the_old_heads(tmp_path: Path) -> None:
    coarse = ["--voxel-size", "10", "--echo-times"]
    more = ["--n", "2", "--contrasts", "FLAIR"]
    main([str(tmp_path), *coarse, "0.004", "0.008", "0.012", *more])
    main([str(tmp_path), *coarse, "0.01", "0.06", "--overwrite"])
    images = sorted(p.name for p in tmp_path.glob("sub-*/anat/*.nii.gz"))
    parts = [f"sub-01_echo-{e}_part-{p}_MEGRE.nii.gz" for e in (1, 2) for p in ("mag", "phase")]
    assert images == parts
    assert [p.name for p in (tmp_path / "derivatives" / "truth").glob("sub-*")] == ["sub-01"]
    sidecar = json.loads((tmp_path / "sub-01/anat/sub-01_echo-2_part-mag_MEGRE.json").read_text())
    assert sidecar["RepetitionTime"] > sidecar["EchoTime"]


def test_overwriting_touches_no_dataset_of_another_kind(tmp_path: Path) -> None:
    kept = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a scan")
    (tmp_path / "dataset_description.json").write_text('{"Name": "Mine", "BIDSVersion": "1.8.0"}')
    with pytest.raises(UsageError, match="no simulated dataset to replace"):
        main([str(tmp_path), "--voxel-size", "10", "--overwrite"])
    assert kept.read_bytes() == b"a scan"


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(UsageError, match="not empty"):
        main([str(tmp_path)])


@pytest.mark.slow
@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error(dataset: Path, tmp_path: Path) -> None:
    write_description(dataset)
    for root in (dataset, dataset / "derivatives" / "truth"):
        done = subprocess.run(
            [str(VALIDATOR), "--format", "json", str(root)], capture_output=True, text=True
        )
        issues = json.loads(done.stdout)["issues"]["issues"]
        errors = [i for i in issues if i.get("severity") == "error"]
        assert not errors, errors
