"""nnU-Net [Isensee2021]_ small enough for a CPU: data set, plan, trainer, exported folder.

Imports nnU-Net, which takes seconds and wants environment variables, so only `train` uses it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  its own documentation's name
import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.models.torchvision import make_importable
from qsm_nipype.system.files import atomic

make_importable()
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json  # noqa: E402
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E402
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprint_dataset,
)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # noqa: E402
    DefaultPreprocessor,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Stage:
    """One network: nnU-Net's data-set number and name, its labels, spacing (mm) and plan.

    `patch` is in voxels along (z, y, x), as nnU-Net stores volumes; `features` are the channels
    of its levels; `rotation` (degrees) that of the augmentation. `normalization` is nnU-Net's
    scheme: per volume, or ("CTNormalization") by the values inside the labels of all volumes.
    `mirrored`: left and right have the same labels, so the augmentation may exchange them.
    """

    number: int
    name: str
    labels: Mapping[str, int]
    spacing: float
    patch: tuple[int, int, int]
    features: tuple[int, ...]
    batch: int = 2
    rotation: float = 20.0
    normalization: str = "ZScoreNormalization"
    mirrored: bool = False

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the data set."""
        return f"Dataset{self.number:03d}_{self.name}"


def set_folders(root: Path) -> None:
    """Tell nnU-Net where to work: below `root`, without workers or compilation."""
    for kind in ("raw", "preprocessed", "results"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{kind}"] = str(root / kind)
    os.environ.update(nnUNet_n_proc_DA="0", nnUNet_compile="f")


def _write(path: Path, volume: np.ndarray, spacing: float) -> None:
    """`volume` `(X, Y, Z)` in RAS+ as NIfTI; in SimpleITK x runs to the left and y to the back."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
    image.SetSpacing([spacing] * 3)
    image.SetDirection([-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0])
    sitk.WriteImage(image, str(path))


def prepare(stage: Stage, cases: Sequence[tuple[np.ndarray, np.ndarray]], root: Path) -> None:
    """Write nnU-Net's raw and preprocessed data set of `cases` (chi, labels), both `(X, Y, Z)`.

    Axes are RAS+. What is already there is kept. Raises UsageError where that is of other cases.
    """
    set_folders(root)
    raw, ready = root / "raw" / stage.dataset, root / "preprocessed" / stage.dataset
    mark, known = ready / "complete", digest(cases)
    if mark.exists():
        if mark.read_text() != known:
            raise UsageError(f"{root} holds a training on other volumes; give another OUT")
        return
    for folder in (raw / "imagesTr", raw / "labelsTr"):
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"case{number:04d}" for number in range(len(cases))]
    for name, (chi, labels) in zip(names, cases, strict=True):
        _write(raw / "imagesTr" / f"{name}_0000.nii.gz", chi.astype(np.float32), stage.spacing)
        _write(raw / "labelsTr" / f"{name}.nii.gz", labels.astype(np.uint8), stage.spacing)
    description = {
        "channel_names": {"0": "QSM"},
        "labels": {"background": 0, **stage.labels},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
    }
    save_json(description, str(raw / "dataset.json"), sort_keys=False)
    extract_fingerprint_dataset(
        stage.number, num_processes=1, verbose=False, show_progress_bar=False
    )
    planner = ExperimentPlanner(stage.number, overwrite_target_spacing=[stage.spacing] * 3)
    threads = torch.get_num_threads()
    os.environ.update(nnUNet_n_proc_DA="1")  # the planner takes it for a number of threads
    planner.plan_experiment()
    os.environ.update(nnUNet_n_proc_DA="0")
    torch.set_num_threads(threads)
    plans = small_plans(load_json(str(ready / f"{PLANS}.json")), stage)
    save_json(plans, str(ready / f"{PLANS}.json"), sort_keys=False)
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    target = ready / configuration.data_identifier
    target.mkdir(exist_ok=True)
    worker = DefaultPreprocessor(verbose=False)
    for name in names:
        worker.run_case_save(
            str(target / name),
            [str(raw / "imagesTr" / f"{name}_0000.nii.gz")],
            str(raw / "labelsTr" / f"{name}.nii.gz"),
            manager,
            configuration,
            description,
        )
    mark.write_text(known)


def digest(cases: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """A fingerprint of images and labels, in their order."""
    total = hashlib.sha256()
    for arrays in cases:
        for array in arrays:
            total.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def small_plans(plans: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """nnU-Net's own plan with our patch, batch and a U-Net of `stage.features`."""
    full = plans["configurations"][CONFIGURATION]
    levels = len(stage.features)
    full["patch_size"], full["batch_size"] = list(stage.patch), stage.batch
    full["spacing"] = [stage.spacing] * 3
    full["normalization_schemes"] = [stage.normalization]
    full["architecture"]["arch_kwargs"] |= {
        "n_stages": levels,
        "features_per_stage": list(stage.features),
        "kernel_sizes": [[3, 3, 3]] * levels,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
        "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1),
    }
    return plans | {"configurations": {CONFIGURATION: full}}


class SmallTrainer(nnUNetTrainer):
    """nnU-Net's trainer with Adam, half a cosine, held-out cases, and left that stays left.

    Checkpoints hold tensors and plain values only and are read with `weights_only`.
    """

    held_out = 1
    rotation = 20.0
    mirrored = False
    seed = 0

    def schedule(
        self, stage: Stage, *, epochs: int, iterations: int, held_out: int, seed: int
    ) -> None:
        """How long to train, and how many cases (the last ones) to keep for validation."""
        self.seed = seed
        self.initial_lr, self.weight_decay = 2e-3, 1e-4
        self.num_epochs, self.num_iterations_per_epoch = epochs, iterations
        self.num_val_iterations_per_epoch = max(2, iterations // 8)
        self.save_every = 1
        self.oversample_foreground_percent = 0.5
        self.held_out = held_out
        self.rotation, self.mirrored = stage.rotation, stage.mirrored
        self.logger.plot_progress_png = lambda folder: None

    def initialize(self) -> None:
        """As nnU-Net, but begin with the belief that most voxels are background."""
        super().initialize()
        with torch.no_grad():
            for layer in self.network.decoder.seg_layers:
                layer.bias[0] += 3.0

    def configure_optimizers(self) -> tuple[Any, Any]:
        """AdamW, half a cosine from the initial rate to a hundredth of it."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
        )
        return optimizer, HalfCosine(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Moderate rotations of the head; at most left and right are exchanged."""
        _, flat, initial, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        angle = np.deg2rad(self.rotation)
        return (-angle, angle), flat, initial, (2,) if self.mirrored else ()

    def do_split(self) -> tuple[list[str], list[str]]:
        """All but the last `held_out` cases; those."""
        _, names = super().do_split()
        names = sorted(names)
        return names[: -self.held_out], names[-self.held_out :]

    def plot_network_architecture(self) -> None:
        """Nothing: it wants packages that nobody needs."""

    def _save_debug_information(self) -> None:
        """Nothing."""

    def on_train_epoch_start(self) -> None:
        """Every epoch draws its own numbers, whether or not the training was interrupted."""
        super().on_train_epoch_start()
        own = np.random.SeedSequence([self.seed, self.current_epoch]).generate_state(2)
        np.random.seed(own[0])  # nnU-Net draws from the global generators
        torch.manual_seed(int(own[1]))

    def course(self) -> dict[str, int]:
        """What may not change on the way; more epochs make a longer training."""
        return {
            "iterations": self.num_iterations_per_epoch,
            "held_out": self.held_out,
            "seed": self.seed,
        }

    def save_checkpoint(self, filename: str) -> None:
        """Tensors and plain values, under the final name only when complete."""
        content = {
            "network_weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "logging": _plain(self.logger.get_checkpoint()),
            "best_ema": None if self._best_ema is None else float(self._best_ema),
            "current_epoch": self.current_epoch + 1,
            "course": self.course(),
        }
        with atomic(filename) as partial:
            torch.save(content, partial)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of `save_checkpoint`."""
        content = self.read(path)
        self.initialize()
        self.network.load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        self.logger.load_checkpoint(content["logging"])
        self.current_epoch, self._best_ema = content["current_epoch"], content["best_ema"]

    def read(self, path: Path) -> dict[str, Any]:
        """A checkpoint of this very training. Raises UsageError for one of another."""
        content: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if content.get("course") != self.course():
            raise UsageError(
                f"{path} is of a training with {content.get('course')}, not {self.course()}; "
                "give another OUT"
            )
        return content


class HalfCosine:
    """Learning rate of an epoch, called as nnU-Net calls its schedulers."""

    def __init__(self, optimizer: torch.optim.Optimizer, peak: float, epochs: int) -> None:
        self.optimizer, self.peak, self.epochs = optimizer, peak, epochs

    def step(self, epoch: int) -> None:
        """Set the rate for `epoch`."""
        rate = self.peak * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * epoch / self.epochs)))
        for group in self.optimizer.param_groups:
            group["lr"] = float(rate)


def train(
    stage: Stage,
    root: Path,
    *,
    epochs: int,
    iterations: int,
    held_out: int,
    device: torch.device,
    seed: int = 0,
) -> Path:
    """Train a prepared stage, or go on where it stopped; returns its `checkpoint_final.pth`.

    Raises UsageError where another schedule or seed began.
    """
    set_folders(root)
    torch.manual_seed(seed)  # of the first weights
    ready = root / "preprocessed" / stage.dataset
    plans = load_json(str(ready / f"{PLANS}.json")) | {"continue_training": False}
    description = load_json(str(root / "raw" / stage.dataset / "dataset.json"))
    trainer = SmallTrainer(plans, CONFIGURATION, "all", description, device)  # type: ignore[arg-type]
    trainer.schedule(stage, epochs=epochs, iterations=iterations, held_out=held_out, seed=seed)
    folder = Path(trainer.output_folder)
    final, latest = folder / "checkpoint_final.pth", folder / "checkpoint_latest.pth"
    if final.is_file():
        done = trainer.read(final)["current_epoch"]
        if done == epochs:
            return final
        if done > epochs:
            raise UsageError(
                f"{final} was trained for {done} epochs, not {epochs}; give another OUT"
            )
        final.rename(latest)
    if latest.is_file():
        trainer.resume(latest)
    trainer.run_training()
    return final


def export(stage: Stage, root: Path, checkpoint: Path, target: Path, about: str) -> Path:
    """A slim zip in the layout of nnU-Net's exports: description, plan, half-precision weights.

    The checkpoint names nnU-Net's plain trainer, so that any nnU-Net v2 installs and runs it. The
    same weights give the same bytes.
    """
    plans = load_json(str(root / "preprocessed" / stage.dataset / f"{PLANS}.json"))
    description = load_json(str(root / "raw" / stage.dataset / "dataset.json"))
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["network_weights"]
    halved: dict[int, torch.Tensor] = {}  # nnU-Net's state names its encoder twice
    for value in weights.values():
        halved.setdefault(value.data_ptr(), value.half() if value.ndim > 1 else value.clone())
    small = {
        "network_weights": {k: halved[v.data_ptr()] for k, v in weights.items()},
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": None,
    }
    packed = io.BytesIO()
    torch.save(small, packed)
    files = {
        "plans.json": json.dumps(plans, indent=1).encode(),
        "dataset.json": json.dumps(description | {"description": about}, indent=1).encode(),
        "fold_all/checkpoint_final.pth": packed.getvalue(),
    }
    folder = f"{stage.dataset}/nnUNetTrainer__{PLANS}__{CONFIGURATION}"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), content)
    return target


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python numbers."""
    return json.loads(json.dumps(value, default=lambda v: np.asarray(v).tolist()))
