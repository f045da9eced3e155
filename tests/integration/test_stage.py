"""The stages on the files of the QSM-CI contract: names, units, errors."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype import cli
from qsm_nipype.core.dipole import dipole_field

SHAPE, SIZE = (40, 44, 36), (1.0, 1.0, 1.5)
B0_DIR = (0.0, 0.6, 0.8)
TE = (0.005, 0.010, 0.015)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A ball of 0.1 ppm in a spherical brain, tilted B0 that the identity affine does not show."""
    axes = torch.meshgrid(
        *[(torch.arange(n) - n / 2) * h for n, h in zip(SHAPE, SIZE, strict=True)], indexing="ij"
    )
    distance = torch.stack(axes).square().sum(0).sqrt()
    chi = 0.1 * (distance < 6).float()
    mask = distance < 16
    field = dipole_field(chi, SIZE, B0_DIR, padding=1.0)
    phase = 2 * np.pi * 42.577478 * 3 * field[..., None] * torch.tensor(TE)
    phase = torch.atan2(phase.sin(), phase.cos())
    root = tmp_path_factory.mktemp("stage")
    images = {
        "phase": phase,
        "magnitude": torch.ones_like(phase) * mask[..., None] + 1e-3,
        "mask": mask,
        "totalfield": field,
        "localfield": field * mask,
        "truth": chi,
    }
    for name, data in images.items():
        nib.save(nib.Nifti1Image(data.float().numpy(), np.eye(4)), root / f"{name}.nii.gz")
    params = {"TE": TE, "B0": 3.0, "B0_dir": B0_DIR, "voxel_size": SIZE}
    (root / "params.json").write_text(json.dumps(params))
    return root


def read(path: Path) -> np.ndarray:
    """Data of an image."""
    return nib.load(path).get_fdata()


def test_field_mapping_gives_the_field_in_ppm(folder, tmp_path):
    assert cli.main(["stage", "field-mapping", str(folder), str(tmp_path)]) == 0
    mask = read(folder / "mask.nii.gz") > 0
    found, true = read(tmp_path / "totalfield.nii.gz"), read(folder / "totalfield.nii.gz")
    assert np.abs(found - true)[mask].max() < 0.02 * np.abs(true[mask]).max()
    assert np.all(found[~mask] == 0)


@pytest.mark.parametrize("method", ["tkd", "tv", "nltv"])
def test_dipole_takes_direction_and_voxels_from_params(folder, tmp_path, method):
    command = ["stage", "dipole", str(folder), str(tmp_path), "--method", method]
    assert cli.main(command) == 0
    chi, true = read(tmp_path / "chimap.nii.gz"), read(folder / "truth.nii.gz")
    step = chi[true > 0].mean() - chi[(true == 0) & (read(folder / "mask.nii.gz") > 0)].mean()
    assert step == pytest.approx(0.1, rel=0.25)


def test_parameters_come_from_the_flag_and_from_config_json(folder, tmp_path):
    command = ["stage", "dipole", str(folder), str(tmp_path), "--method", "tkd"]
    assert cli.main([*command, "--set", "threshold=0.3"]) == 0
    by_flag = read(tmp_path / "chimap.nii.gz")
    (folder / "config.json").write_text('{"threshold": 0.3}')
    assert cli.main(command) == 0
    assert np.array_equal(read(tmp_path / "chimap.nii.gz"), by_flag)
    (folder / "config.json").unlink()
    assert cli.main(command) == 0
    assert not np.array_equal(read(tmp_path / "chimap.nii.gz"), by_flag)


