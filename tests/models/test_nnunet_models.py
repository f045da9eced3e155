"""Models of nnU-Net: made by its own trainer, read by ours, and hostile ones refused."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models import nnunet as models


def case(seed):
    """Two blobs: left negative, right positive, in noise."""
    rng = np.random.default_rng(seed)
    chi = 0.1 * rng.standard_normal((24, 20, 16)).astype(np.float32)
    labels = np.zeros(chi.shape, np.uint8)
    labels[4:9, 7:13, 5:11], labels[15:20, 7:13, 5:11] = 1, 2
    return chi - (labels == 1) + (labels == 2), labels


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder of two folds as `nnUNetv2_train` leaves it, after a few iterations."""
    from nnunetv2.run import run_training
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainers  # noqa: N813 a module

    from qsm_nipype.training import nnunet

    root = tmp_path_factory.mktemp("nnunet")
    stage = nnunet.Stage(
        990, "Toy", {"left": 1, "right": 2}, 2.0, (16, 16, 16), (4, 8, 8), rotation=10.0
    )
    nnunet.prepare(stage, [case(seed) for seed in range(3)], root)
    ready = root / "preprocessed" / stage.dataset
    split = [{"train": ["case0000", "case0001"], "val": ["case0002"]}]
    (ready / "splits_final.json").write_text(json.dumps(split))
    shutil.copytree(root / "raw" / stage.dataset / "labelsTr", ready / "gt_segmentations")
    make = run_training.get_trainer_from_args

    def short(*args, **kwargs):
        trainer = make(*args, **kwargs)
        trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 6
        trainer.num_val_iterations_per_epoch, trainer.initial_lr = 1, 0.1
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_training, "get_trainer_from_args", short)
        patch.setattr(trainers, "default_num_processes", 1)
        run_training.run_training(
            stage.dataset, nnunet.CONFIGURATION, 0, device=torch.device("cpu")
        )
    folder = root / "results" / stage.dataset / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    shutil.copytree(folder / "fold_0", folder / "fold_all")
    return folder, stage, root


def test_training_volumes_are_stored_to_the_right_front_and_top(toy):
    _, stage, root = toy
    image = nib.load(root / "raw" / stage.dataset / "imagesTr" / "case0001_0000.nii.gz")
    assert np.array_equal(image.affine, np.diag([2.0, 2, 2, 1]))
    assert np.array_equal(image.get_fdata(dtype=np.float32), case(1)[0])


@pytest.fixture
def copy(toy, tmp_path):
    """A copy of the toy's folder that a test may spoil."""
    return Path(shutil.copytree(toy[0], tmp_path / "model"))


def test_a_folder_of_nnunetv2_train_and_its_exported_zip_are_read_alike(toy, tmp_path):
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    folder, stage, _ = toy
    archive = tmp_path / "toy.zip"
    export_pretrained_model(stage.dataset, str(archive), ("3d_fullres",), folds=(0,))
    chi, _ = case(7)
    a, b = models.read_model(folder), models.read_model(archive)
    assert a.labels == {"left": 1, "right": 2} and a.spacing == (2, 2, 2)
    assert a.extent == (32, 32, 32) and len(a.folds) == 1  # numbered folds before fold_all
    first = models.predict(a, chi, (2, 2, 2))
    assert first.shape == (3, *chi.shape) and np.allclose(first.sum(0), 1, atol=1e-3)
    assert np.array_equal(first, models.predict(b, chi, (2, 2, 2)))


def test_the_result_is_nnunets_own(toy, capsys):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    chi, _ = case(8)
    theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    theirs.initialize_from_trained_model_folder(str(toy[0]), (0,))
    wanted = theirs.predict_single_npy_array(
        np.ascontiguousarray(chi.transpose(2, 1, 0))[None], {"spacing": [2.0, 2.0, 3.0]}
    )
    capsys.readouterr()
    found = models.predict(models.read_model(toy[0]), chi, (3, 2, 2))
    assert np.array_equal(found.argmax(0), wanted.transpose(2, 1, 0))
    assert capsys.readouterr().out == ""


