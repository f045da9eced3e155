"""The whole command on small simulated heads: outputs, cache, failures, resume."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import cli

pytestmark = pytest.mark.slow

FAST = ("--inversion", "tkd", "--skip-bids-validation", "--nprocs", "2", "--mem", "6")


def command(bids: Path, root: Path, *more: str) -> list[str]:
    """Arguments of a quick participant run with its output below `root`."""
    places = [str(bids), str(root / "out"), "participant", "-w", str(root / "work")]
    return [*places, *FAST, *more]


def digest(path: Path) -> str:
    """Fingerprint of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Two subjects of 4 mm, the second one with a broken phase image."""
    root = tmp_path_factory.mktemp("simulated") / "bids"
    assert cli.main(["simulate", str(root), "--n", "2", "--voxel-size", "4"]) == 0
    broken = root / "sub-02" / "anat" / "sub-02_echo-2_part-phase_MEGRE.nii.gz"
    image = nib.load(broken)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), broken)
    return root


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory) -> tuple[Path, int]:
    """Folder and exit code of a run on both subjects."""
    root = tmp_path_factory.mktemp("run")
    return root, cli.main(command(dataset, root))


def test_the_good_subject_is_complete_and_the_bad_one_says_why(finished):
    root, code = finished
    out = root / "out"
    assert code == 1
    anat = out / "sub-01" / "anat"
    for name in ("Chimap", "R2starmap", "T2starmap", "desc-brain_mask", "desc-local_fieldmap"):
        assert (anat / f"sub-01_{name}.nii.gz").exists()
    page = (out / "sub-02.html").read_text()
    assert "sub-02_echo-2_part-phase_MEGRE.nii.gz" in page
    assert not (out / "sub-02" / "anat" / "sub-02_Chimap.nii.gz").exists()
    state = json.loads((out / "logs" / "state" / "sub-02.json").read_text())
    assert state["status"] == "failed" and "Traceback" not in state["failures"][0]["reason"]


def test_the_verdict_stands_wherever_the_map_is_met(finished):
    out = finished[0] / "out"
    both = json.loads((out / "logs" / "records" / "sub-01.json").read_text())["findings"]
    coarse, deep = (finding["text"] for finding in both)
    assert {(f["severity"], f["step"]) for f in both} == {("warning", "segmentation")}
    assert "the dentate nuclei" in coarse and "the deep grey nuclei" in deep
    sidecar = json.loads((out / "sub-01" / "anat" / "sub-01_Chimap.json").read_text())
    assert sidecar["Verdict"] == "yellow" and sidecar["VerdictReasons"] == [coarse, deep]
    table = (out / "sub-01" / "anat" / "sub-01_desc-qc_metrics.tsv").read_text().splitlines()
    row = dict(zip(*(line.split("\t") for line in table), strict=True))
    assert (row["verdict"], row["errors"], row["warnings"]) == ("yellow", "0", "2")
    state = json.loads((out / "logs" / "state" / "sub-01.json").read_text())
    assert state["verdicts"][0]["warnings"] == [coarse, deep]
    log = (out / "logs" / "run.log").read_text()
    assert "[outcome] sub-01: yellow" in log and "[outcome] sub-02: failed" in log
    page = (out / "sub-01.html").read_text()
    assert coarse in page and deep in page


def test_sidecar_says_units_sources_reference_and_methods(finished):
    path = finished[0] / "out" / "sub-01" / "anat" / "sub-01_Chimap.json"
    sidecar = json.loads(path.read_text())
    assert sidecar["Units"] == "ppm" and sidecar["ReferenceRegion"] == "brain"
    assert isinstance(sidecar["ReferenceStandardDeviation"], float)
    assert sidecar["Sources"][0].startswith("bids:raw:sub-01/anat/sub-01_echo-1")
    steps = {step["step"]: step["method"] for step in sidecar["ProcessingSteps"]}
    assert steps["inversion"] == "tkd" and steps["unwrapping"] == "romeo"


def test_susceptibility_has_the_right_sign_and_zero_mean(dataset, finished):
    anat = finished[0] / "out" / "sub-01" / "anat"
    chi = nib.load(anat / "sub-01_Chimap.nii.gz").get_fdata()
    mask = nib.load(anat / "sub-01_desc-chi_mask.nii.gz").get_fdata() > 0
    truth = dataset / "derivatives" / "truth" / "sub-01" / "anat" / "sub-01_Chimap.nii.gz"
    assert abs(chi[mask].mean()) < 1e-5 and np.all(chi[~mask] == 0)
    assert np.corrcoef(chi[mask], nib.load(truth).get_fdata()[mask])[0, 1] > 0.4


def test_the_result_is_a_valid_derivatives_dataset(finished):
    validator = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}:/usr/bin")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [validator, "--format", "json", str(finished[0] / "out")], capture_output=True, text=True
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i.get("severity") == "error"] == []


def test_a_second_run_recomputes_nothing_and_a_new_inversion_only_from_there(dataset, finished):
    root, _ = finished
    work = root / "work"
    results = {p: p.stat().st_mtime_ns for p in work.rglob("result_*.pklz")}
    only = ("--participant-label", "01")
    assert cli.main(command(dataset, root, *only)) == 0
    assert all(p.stat().st_mtime_ns == t for p, t in results.items() if "sub_01" in str(p))
    again = {p: p.stat().st_mtime_ns for p in work.rglob("result_*.pklz")}
    changed = command(dataset, root, *only, "--set", "inversion.tkd.threshold=0.2")
    assert cli.main(changed) == 0
    kept = [p for p in again if "sub_01" in str(p) and "inversion" not in str(p)]
    after = {"segmentation_wf", "outputs_wf", "report_wf"}
    untouched = [p for p in kept if not after & set(p.parts)]
    assert untouched and all(p.stat().st_mtime_ns == again[p] for p in untouched)


@pytest.fixture(scope="module")
def from_chi(finished, tmp_path_factory) -> Path:
    """Results of a run from the χ of `finished`, without any image."""
    root = tmp_path_factory.mktemp("again")
    (root / "empty").mkdir()
    places = [str(root / "empty"), str(root / "out"), "participant", "-w", str(root / "work")]
    assert cli.main([*places, *FAST[2:], "-d", f"chi={finished[0] / 'out'}"]) == 0
    return root / "out"


def test_a_run_from_chi_measures_what_the_run_that_made_it_did(finished, from_chi):
    one, other = (root / "sub-01" / "anat" for root in (finished[0] / "out", from_chi))
    for name in ("Chimap", "desc-chi_mask", "desc-dentate_dseg", "desc-deepgrey_dseg"):
        assert digest(one / f"sub-01_{name}.nii.gz") == digest(other / f"sub-01_{name}.nii.gz")
    tables = [(p / "sub-01_desc-regions_stats.tsv").read_text() for p in (one, other)]
    rows = [[line for line in text.splitlines() if "\tChimap\t" in line] for text in tables]
    assert rows[0] == rows[1] and rows[0]


def test_a_run_from_chi_claims_no_step_that_was_not_run(from_chi):
    anat = from_chi / "sub-01" / "anat"
    sidecar = json.loads((anat / "sub-01_Chimap.json").read_text())
    assert [s["step"] for s in sidecar["ProcessingSteps"]] == ["given", "mask"]
    assert sidecar["Sources"] == ["bids:chi:sub-01/anat/sub-01_Chimap.nii.gz"]
    links = json.loads((from_chi / "dataset_description.json").read_text())["DatasetLinks"]
    assert set(links) == {"raw", "chi"}
    page = (from_chi / "sub-01.html").read_text()
    assert "susceptibility map was given" in page and "ROMEO" not in page
    assert not [p for p in anat.iterdir() if "fieldmap" in p.name or "R2star" in p.name]


def test_too_coarse_a_map_gets_no_labels_and_its_sentence(finished, tmp_path, capsys):
    chi = finished[0] / "out" / "sub-01" / "anat" / "sub-01_Chimap.nii.gz"
    assert cli.main(["segment", str(chi), str(tmp_path / "out")]) == 2
    assert "too coarse" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_deleted_map_comes_back(dataset, finished):
    root, _ = finished
    path = root / "out" / "sub-01" / "anat" / "sub-01_R2starmap.nii.gz"
    path.unlink()
    assert cli.main(command(dataset, root, "--participant-label", "01")) == 0
    assert path.exists()


def test_group_joins_the_tables(dataset, finished):
    root, _ = finished
    assert cli.main([str(dataset), str(root / "out"), "group"]) == 0
    lines = (root / "out" / "group_desc-qc_metrics.tsv").read_text().splitlines()
    assert lines[0].startswith("participant_id\tacquisition\tstatus\terror\t")
    assert [line.split("\t")[2] for line in lines[1:]] == ["done", "failed"]
    words = json.loads((root / "out" / "group_desc-qc_metrics.json").read_text())
    assert set(lines[0].split("\t")) <= set(words)
    assert (root / "out" / "group.html").exists()


def test_a_killed_run_resumes_to_the_same_bytes(dataset, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    only = ("--participant-label", "01")
    assert cli.main(command(dataset, whole, *only)) == 0
    start = [sys.executable, "-m", "qsm_nipype", *command(dataset, killed, *only)]
    process = subprocess.Popen(start, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    fit = "fieldmap_wf"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list((killed / "work").rglob(f"{fit}/*/result*")):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    chi = Path("out", "sub-01", "anat", "sub-01_Chimap.nii.gz")
    assert not (killed / chi).exists()
    assert cli.main(command(dataset, killed, *only)) == 0
    assert digest(killed / chi) == digest(whole / chi)


def test_dry_run_touches_nothing(dataset, tmp_path, capsys):
    assert cli.main(command(dataset, tmp_path, "--dry-run")) == 0
    assert list(tmp_path.iterdir()) == []
    assert "sub-01: 3 T, TE" in capsys.readouterr().out


def test_methods_text_cites_the_methods_used(dataset, tmp_path, capsys):
    assert cli.main(command(dataset, tmp_path, "--boilerplate-only")) == 0
    text = capsys.readouterr().out
    assert "ROMEO" in text and "Dymerska" in text and "@article" in text.lower()
    assert "Shmueli" in text and "MEDI" not in text
