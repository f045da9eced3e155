"""Weight files: checksum first, half precision on disk, float32 in memory, no pickle executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qsm_nipype.errors import WeightsError
from qsm_nipype.models.untrusted import (
    LARGEST_TEXT,
    check_finite,
    load_checkpoint,
    parse_json,
    read_file,
)
from qsm_nipype.system.files import write_bytes

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Weights:
    """Float32 tensors by parameter name, what the file says about itself, and where it was."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Write safetensors and return the checksum.

    Kernels are stored in half precision; vectors (biases, normalisation) stay float32, since the
    variances of batch normalisation can be too small for it.
    """
    from safetensors.torch import save as pack

    small = {
        name: (t.half() if t.is_floating_point() and t.ndim > 1 else t).contiguous().cpu()
        for name, t in tensors.items()
    }
    data = pack(small, metadata=dict(about))
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read(path: str | os.PathLike[str], sha256: str | None = None) -> Weights:
    """Read safetensors or a PyTorch checkpoint (a file, or a folder with `net_best.pt`).

    With `sha256` the checksum is compared before anything is decoded. A PyTorch file is opened
    with `weights_only`, so nothing in it is executed. Raises WeightsError in one sentence.
    """
    source = Path(path)
    if source.is_dir():
        source = source / "net_best.pt"
    data = read_file(source)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsError(
            f"{source}: the checksum is not that of the model card; install or copy it again"
        )
    if source.suffix == ".safetensors":
        return _read_safetensors(data, source)
    return _read_checkpoint(data, source)


def _read_safetensors(data: bytes, source: Path) -> Weights:
    from safetensors.torch import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}
    except Exception as exc:  # whatever noise makes of a reader
        raise WeightsError(f"{source}: not a readable safetensors file; copy it again") from exc
    return _checked(tensors, about, source)


def _read_checkpoint(data: bytes, source: Path) -> Weights:
    content = load_checkpoint(data, str(source))
    tensors, about = _state_dict(content, source), _configuration(source)
    if isinstance(content, Mapping) and "netG" in content:
        about = {"field_sign": "-1"} | about  # the public QSMGAN defines D with the other sign
    return _checked(tensors, about, source)


def _checked(tensors: Mapping[str, Tensor], about: Mapping[str, str], source: Path) -> Weights:
    """Raises WeightsError for weights that are not finite."""
    check_finite(tensors, str(source))
    return Weights(_float32(tensors), about, str(source))


def _state_dict(content: Any, source: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whatever they are wrapped in."""
    for key in ("netG", "state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(v, Tensor) for v in content.values()
    ):
        raise WeightsError(f"{source}: no table of tensors in it; save the state_dict alone")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def _configuration(source: Path) -> dict[str, str]:
    """Scales from the `config.json` beside a published QSMGAN checkpoint."""
    path = source.with_name("config.json")
    if not path.is_file():
        return {}
    try:
        settings = parse_json(read_file(path, LARGEST_TEXT), str(path))
        settings = settings.get("dset_args", settings)
        scales = {k: settings[k] for k in ("input_scale", "output_scale") if k in settings}
        return {k: str(float(v)) for k, v in scales.items()}
    except (ValueError, TypeError, AttributeError) as exc:
        raise WeightsError(f"{path}: not a readable configuration; copy it again") from exc


def _float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def fill(network: nn.Module, weights: Weights) -> nn.Module:
    """Put `weights` into `network` (all of them, no other) and return it, in evaluation mode."""
    try:
        network.load_state_dict(dict(weights.tensors))
    except RuntimeError as exc:
        raise WeightsError(
            f"{weights.path}: these are the weights of another network than "
            f"{type(network).__name__}; give the file of the right one"
        ) from exc
    if not all(bool(torch.isfinite(t).all()) for t in weights.tensors.values()):
        raise WeightsError(f"{weights.path}: some weights are not finite; train or copy it again")
    return network.eval()