def test_background_then_dipole_chain(folder, tmp_path):
    span = ["stage", "bfr+dipole", str(folder), str(tmp_path / "a"), "--method", "vsharp", "tkd"]
    assert cli.main(span) == 0
    assert read(tmp_path / "a" / "chimap.nii.gz").std() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("B0_dir"), "params.json: B0_dir is missing; add it"),
        (lambda p: p.update(TE=[0.005]), "in: phase: 3 echoes for 1 echo times; give one volume"),
        (lambda p: p.update(TE="long"), "params.json: could not convert string to float"),
        (lambda p: p.update(B0_dir=[0, 0, 0]), "params.json: b0_dir (0, 0, 0): give three"),
    ],
)
def test_wrong_params_are_one_sentence(folder, tmp_path, capsys, change, words):
    broken = tmp_path / "in"
    broken.mkdir()
    for path in folder.glob("*.nii.gz"):
        (broken / path.name).symlink_to(path)
    params = json.loads((folder / "params.json").read_text())
    change(params)
    (broken / "params.json").write_text(json.dumps(params))
    assert cli.main(["stage", "field-mapping", str(broken), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_images_that_do_not_fit_are_one_sentence(folder, tmp_path, capsys):
    broken = tmp_path / "in"
    shutil.copytree(folder, broken)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)), broken / "mask.nii.gz")
    command = ["stage", "dipole", str(broken), str(tmp_path / "out"), "--method", "tkd"]
    assert cli.main(command) == 2
    assert f"{broken}: mask: it has no voxel; give one" in capsys.readouterr().err
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), broken / "mask.nii.gz")
    assert cli.main(command) == 2
    assert "localfield.nii.gz: its shape is not that of mask" in capsys.readouterr().err


def test_the_local_field_counts_where_it_is_not_zero(folder, tmp_path):
    smaller = tmp_path / "in"
    shutil.copytree(folder, smaller)
    field = read(folder / "localfield.nii.gz")
    field[: SHAPE[0] // 2] = 0
    nib.save(nib.Nifti1Image(field.astype(np.float32), np.eye(4)), smaller / "localfield.nii.gz")
    assert cli.main(["stage", "dipole", str(smaller), str(tmp_path), "--method", "tkd"]) == 0
    chi = read(tmp_path / "chimap.nii.gz")
    assert not chi[: SHAPE[0] // 2].any() and chi.any()


def test_a_span_is_its_stages_one_after_the_other(folder, tmp_path):
    """Up to the noise of the field, which no file of the contract holds."""
    span = ["stage", "end-to-end", str(folder), str(tmp_path / "a"), "--method", "vsharp", "tkd"]
    assert cli.main(span) == 0
    steps = tmp_path / "steps"
    shutil.copytree(folder, steps)
    for stage, name in {"field-mapping": [], "bfr": ["vsharp"], "dipole": ["tkd"]}.items():
        chosen = ["--method", *name] if name else []
        assert cli.main(["stage", stage, str(steps), str(steps), *chosen]) == 0
    one, many = (read(p / "chimap.nii.gz") for p in (tmp_path / "a", steps))
    assert np.abs(one - many).max() < 1e-5 and one.std() > 0


def test_the_total_field_method_leaves_background_removal_out(folder, tmp_path, capsys):
    span = ["stage", "bfr+dipole", str(folder), str(tmp_path), "--method", "tgv"]
    assert cli.main([*span, "--set", "max_iterations=2"]) == 0
    assert capsys.readouterr().out.startswith("Single-step total generalised variation: ")


def test_unknown_method_and_parameter_are_refused(folder, tmp_path, capsys):
    command = ["stage", "dipole", str(folder), str(tmp_path)]
    assert cli.main([*command, "--method", "vsharp"]) == 2
    assert "not a method of this stage; choose from tv" in capsys.readouterr().err
    assert cli.main([*command, "--method", "tkd", "--set", "flavour=1"]) == 2
    assert "no chosen method has a parameter 'flavour'" in capsys.readouterr().err


def test_the_public_runner_runs_and_scores_a_stage(folder, tmp_path):
    """`qsm-ci run --runner local` with the submission of `containers/qsm-ci`."""
    submission = tmp_path / "submission"
    shutil.copytree(Path(__file__).parents[2] / "containers" / "qsm-ci", submission)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"localfield": "localfield", "mask": "mask", "truth": "truth"}
    files = [a for k, v in given.items() for a in (f"--{k}", str(folder / f"{v}.nii.gz"))]
    runner = [sys.executable, "-m", "qsm_ci.cli", "run", str(submission), "--runner", "local"]
    done = subprocess.run(
        [*runner, *files, "--params", str(folder / "params.json")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    score = re.search(r"correlation\s+([\d.]+)", done.stdout)
    assert score and float(score[1]) > 0.9, done.stdout
