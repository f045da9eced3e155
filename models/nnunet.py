"""nnU-Net v2 models [Isensee2021]_ as they are shared: folders or zip files, read without trust.

Nothing in a model is executed: checkpoints are opened with `weights_only`, a zip file is read
where it lies and never unpacked, and a plan may name layers of PyTorch and nnU-Net only.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.errors import WeightsError
from qsm_nipype.models.untrusted import (
    LARGEST,
    LARGEST_TEXT,
    check_finite,
    load_checkpoint,
    parse_json,
    read_entry,
    read_file,
)

#: Checkpoints of a fold, best first.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
#: Where the layers that a plan names may come from.
_TRUSTED = ("torch.nn.", "dynamic_network_architectures.")
#: Edges of a patch, its voxels, and voxel sizes (mm) of networks that can run; labels and numbers
#: in a plan.
_LONGEST_EDGE, _LARGEST_PATCH, _SPACING = 1024, 1 << 27, (0.2, 20.0)
_MOST_LABELS, _LARGEST_NUMBER, _LONGEST_LIST = 1000, 100_000, 100

Reader = Callable[[str, int], bytes]


@dataclass(frozen=True)
class Model:
    """A trained nnU-Net: its plan and description, and the weights of every fold."""

    plans: Mapping[str, Any]
    description: Mapping[str, Any]
    configuration: str
    folds: tuple[Mapping[str, Tensor], ...]
    path: str = ""

    @property
    def labels(self) -> dict[str, int]:
        """Name → value of the foreground labels."""
        return {
            str(name): int(value)
            for name, value in self.description["labels"].items()
            if isinstance(value, int) and value > 0
        }

    @property
    def _plan(self) -> Mapping[str, Any]:
        plan = dict(self.plans["configurations"][self.configuration])
        seen: set[str] = set()
        while "inherits_from" in plan:
            parent = plan.pop("inherits_from")
            if parent in seen:
                raise ValueError("the plan inherits from itself")
            seen.add(parent)
            plan = {**self.plans["configurations"][parent], **plan}
        return plan

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size (mm) along x, y, z that the network works at."""
        return tuple(float(v) for v in self._in_xyz(self._plan["spacing"]))

    @property
    def extent(self) -> tuple[float, ...]:
        """What one patch covers (mm) along x, y, z."""
        patch = self._in_xyz(self._plan["patch_size"])
        return tuple(float(n) * s for n, s in zip(patch, self.spacing, strict=True))

    def _in_xyz(self, values: Sequence[Any]) -> Sequence[Any]:
        back = self.plans.get("transpose_backward", [0, 1, 2])
        return [values[i] for i in back][::-1]


def read_model(path: str | Path) -> Model:
    """The model in a folder, or in a zip file of `nnUNetv2_export_model_to_zip`.

    The folder holds `plans.json`, `dataset.json` and `fold_*/checkpoint_final.pth`, or such a
    folder somewhere below it. All numbered folds are taken, else `fold_all`. Raises WeightsError
    in one sentence.
    """
    source = Path(path)
    if not source.exists():
        raise WeightsError(f"{source}: no such model; give an nnU-Net v2 folder or its zip file")
    if source.is_dir():
        names = [p.relative_to(source).as_posix() for p in sorted(source.rglob("*.*"))]
        return _read(source, names, lambda name, most: read_file(source / name, most))
    if not source.is_file():
        raise WeightsError(f"{source}: neither a folder nor a file; give an nnU-Net v2 model")
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            _check_names(source, archive)
            return _read(source, names, lambda n, most: read_entry(archive, n, source, most))
    except (zipfile.BadZipFile, OSError, ValueError) as exc:
        raise WeightsError(
            f"{source}: neither a folder nor a zip file; give an nnU-Net v2 model"
        ) from exc


def _check_names(source: Path, archive: zipfile.ZipFile) -> None:
    """Refuse archives that would write elsewhere when unpacked, whatever unpacks them."""
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
            raise WeightsError(
                f"{source}: the entry {entry.filename!r} points outside the archive; don't use it"
            )


