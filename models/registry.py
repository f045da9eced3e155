"""The networks: what each takes and gives, on which grid, and which weights belong to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import nn

from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models import weights as store


@dataclass(frozen=True)
class Network:
    """A network's contract; `module` is `package.module:Class`.

    `patch` in voxels of `voxel_size` (mm; None: the acquisition's own), `checksum` the SHA-256
    of the shipped weight file `file` (None: none is shipped), `option` how the user names
    another weight file.
    """

    name: str
    module: str
    inputs: str
    outputs: str
    voxel_size: float | None
    orientation: str
    patch: tuple[int, int, int]
    file: str
    checksum: str | None
    option: str
    citation: str
    training: str

    def build(self) -> nn.Module:
        """The network with random weights."""
        module, name = self.module.split(":")
        factory: Callable[[], nn.Module] = getattr(import_module(module), name)
        return factory()


NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="qsmgan",
            module="qsm_nipype.models.qsmgan:Generator",
            inputs="local field, ppm, times 100; zero outside the mask",
            outputs="tanh(10 chi), chi in ppm",
            voxel_size=1.0,
            orientation="third axis along B0; the other two in any order and sense",
            patch=(64, 64, 64),
            file="qsmgan.safetensors",
            checksum=None,
            option="--inversion-weights",
            citation="Chen2020",
            training="simulated data only: random geometry and Colin27 brains, see the model card",
        ),
        Network(
            name="mask",
            module="qsm_nipype.models.mask:MaskNet",
            inputs="whole-head gradient-echo magnitude, minimum-maximum scaled to [0, 1]",
            outputs="logits of the brain",
            voxel_size=2.5,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(80, 96, 80),
            file="mask.safetensors",
            checksum=None,
            option="--mask-weights",
            citation="Lee2025",
            training="simulated data only, see the model card",
        ),
    )
}


def find(name: str) -> Network:
    """The entry called `name`. Raises UsageError with the names that exist."""
    try:
        return NETWORKS[name]
    except KeyError as exc:
        known = ", ".join(sorted(NETWORKS))
        raise UsageError(f"{name}: no such network; choose one of {known}") from exc


def shipped(name: str) -> bool:
    """Whether weights for the network `name` come with the package."""
    entry = find(name)
    return entry.checksum is not None and (store.FOLDER / entry.file).is_file()


def read_weights(name: str, path: str | os.PathLike[str] | None = None) -> store.Weights:
    """The user's weights at `path`, or the shipped ones after their checksum was compared.

    Raises WeightsError, also when none are shipped, with how to get some.
    """
    entry = find(name)
    if path is not None:
        return store.read(path)
    if not shipped(name):
        raise WeightsError(
            f"{name}: this version ships no weights; train them with 'qsm-nipype train {name} OUT'"
            f" or give a weight file with {entry.option}"
        )
    return store.read(store.FOLDER / entry.file, entry.checksum)
