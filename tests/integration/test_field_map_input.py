"""The plain command on a participant who has a Siemens field map and nothing else."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import cli

pytestmark = pytest.mark.slow


def as_field_map(bids: Path) -> tuple[Path, Path]:
    """Turn the simulated echoes 1 and 2 of sub-01 into phasediff and magnitudes; truth, mask."""
    anat, fmap = bids / "sub-01" / "anat", bids / "sub-01" / "fmap"
    fmap.mkdir()
    echoes = []
    for echo in (1, 2):
        stem = f"sub-01_echo-{echo}_part-"
        phase = nib.load(anat / f"{stem}phase_MEGRE.nii.gz")
        sidecar = json.loads((anat / f"{stem}phase_MEGRE.json").read_text())
        echoes.append((phase.get_fdata(), sidecar["EchoTime"]))
        (anat / f"{stem}mag_MEGRE.nii.gz").rename(fmap / f"sub-01_magnitude{echo}.nii.gz")
    (one, first), (two, second) = echoes
    stored = np.angle(np.exp(1j * (two - one))) / np.pi * 4096
    stored = np.rint(stored).clip(-4096, 4095).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, phase.affine), fmap / "sub-01_phasediff.nii.gz")
    sidecar |= {"EchoTime1": first, "EchoTime2": second}
    sidecar.pop("Units", None)
    (fmap / "sub-01_phasediff.json").write_text(json.dumps(sidecar))
    for path in anat.iterdir():
        path.unlink()
    truth = bids / "derivatives" / "truth" / "sub-01" / "anat"
    return truth / "sub-01_Chimap.nii.gz", truth / "sub-01_desc-brain_mask.nii.gz"


def test_a_field_map_alone_gives_a_field_and_a_susceptibility_map(tmp_path):
    bids, out = tmp_path / "bids", tmp_path / "out"
    assert cli.main(["simulate", str(bids), "--voxel-size", "4"]) == 0
    truth, brain = as_field_map(bids)
    places = [str(bids), str(out), "participant", "-w", str(tmp_path / "work")]
    options = ["--skip-bids-validation", "--nprocs", "2", "--inversion", "tkd"]
    assert cli.main([*places, *options]) == 0
    anat = out / "sub-01" / "anat"
    chi = nib.load(anat / "sub-01_Chimap.nii.gz").get_fdata()
    mask = nib.load(anat / "sub-01_desc-chi_mask.nii.gz").get_fdata() > 0
    inside = mask & (nib.load(brain).get_fdata() > 0)
    assert np.corrcoef(chi[inside], nib.load(truth).get_fdata()[inside])[0, 1] > 0.35
    assert (anat / "sub-01_desc-total_fieldmap.nii.gz").exists()
    assert not (anat / "sub-01_R2starmap.nii.gz").exists()
    assert "field map" in (out / "sub-01.html").read_text()