def _read(source: Path, names: Sequence[str], read: Reader) -> Model:
    plans = [n for n in names if PurePosixPath(n).name == "plans.json"]
    folders = [n.removesuffix("plans.json") for n in plans]
    folders = [f for f in folders if f"{f}dataset.json" in names]
    if not folders:
        raise WeightsError(f"{source}: no plans.json with a dataset.json; not an nnU-Net v2 model")
    found = [(f, c) for f in folders if (c := _checkpoints(f, names))]
    if len(found) != 1:
        raise WeightsError(
            f"{source}: {len(found)} trained models in it, where one is needed; give the folder "
            "with plans.json and fold_*/checkpoint_final.pth"
        )
    (folder, checkpoints) = found[0]
    plan, description = (
        parse_json(read(f"{folder}{name}", LARGEST_TEXT), f"{source}/{folder}{name}")
        for name in ("plans.json", "dataset.json")
    )
    contents = [checkpoint(read(name, LARGEST), f"{source}/{name}") for name in checkpoints]
    try:
        configuration = str(contents[0]["init_args"]["configuration"])
        folds = tuple(content["network_weights"] for content in contents)
        model = Model(plan, description, configuration, folds, str(source))
        _check_plan(model)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as exc:
        raise WeightsError(
            f"{source}: not the plan or checkpoint of an nnU-Net v2 model that can run ({exc}); "
            "give another"
        ) from exc
    for number, fold in enumerate(folds):
        check_finite(fold, f"{source}, fold {number}")
    return model


def _check_plan(model: Model) -> None:
    """Raises ValueError, or what a plan of another shape raises, for one that cannot run."""
    patch = [int(n) for n in model._plan["patch_size"]]
    if len(patch) != 3 or not all(1 <= n <= _LONGEST_EDGE for n in patch):
        raise ValueError(f"patch size {patch}")
    if math.prod(patch) > _LARGEST_PATCH:
        raise ValueError(f"patch size {patch}")
    if not all(_SPACING[0] <= v <= _SPACING[1] for v in model.spacing):
        raise ValueError(f"voxels of {model.spacing} mm")
    if len(model.extent) != 3 or not 1 <= len(model.labels) <= _MOST_LABELS:
        raise ValueError(f"{len(model.labels)} labels")
    _check_numbers(model._plan.get("architecture", {}))


def _check_numbers(part: Any, depth: int = 0) -> None:
    """Refuse numbers and lists of an architecture that no network has. Raises ValueError."""
    if depth > 10 or isinstance(part, int | float) and not abs(part) <= _LARGEST_NUMBER:
        raise ValueError("numbers of the architecture")
    if isinstance(part, Mapping | list):
        if len(part) > _LONGEST_LIST:
            raise ValueError("lists of the architecture")
        for item in part.values() if isinstance(part, Mapping) else part:
            _check_numbers(item, depth + 1)


def _checkpoints(folder: str, names: Sequence[str]) -> list[str]:
    """The best checkpoint of every fold."""
    folds: dict[str, str] = {}
    for kind in reversed(CHECKPOINTS):
        for name in names:
            match = re.fullmatch(re.escape(folder) + rf"fold_(\d+|all)/{kind}", name)
            if match:
                folds[match[1]] = name
    numbered = sorted(f for f in folds if f != "all")
    return [folds[f] for f in numbered or folds]


def checkpoint(data: bytes, name: str) -> Mapping[str, Any]:
    """A checkpoint's content, opened so that nothing in it is executed.

    NumPy's numbers, which nnU-Net's log holds, are let through. Raises WeightsError.
    """
    content = load_checkpoint(data, name, _numbers())
    weights = content.get("network_weights") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(
        isinstance(v, Tensor) for v in weights.values()
    ):
        raise WeightsError(f"{name}: no network_weights in it; not an nnU-Net v2 checkpoint")
    return content


