"""The training loop shared by all networks: resumable, seeded, logged, with averaged weights."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qsm_nipype.errors import UsageError
from qsm_nipype.system.files import atomic, write_text

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """How long and how often: `steps` of the schedule, checkpoints every `checkpoint` seconds.

    `workers` processes draw the batches ahead of the training (0: none).
    """

    steps: int
    learning_rate: float = 1e-3
    warm_up: int = 50
    average: float = 0.998
    validate_every: int = 100
    checkpoint: float = 180.0
    seed: int = 0
    workers: int = 0


class Task(Protocol):
    """What is trained: everything in `state` has `state_dict` and is saved in the checkpoint."""

    @property
    def network(self) -> nn.Module:
        """What `step` updates."""

    @property
    def average(self) -> Average[Any]:
        """The moving average of its weights, which is kept."""

    @property
    def state(self) -> Mapping[str, Any]:
        """All that a checkpoint needs."""

    def draw(self, step: int, rng: np.random.Generator) -> Any:
        """The batch of one step, on the CPU; may run in another process."""

    def step(self, batch: Any, rate: float) -> dict[str, float]:
        """One update with learning rate `rate`; returns the losses for the log."""

    def validate(self) -> float:
        """Error of the averaged network on held-out data: smaller is better."""


class Average(Generic[Network]):
    """Exponential moving average of a network's weights and buffers."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards `network`; faster in the first steps, when the start is far away."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], 1 - decay)
            else:
                mean.copy_(current[name])

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])


def cosine_rate(step: int, plan: Plan) -> float:
    """Learning rate: linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < plan.warm_up:
        return plan.learning_rate * (step + 1) / plan.warm_up
    progress = min(1.0, (step - plan.warm_up) / max(1, plan.steps - plan.warm_up))
    return plan.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def save_atomically(state: Any, path: Path) -> None:
    """`torch.save`, under the final name only when complete: never half a checkpoint."""
    with atomic(path) as partial:
        torch.save(state, partial)


def run(task: Task, out: Path, plan: Plan, *, report: Callable[[str], None] = print) -> Path:
    """Train `task` until `plan.steps`, from the last checkpoint in `out` if there is one.

    Every step draws from its own generator, seeded by (seed, step), so that an interrupted run
    ends as an uninterrupted one, within what the arithmetic itself repeats (float32 on the CPU:
    to the last bit; bfloat16 and CUDA: within rounding), and the number of workers changes
    nothing. Writes `last.pt`, `best.pt` (averaged weights with the lowest validation error),
    `log.csv` and `curve.png`. Returns the path of `best.pt`. Raises UsageError for a checkpoint
    that is damaged, of another network, or of another seed or rate.
    """
    out.mkdir(parents=True, exist_ok=True)
    last, best_path = out / "last.pt", out / "best.pt"
    log = out / "log.csv"
    first, best = _resume(task, last, plan)
    _forget_after(log, first)
    saved = time.monotonic()
    start = time.monotonic()
    for step, batch in zip(range(first, plan.steps), _batches(task, plan, first), strict=True):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        row = task.step(batch, cosine_rate(step, plan))
        task.average.update(task.network)
        end = step + 1 == plan.steps
        if (step + 1) % plan.validate_every == 0 or end:
            row["validation"] = error = task.validate()
            report(f"step {step + 1}/{plan.steps}: validation {error:.4f}")
            if error < best:
                best = error
                save_atomically(task.average.network.state_dict(), best_path)
        now = time.monotonic()
        row["seconds"], start = now - start, now
        _log(log, step + 1, row)
        if time.monotonic() - saved >= plan.checkpoint or end:
            _checkpoint(task, last, plan, step + 1, best)
            saved = time.monotonic()
        if "validation" in row:
            draw_curve(log, out / "curve.png")
    return best_path


class _Draws(Dataset):
    """The batches of a task by the number of the step."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed

    def __getitem__(self, step: int) -> Any:
        return self._task.draw(step, np.random.default_rng([self._seed, step]))


def _batches(task: Task, plan: Plan, first: int) -> DataLoader:
    """The batches of the steps from `first` on, in order."""
    return DataLoader(
        _Draws(task, plan.seed),
        batch_size=None,
        sampler=range(first, plan.steps),
        num_workers=plan.workers,
        multiprocessing_context="fork" if plan.workers else None,
        prefetch_factor=4 if plan.workers else None,
    )


def _course(plan: Plan) -> dict[str, float]:
    """What of a plan may not change on the way; more `steps` make a longer training."""
    return {name: getattr(plan, name) for name in ("seed", "learning_rate", "average")}


def _checkpoint(task: Task, path: Path, plan: Plan, step: int, best: float) -> None:
    parts = {name: part.state_dict() for name, part in task.state.items()}
    state = {"step": step, "best": best, "course": _course(plan), "parts": parts}
    save_atomically(state, path)


def _resume(task: Task, path: Path, plan: Plan) -> tuple[int, float]:
    if not path.exists():
        return 0, math.inf
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        if saved["course"] != _course(plan):
            raise UsageError(
                f"{path} is of a training with {saved['course']}, not {_course(plan)}; give an "
                "empty folder"
            )
        for name, part in task.state.items():
            part.load_state_dict(saved["parts"][name])
    except (pickle.UnpicklingError, RuntimeError, KeyError, ValueError, EOFError) as exc:
        raise UsageError(
            f"{path}: this checkpoint is damaged or of another network; give an empty folder"
        ) from exc
    return int(saved["step"]), float(saved["best"])


COLUMNS = ("step", "loss", "adversarial", "critic", "rate", "validation", "seconds")


def _log(path: Path, step: int, row: Mapping[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({"step": step} | {k: f"{v:.6g}" for k, v in row.items()})


def _forget_after(path: Path, step: int) -> None:
    """Drop the log's lines after `step`: they are done again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
    write_text(path, "".join([*lines[:1], *kept]))


def draw_curve(log: Path, picture: Path) -> None:
    """The training loss (smoothed) and the validation error over the steps, as PNG."""
    from matplotlib.figure import Figure

    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = np.array([int(r["step"]) for r in rows])
    loss = np.array([float(r["loss"]) for r in rows])
    window = max(1, min(25, loss.size // 4))
    smooth = np.convolve(loss, np.ones(window) / window, "valid")
    checks = [(int(r["step"]), float(r["validation"])) for r in rows if r["validation"]]
    axes = (figure := Figure((7, 4))).subplots()
    axes.semilogy(steps[window - 1 :], smooth, label="training loss", color="0.5")
    if checks:
        axes.semilogy(*zip(*checks, strict=True), "o-", label="validation error", ms=3)
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=100)


def to_device(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on `device`."""
    return tuple(t.to(device, non_blocking=True) for t in tensors)