def test_folds_are_averaged(toy):
    model, (chi, _) = models.read_model(toy[0]), case(9)
    shifted = {k: v + 0.02 for k, v in model.folds[0].items()}
    from dataclasses import replace

    single = [
        models.predict(replace(model, folds=(f,)), chi, (2, 2, 2))
        for f in (model.folds[0], shifted)
    ]
    both = models.predict(replace(model, folds=(model.folds[0], shifted)), chi, (2, 2, 2))
    logits = [np.log(p) - np.log(p[:1]) for p in single]
    mean = np.exp(sum(logits) / 2)
    assert np.allclose(both, mean / mean.sum(0), atol=2e-3)


def test_our_trainer_resumes_and_its_slim_export_is_nnunets(toy, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from qsm_nipype.training import nnunet

    _, stage, root = toy
    schedule = {"iterations": 2, "held_out": 1, "device": torch.device("cpu")}
    nnunet.train(stage, root, epochs=1, **schedule)
    final = nnunet.train(stage, root, epochs=2, **schedule)
    content = torch.load(final, weights_only=True)
    assert len(content["logging"]["train_losses"]) == 2
    for other in ({"epochs": 1}, {"epochs": 2, "seed": 1}):
        with pytest.raises(UsageError, match="give another OUT"):
            nnunet.train(stage, root, **schedule, **other)
    final.unlink()
    again = torch.load(nnunet.train(stage, root, epochs=2, **schedule), weights_only=True)
    uninterrupted = again["network_weights"]
    assert all(torch.equal(v, uninterrupted[k]) for k, v in content["network_weights"].items())
    with pytest.raises(UsageError, match="other volumes"):
        nnunet.prepare(stage, [case(seed) for seed in range(1, 4)], root)
    out = nnunet.export(stage, root, final, tmp_path / "toy.zip", "about it")
    model = models.read_model(out)
    assert model.description["description"] == "about it" and len(model.folds) == 1
    assert {v.dtype for v in model.folds[0].values()} == {torch.float16, torch.float32}
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "unpacked")
        names = [Path(n) for n in archive.namelist()]
    (folder,) = {tmp_path / "unpacked" / n.parent for n in names if n.name == "plans.json"}
    theirs = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    theirs.initialize_from_trained_model_folder(str(folder), ("all",))
    assert (
        out.stat().st_size
        < 1.2
        * sum(
            2 * v.numel()
            for k, v in content["network_weights"].items()
            if "decoder.encoder" not in k
        )
        + 20_000
    )


class Evil:
    """Leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_refused_and_not_run(copy, tmp_path):
    checkpoint = copy / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "init_args": Evil(tmp_path / "ran")}, checkpoint)
    with pytest.raises(WeightsError, match="code in it is not run"):
        models.read_model(copy)
    checkpoint.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(WeightsError, match="code in it is not run"):
        models.read_model(copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "torch.nn.parallel.distributed.os.system", "torch.load"]
)
def test_a_plan_that_names_anything_but_layers_is_refused(copy, name):
    plans = json.loads((copy / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"]["nonlin"] = name
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(WeightsError, match="is no layer of PyTorch or nnU-Net"):
        models.predict(models.read_model(copy), np.zeros((16, 16, 16)), (2, 2, 2))


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/outside", "a/../../b", "C:\\evil", "..\\x"]
)
def test_archives_that_point_outside_are_refused(tmp_path, name):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/plans.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(WeightsError, match="points outside the archive"):
        models.read_model(path)


def test_what_is_no_model_is_said_in_a_sentence(copy, tmp_path):
    with pytest.raises(WeightsError, match="no such model"):
        models.read_model(tmp_path / "nothing")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(WeightsError, match="neither a folder nor a zip"):
        models.read_model(tmp_path / "text.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no plans.json"):
        models.read_model(tmp_path / "empty")
    shutil.copytree(copy, tmp_path / "two" / "a")
    shutil.copytree(copy, tmp_path / "two" / "b")
    with pytest.raises(WeightsError, match="2 trained models in it"):
        models.read_model(tmp_path / "two")
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [
        4,
        9,
        8,
    ]
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(WeightsError, match="don't fit the plan's network"):
        models.predict(models.read_model(copy), np.zeros((16, 16, 16)), (2, 2, 2))
    (copy / "plans.json").write_text("{}")
    with pytest.raises(WeightsError, match="not the plan or checkpoint"):
        models.read_model(copy)
    shutil.rmtree(copy / "fold_0")
    shutil.rmtree(copy / "fold_all")
    with pytest.raises(WeightsError, match="0 trained models"):
        models.read_model(copy)
