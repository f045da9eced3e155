"""Training: an interrupted run ends as an uninterrupted one; the command does what it says."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.models.weights import read
from qsm_nipype.simulation import colin
from qsm_nipype.training import command, qsmgan, qsmgan_data
from qsm_nipype.training.loop import Average, Plan, cosine_rate, run
from qsm_nipype.training.sources import Sample


class _Fit:
    """Fits a straight line: small enough to run hundreds of steps."""

    def __init__(self, plan, stop=None):
        torch.manual_seed(plan.seed)
        self.network = torch.nn.Linear(1, 1)
        self.average = Average(self.network, plan.average)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
        }
        self.stop = stop

    def draw(self, step, rng):
        return step, torch.from_numpy(rng.standard_normal((16, 1)).astype(np.float32))

    def step(self, batch, rate):
        step, x = batch
        if step == self.stop:
            raise KeyboardInterrupt
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = (self.network(x) - (3 * x + 1 + 0.1 * torch.randn(16, 1))).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "rate": rate}

    def validate(self):
        with torch.no_grad():
            return float((self.average.network(torch.ones(1, 1)) - 4).abs())


PLAN = Plan(
    steps=60, learning_rate=0.3, warm_up=5, average=0.9, validate_every=60, checkpoint=0.0, seed=7
)


def _silent(line):
    pass


def test_an_interrupted_run_with_workers_ends_as_an_uninterrupted_one_without(tmp_path):
    best = run(_Fit(PLAN), tmp_path / "whole", PLAN, report=_silent)
    with pytest.raises(KeyboardInterrupt):
        run(_Fit(PLAN, stop=37), tmp_path / "cut", PLAN, report=_silent)
    with (tmp_path / "cut" / "log.csv").open("a") as stream:
        stream.write("38,0.1,,,0.1,,0.1\n")  # done after the last checkpoint, then lost
    run(_Fit(PLAN), tmp_path / "cut", replace(PLAN, workers=2), report=_silent)
    one, two = (
        torch.load(tmp_path / d / "last.pt", weights_only=True)["parts"] for d in ("whole", "cut")
    )
    flat = [[*p["network"].values(), *p["average"]["network"].values()] for p in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*flat, strict=True))
    assert best.is_file() and (tmp_path / "cut" / "curve.png").stat().st_size > 1000
    with (tmp_path / "cut" / "log.csv").open() as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream)]
    assert steps == list(range(1, 61))


def test_it_learns_and_keeps_the_best(tmp_path):
    task = _Fit(PLAN)
    run(task, tmp_path, PLAN, report=_silent)
    assert task.validate() < 0.15
    assert set(torch.load(tmp_path / "best.pt", weights_only=True)) == {"weight", "bias"}


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run(_Fit(PLAN), tmp_path, PLAN, report=_silent)
    before = (tmp_path / "last.pt").read_bytes()
    run(_Fit(PLAN), tmp_path, PLAN, report=_silent)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_checkpoint_of_another_course_is_refused_and_more_steps_go_on(tmp_path):
    run(_Fit(PLAN), tmp_path, PLAN, report=_silent)
    for changed in ({"seed": 8}, {"learning_rate": 0.1}, {"average": 0.5}):
        other = replace(PLAN, **changed)
        with pytest.raises(UsageError, match="give an empty folder"):
            run(_Fit(other), tmp_path, other, report=_silent)
    longer = replace(PLAN, steps=70)
    run(_Fit(longer), tmp_path, longer, report=_silent)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 70


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match="give an empty folder"):
        run(_Fit(PLAN), tmp_path, PLAN, report=_silent)


def test_the_rate_rises_then_falls_as_a_cosine():
    plan = Plan(steps=1000, learning_rate=1.0, warm_up=10)
    assert cosine_rate(0, plan) == pytest.approx(0.1)
    assert cosine_rate(10, plan) == pytest.approx(1.0)
    assert cosine_rate(505, plan) == pytest.approx(0.505)
    assert cosine_rate(1000, plan) == pytest.approx(0.01)


def test_the_average_follows_and_copies_counters():
    network = torch.nn.BatchNorm1d(1)
    average = Average(network, 0.5)
    network.weight.data.fill_(3.0)
    network.num_batches_tracked.fill_(9)
    for _ in range(60):
        average.update(network)
    assert average.network.weight.item() == pytest.approx(3.0, abs=1e-6)
    assert average.network.num_batches_tracked.item() == 9
    assert not average.network.weight.requires_grad


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(qsmgan, "STAGES", ((0.5, 16, 2, 2), (1.0, 32, 1, 8)))
    monkeypatch.setattr(qsmgan, "ADVERSARIAL_PATCH", (32, 2, 4))
    monkeypatch.setattr(qsmgan, "CHECK_EDGE", 32)


@pytest.fixture
def no_templates(monkeypatch, tmp_path):
    monkeypatch.setattr(colin, "TEMPLATES", tmp_path / "none")


def test_the_command_trains_both_stages_and_writes_weights(tmp_path, small, no_templates, capsys):
    argv = ["qsmgan", str(tmp_path / "out"), "--volumes", "3", "--held-out", "1", "--edge", "32"]
    argv += ["--steps", "3", "--refine-steps", "1", "--threads", "1", "--anatomy"]
    with pytest.raises(DataError, match="mricron-data"):
        command.main([*argv, str(tmp_path)])
    argv[-1:] = []
    assert command.main(argv) == 0
    found = read(tmp_path / "out" / "qsmgan.safetensors")
    assert found.about["stage"] == "wgan" and found.about["data"] == "simulated only"
    assert (tmp_path / "out" / "unet" / "log.csv").is_file()
    with (tmp_path / "out" / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r["noise_ppb"] for r in rows] == ["0.5", "2", "5"]
    assert all(float(r["TKD, best threshold"]) <= float(r["TKD"]) for r in rows)
    assert "SHA-256" in capsys.readouterr().out
    row = (tmp_path / "out" / "wgan" / "log.csv").read_text().splitlines()[1].split(",")
    assert math.isfinite(float(row[3]))


def test_generator_learns_a_single_batch(small):
    rng = np.random.default_rng(0)
    chi = 0.1 * rng.standard_normal((32, 32, 32)).astype(np.float32)
    everywhere = np.ones(chi.shape, bool)
    volumes = qsmgan_data.Patches([Sample(chi, chi / 3, everywhere, np.zeros((2, *chi.shape)))])
    plan = Plan(steps=12, learning_rate=3e-3)
    task = qsmgan.UNetTask(volumes, volumes, plan, torch.device("cpu"))
    batch = volumes.batch(np.random.default_rng(1), 16, 2)
    first, *_, last = (task.step((batch, 2), 3e-3)["loss"] for _ in range(12))
    assert last < 0.7 * first


@pytest.mark.parametrize(
    ("extra", "match"),
    [(["--steps", "0"], "--steps"), (["--volumes", "2", "--held-out", "2"], "--held-out")],
)
def test_nonsense_is_refused(tmp_path, extra, match):
    with pytest.raises(UsageError, match=match):
        command.main(["qsmgan", str(tmp_path), *extra])
