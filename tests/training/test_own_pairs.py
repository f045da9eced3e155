"""One's own pairs of local field and χ: found, held out by participant, trained on."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.models.weights import read
from qsm_nipype.training import command, own_pairs, qsmgan
from qsm_nipype.training.sources import smooth_noise

EDGE = 40


def write_pair(folder, participant, *, chi_unit="ppm", scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    shape = (EDGE,) * 3
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 4:-4] = True
    chi = np.where(mask, 0.03 * smooth_noise(rng, shape, 2.0) + 0.01, 0).astype(np.float32)
    field = dipole_field(torch.from_numpy(chi), (1, 1, 1), (0, 0, 1)).numpy() * mask
    where = folder / participant / "anat"
    where.mkdir(parents=True, exist_ok=True)
    maps = {"desc-local_fieldmap": field, "Chimap": scale * chi, "desc-chi_mask": mask}
    for name, data in maps.items():
        image = nib.Nifti1Image(np.asarray(data, np.float32), np.eye(4))
        nib.save(image, where / f"{participant}_{name}.nii.gz")
    (where / f"{participant}_Chimap.json").write_text(json.dumps({"Units": chi_unit}))
    return chi, field, mask


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(qsmgan, "STAGES", ((1.0, 16, 2, 4),))
    monkeypatch.setattr(qsmgan, "CHECK_EDGE", 32)


def test_a_pair_is_read_in_ppm_relative_to_its_mean(tmp_path):
    chi, field, mask = write_pair(tmp_path, "sub-01")
    (pair,) = own_pairs.find_pairs(tmp_path)
    found = own_pairs.read_pair(pair, guesses=False)
    inside = (slice(4, -4),) * 3
    assert found.guesses is None and found.mask.sum() == mask.sum()
    assert np.allclose(found.field[found.mask], field[inside].ravel(), atol=1e-6)
    assert np.allclose(found.chi[found.mask], (chi - chi[mask].mean())[inside].ravel(), atol=1e-6)


def test_nobody_is_in_training_and_held_out(tmp_path):
    for n, name in enumerate(("sub-02_ses-1", "sub-02_ses-2", "sub-01", "sub-03")):
        write_pair(tmp_path, name, seed=n)
    pairs = own_pairs.find_pairs(tmp_path)
    learn, keep = own_pairs.split(pairs, 1)
    assert [pairs[n].participant for n in keep] == ["sub-01"]
    assert [pairs[n].participant for n in learn] == ["sub-02", "sub-02", "sub-03"]
    with pytest.raises(DataError, match="3 participants have pairs, and 3"):
        own_pairs.split(pairs, 3)


@pytest.mark.parametrize(("unit", "scale"), [("ppb", 1.0), ("ppm", 1000.0)])
def test_a_map_that_is_not_in_ppm_is_refused(tmp_path, unit, scale):
    write_pair(tmp_path, "sub-01", chi_unit=unit, scale=scale)
    (pair,) = own_pairs.find_pairs(tmp_path)
    with pytest.raises(DataError, match="sub-01_Chimap.*give maps in ppm"):
        own_pairs.read_pair(pair, guesses=False)


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no pair"):
        command.main(["qsmgan", str(tmp_path / "out"), "--data", str(tmp_path)])


def test_the_published_form_learns_from_ones_own_pairs(tmp_path, small):
    for n in range(2):
        write_pair(tmp_path / "data", f"sub-0{n + 1}", seed=n)
    argv = ["qsmgan", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--inputs", "field"]
    argv += ["--held-out", "1", "--steps", "2", "--threads", "1"]
    assert command.main(argv) == 0
    found = read(tmp_path / "out" / "qsmgan.safetensors")
    assert found.tensors["down_sample_layers.0.layers.0.weight"].shape[1] == 1
    assert found.about["data"] == "own pairs: 1, participants: 1"
    assert found.about["inputs"] == "field"
    with (tmp_path / "out" / "evaluation.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["noise_ppb"] == "its own" and float(row["TKD"]) > 0
    again = [*argv[:2], *argv[4:], "--start", str(tmp_path / "out" / "qsmgan.safetensors")]
    again[1] = str(tmp_path / "again")
    with pytest.raises(UsageError, match="give field to --inputs"):
        command.main([*again, "--inputs", "field,first-guesses"])


def test_a_training_starts_from_the_weights_given(tmp_path, small):
    write_pair(tmp_path, "sub-01")
    (pair,) = own_pairs.find_pairs(tmp_path)
    volumes = qsmgan.Patches([own_pairs.read_pair(pair, guesses=False)])
    plan = qsmgan.Plan(steps=1)
    first = qsmgan.UNetTask(volumes, volumes, plan, torch.device("cpu"))
    kept = {n: t + 1 for n, t in first.network.state_dict().items()}
    task = qsmgan.UNetTask(volumes, volumes, plan, torch.device("cpu"), start=kept)
    assert all(torch.equal(t, kept[n]) for n, t in task.network.state_dict().items())
    assert torch.equal(next(task.average.network.parameters()), next(iter(kept.values())))