def _numbers() -> list[Any]:
    """What NumPy's scalars and arrays are made of when pickled, by both of its module names."""
    core = np._core.multiarray  # type: ignore[attr-defined]
    allowed: list[Any] = [np.dtype, np.ndarray, core.scalar, core._reconstruct]
    allowed += [(core.scalar, "numpy.core.multiarray.scalar")]
    allowed += [(core._reconstruct, "numpy.core.multiarray._reconstruct")]
    kinds = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    return [*allowed, *(type(np.dtype(kind)) for kind in kinds)]


def _check_layers(source: Path, plan: Mapping[str, Any]) -> None:
    """A plan names classes that nnU-Net imports and calls: only layers are let through."""
    from pydoc import locate

    from qsm_nipype.models.torchvision import make_importable

    make_importable()
    architecture = plan.get("architecture", {})
    arguments = architecture.get("arch_kwargs", {})
    names = [architecture.get("network_class_name")]
    names += [arguments.get(key) for key in architecture.get("_kw_requires_import", [])]
    for name in names:
        if name is None:
            continue
        found = locate(str(name)) if str(name).startswith(_TRUSTED) else None
        if not (
            isinstance(found, type)
            and issubclass(found, torch.nn.Module)
            and found.__module__.startswith(_TRUSTED)
        ):
            raise WeightsError(
                f"{source}: its plan names {name!r}, which is no layer of PyTorch or nnU-Net; "
                "don't use it"
            )


def predict(
    model: Model,
    volume: np.ndarray,
    voxel_size: Sequence[float] | np.ndarray,
    *,
    device: str = "cpu",
) -> np.ndarray:
    """Probabilities `(labels, X, Y, Z)` of `volume` `(X, Y, Z)`, background first.

    Axes are RAS+, `voxel_size` in mm; nnU-Net brings the volume to its spacing and back. Folds
    are averaged; there is no test-time mirroring, since it would exchange left and right. Raises
    WeightsError when the weights don't fit the plan.
    """
    from qsm_nipype.models.torchvision import make_importable

    make_importable()
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    spoken = io.StringIO()  # nnU-Net prints; a node's log shall not
    with redirect_stdout(spoken), _threads_kept():
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=device != "cpu",
            device=torch.device(device),
            allow_tqdm=False,
        )
        _initialise(predictor, model)
        _, found = predictor.predict_single_npy_array(
            np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=np.float32)[None],
            {"spacing": [float(v) for v in voxel_size[::-1]]},
            None,
            None,
            True,
        )
    return np.ascontiguousarray(np.asarray(found, dtype=np.float32).transpose(0, 3, 2, 1))


@contextmanager
def _threads_kept() -> Any:
    """nnU-Net changes the number of threads."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _initialise(predictor: Any, model: Model) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    _check_layers(Path(model.path), model._plan)
    manager = PlansManager(dict(model.plans))
    configuration = manager.get_configuration(model.configuration)
    description = dict(model.description)
    channels = determine_num_input_channels(manager, configuration, description)
    if channels != 1:
        raise WeightsError(f"{model.path}: wants {channels} images; give a model of QSM alone")
    folds = [{k: v.float() for k, v in fold.items()} for fold in model.folds]
    heads = manager.get_label_manager(description).num_segmentation_heads

    def build() -> torch.nn.Module:
        return get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels,
            heads,
            allow_init=False,
            deep_supervision=False,
        )

    try:
        with torch.device("meta"):  # shapes without memory
            promised = {name: value.shape for name, value in build().state_dict().items()}
        if any(fold[name].shape != shape for fold in folds for name, shape in promised.items()):
            raise ValueError("other shapes")
        network = build()
        for fold in folds:
            network.load_state_dict(fold)
    except (RuntimeError, AssertionError, TypeError, ValueError, KeyError) as exc:
        raise WeightsError(
            f"{model.path}: the weights don't fit the plan's network; it needs its own trainer, "
            "which is not run"
        ) from exc
    if not all(bool(torch.isfinite(v).all()) for fold in folds for v in fold.values()):
        raise WeightsError(f"{model.path}: some weights are not finite; train or copy it again")
    predictor.manual_initialization(
        network, manager, configuration, folds, description, "nnUNetTrainer", None
    )
