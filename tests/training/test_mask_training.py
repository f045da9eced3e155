"""Training of the mask network: truth stays on the brain, one seed gives one image, it learns."""

import csv
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from qsm_nipype.errors import DataError
from qsm_nipype.models.mask import load_network
from qsm_nipype.models.weights import read
from qsm_nipype.simulation import colin
from qsm_nipype.simulation import labels as lab
from qsm_nipype.training import command, heads, mask
from qsm_nipype.training.loop import Plan, run
from qsm_nipype.training.synthesis import example

PATCH = (32, 48, 32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    heads.make_cache(folder, 2, voxel=6.0)
    return folder


@pytest.fixture(scope="module")
def anatomy(cache):
    return heads.Anatomy.load(cache / "anatomy-0000.npz")


@pytest.fixture(scope="module")
def flat(anatomy):
    """A head whose brain alone gives signal, without anything that disturbs it."""
    shape = anatomy.labels.shape
    inside = np.where(anatomy.distance < 0, lab.WHITE_MATTER, lab.AIR).astype(np.uint8)
    return heads.Anatomy(
        inside, anatomy.distance, np.zeros(shape, np.float16), np.zeros(shape, np.uint8), 6.0
    )


def test_an_anatomy_is_a_head_with_a_brain(anatomy):
    brain = anatomy.distance < 0
    assert 0.9 < brain.sum() * 6**3 / 1e6 < 2.0  # litres
    assert (anatomy.labels[brain] != lab.AIR).mean() > 0.97
    assert np.isfinite(anatomy.slope).all() and anatomy.slope.max() > 0.1
    assert anatomy.distance.min() < -100 and anatomy.distance.max() == 127


def test_workers_make_the_same_heads_and_keep_those_that_are_there(cache, tmp_path):
    kept = shutil.copy(cache / "anatomy-0000.npz", tmp_path)
    shutil.copy(cache / "anatomy.json", tmp_path)
    before = Path(kept).stat().st_mtime_ns
    paths = heads.make_cache(tmp_path, 2, voxel=6.0, workers=2)
    assert Path(kept).stat().st_mtime_ns == before
    one, two = (heads.Anatomy.load(folder / paths[1].name) for folder in (cache, tmp_path))
    assert all(np.array_equal(array, vars(two)[name]) for name, array in vars(one).items())


def test_the_same_seed_gives_the_same_image(anatomy):
    one, two = (example(np.random.default_rng(5), anatomy, PATCH, voxel=5.0) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    other = example(np.random.default_rng(6), anatomy, PATCH, voxel=5.0)
    assert not torch.equal(one[0], other[0])


def test_images_are_scaled_and_finite(anatomy):
    for seed in range(20):
        image, coverage = example(np.random.default_rng(seed), anatomy, PATCH, voxel=5.0)
        assert image.shape == coverage.shape == PATCH
        assert torch.isfinite(image).all()
        assert image.min() == 0 and image.max() == pytest.approx(1.0)
        assert coverage.min() >= 0 and coverage.max() <= 1


def test_the_truth_lies_on_the_brain_through_every_augmentation(flat):
    """Where only the brain shines, brightness and truth must agree, whatever was drawn."""
    agreed = []
    for seed in range(24):
        image, coverage = example(np.random.default_rng(seed), flat, PATCH, voxel=5.0)
        brain = coverage > 0.5
        if brain.sum() < 200:
            continue
        agreed.append(float(image[brain].mean() / image[coverage < 0.01].mean().clamp_min(1e-6)))
    assert len(agreed) > 15 and np.median(agreed) > 5 and min(agreed) > 1.5


def test_the_loss_prefers_the_truth():
    truth = torch.zeros(1, 1, 8, 8, 8)
    truth[..., 2:6, 2:6, 2:6] = 1
    right, wrong = (20 * (2 * truth - 1), 20 * (1 - 2 * truth))
    assert mask.mask_loss(right, truth) < 0.01 < 2 < mask.mask_loss(wrong, truth)


def test_a_step_changes_the_network_and_validation_is_a_share(cache, monkeypatch):
    monkeypatch.setattr(mask, "VOXELS", (5.0, 6.0))
    paths, cpu = sorted(cache.glob("*.npz")), torch.device("cpu")
    task = mask.MaskTask(paths, paths[:1], Plan(steps=2), cpu, batch=2, patch=(32, 48, 32))
    before = task.network.final_conv.weight.clone()
    batches = [task.draw(0, np.random.default_rng(seed)) for seed in range(4)]
    assert all(part.shape == (2, 1, 32, 48, 32) for batch in batches for part in batch)
    rows = [task.step(batch, 1e-3) for batch in batches]
    assert all(0 < row["loss"] < 3 for row in rows)
    assert not torch.equal(before, task.network.final_conv.weight)
    assert 0 <= task.validate() <= 1


def test_training_goes_on_where_it_was_cut_to_the_same_bits(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(mask, "VOXELS", (5.0, 6.0))
    monkeypatch.setattr(mask, "has_bfloat16", lambda device: False)
    paths = sorted(cache.glob("*.npz"))

    def train(folder, steps):
        plan = Plan(steps=steps, warm_up=1, validate_every=3, checkpoint=0.0)
        task = mask.MaskTask(paths, paths[:1], plan, torch.device("cpu"), patch=(32, 32, 32))
        monkeypatch.setattr("qsm_nipype.training.loop.cosine_rate", lambda *_: 1e-3)
        run(task, tmp_path / folder, plan, report=lambda line: None)
        return torch.load(tmp_path / folder / "last.pt", weights_only=True)["parts"]

    train("cut", 2)
    one, two = train("whole", 3), train("cut", 3)
    for part in ("network", "average"):
        flat = [p[part].get("network", p[part]) for p in (one, two)]
        assert all(torch.equal(value, flat[1][name]) for name, value in flat[0].items())


def test_the_command_writes_weights_that_know_their_voxel(cache, tmp_path, monkeypatch):
    small = functools.partial(mask.MaskTask, patch=(32, 32, 32))
    monkeypatch.setattr(mask, "MaskTask", small)
    monkeypatch.setattr(heads, "make_cache", functools.partial(heads.make_cache, voxel=6.0))
    monkeypatch.setattr(colin, "TEMPLATES", tmp_path / "none")
    argv = ["mask", str(tmp_path / "out"), "--cache", str(cache), "--volumes", "2"]
    argv += ["--held-out", "1", "--steps", "2", "--threads", "1"]
    with pytest.raises(DataError, match="mricron-data"):
        command.main([*argv, "--anatomy", str(tmp_path)])
    assert command.main(argv) == 0
    network, voxel = load_network(read(tmp_path / "out" / "mask.safetensors"))
    assert voxel == mask.NETWORK_VOXEL and not network.training
    with (tmp_path / "out" / "mask" / "log.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2
