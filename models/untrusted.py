"""Files of strangers: their sizes are bounded before they are read, and nothing in them is run.

A checkpoint of PyTorch is a zip file of tensors stored as they are. Whatever is packed tighter,
encrypted, of another kind, or promises more than it holds is refused before torch sees it.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qsm_nipype.errors import WeightsError

#: Bytes of the largest file of weights, and of the largest description.
LARGEST, LARGEST_TEXT = 2 << 30, 16 << 20
#: How many times an entry of an archive may be larger than it is packed: weights hardly shrink.
_TIGHTEST, _SMALL = 50, 1 << 20


def read_file(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a regular file of at most `most`. Raises WeightsError."""
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: no such weight file, or not a file; give another")
        if path.stat().st_size > most:
            raise WeightsError(f"{path}: larger than {most / 1e9:.2g} GB; these are no weights")
        return path.read_bytes()
    except OSError as exc:
        raise WeightsError(f"{path}: cannot be read ({exc.strerror}); check the file") from exc


def read_entry(archive: zipfile.ZipFile, name: str, source: Path, most: int = LARGEST) -> bytes:
    """The bytes of an archive's entry, whatever it declares. Raises WeightsError."""
    try:
        entry = archive.getinfo(name)
        if entry.flag_bits & 1:
            raise WeightsError(f"{source}: {name!r} is encrypted; give the model without password")
        if entry.file_size > max(_SMALL, _TIGHTEST * entry.compress_size):
            raise WeightsError(f"{source}: {name!r} is packed tighter than weights can be")
        with archive.open(entry) as stream:
            data = stream.read(most + 1)
    except WeightsError:
        raise
    except Exception as exc:  # zlib, lzma, bz2 and zipfile have errors of their own
        raise WeightsError(f"{source}: {name!r} cannot be unpacked; copy it again") from exc
    if len(data) > most:
        raise WeightsError(f"{source}: {name!r} is larger than {most / 1e6:.4g} MB; not a model")
    return data


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises WeightsError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise WeightsError(f"{name}: not valid JSON; copy it again") from exc
    if not isinstance(content, dict):
        raise WeightsError(f"{name}: holds no JSON object; copy it again")
    return content


def load_checkpoint(data: bytes, name: str, allowed: Sequence[Any] = ()) -> Any:
    """The content of a PyTorch checkpoint, with classes of `allowed` at most.

    Raises WeightsError for anything but tensors, numbers and texts in a zip file or a pickle.
    """
    _check_archive(data, name)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as exc:  # whatever noise makes of a reader
        raise WeightsError(
            f"{name}: not a PyTorch checkpoint made of tensors only, and code in it is not run; "
            "save the state_dict alone"
        ) from exc
    for tensor in _tensors(content):
        check_tensor(tensor, name)
    return content


def _check_archive(data: bytes, name: str) -> None:
    """Refuse a zip file with entries that torch does not write. Raises WeightsError."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except Exception as exc:
        raise WeightsError(f"{name}: a damaged checkpoint; copy it again") from exc
    packed = any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries)
    if packed or sum(e.file_size for e in entries) > len(data):
        raise WeightsError(
            f"{name}: no checkpoint as torch.save writes it (packed or encrypted entries); save "
            "the state_dict again"
        )


def check_tensor(tensor: Tensor, name: str) -> None:
    """Refuse a tensor that claims more numbers than are stored. Raises WeightsError."""
    try:
        stored = tensor.untyped_storage().nbytes()
        too_many = tensor.layout != torch.strided or (
            math.prod(tensor.shape) * tensor.element_size() > stored
        )
    except (RuntimeError, NotImplementedError):  # sparse, or without storage
        too_many = True
    if too_many:
        raise WeightsError(
            f"{name}: a tensor in it is larger than what is stored; save the state_dict again"
        )


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite. Raises WeightsError."""
    for tensor in tensors.values():
        floats = tensor.is_floating_point() or tensor.is_complex()
        if floats and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name}: some weights are not finite; train or copy it again")


def _tensors(content: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and mappings, each once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple | set):
            waiting += item


def stated_number(about: Mapping[str, str], key: str, default: float, name: str) -> float:
    """A scale that a weight file states of itself. Raises WeightsError."""
    try:
        value = float(about.get(key, default))
    except (TypeError, ValueError):
        value = math.nan
    if not 1e-6 <= abs(value) <= 1e6:
        raise WeightsError(f"{name}: {key} in it is no usable number; train or copy it again")
    return value
