"""The networks: what each takes and gives, on which grid, and which weights belong to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models import weights as store

if TYPE_CHECKING:
    from qsm_nipype.models.nnunet import Model


@dataclass(frozen=True)
class Network:
    """A network's contract; `module` is `package.module:Class`, "" for an nnU-Net model.

    `patch` in voxels of `voxel_size` (mm; None: the acquisition's own), `checksum` the SHA-256
    of the shipped weight file `file` (None: none is shipped), `replaceable` whether the user may
    name other weights (--weights NETWORK=PATH), `needs` networks that work before it.
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
    citation: str
    training: str
    replaceable: bool = False
    needs: tuple[str, ...] = ()

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
            inputs="local field, ppm, times 100, zero outside the mask; with three channels also "
            "the first guesses of chi, ppm, times 10, the last of which it corrects",
            outputs="tanh(10 chi), chi in ppm",
            voxel_size=1.0,
            orientation="third axis along B0; the other two in any order and sense",
            patch=(64, 64, 64),
            file="qsmgan.safetensors",
            checksum="df666948576b02fb067148d7a779199eaac1afc45ffb476355b16b1e1de34ae3",
            replaceable=True,
            citation="Chen2020",
            training="simulated data only, see the model card",
        ),
        Network(
            name="mask",
            module="qsm_nipype.models.mask:MaskNet",
            inputs="whole-head gradient-echo magnitude, minimum-maximum scaled to [0, 1]",
            outputs="logits of the brain",
            voxel_size=2.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(80, 96, 80),
            file="mask.safetensors",
            checksum="c8d3133903e928436ae05772fae45d4338d5e7cbfeee6e34a9da368fc9bd252f",
            replaceable=True,
            citation="Lee2025",
            training="simulated data only, see the model card",
        ),
        Network(
            name="cerebellum",
            module="",
            inputs="susceptibility, ppm; zero outside the mask",
            outputs="1: cerebellum, 2: the place of the dentate nuclei in it",
            voxel_size=4.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(48, 56, 48),
            file="cerebellum.zip",
            checksum="f357573dfc7b9bc1807b225b581c157288f9f232fc7d93498f7cfdb98c96cae9",
            citation="Shiraishi2025",
            training="simulated data only, see the model card",
        ),
        Network(
            name="dentate",
            module="",
            inputs="susceptibility around the dentate nuclei, ppm",
            outputs="1: left, 2: right dentate nucleus",
            voxel_size=1.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(72, 48, 40),
            file="dentate.zip",
            checksum="f19942b085ad75fdcc8a3625eab983fd095d7e0088588a842df28749737750c6",
            replaceable=True,
            needs=("cerebellum",),
            citation="Shiraishi2025",
            training="simulated data only, see the model card",
        ),
        Network(
            name="regionsplace",
            module="",
            inputs="susceptibility, ppm; zero outside the mask",
            outputs="1: the place of the deep grey nuclei",
            voxel_size=4.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(48, 56, 48),
            file="regionsplace.zip",
            checksum="e93b208e6d5eaab1288e14ae139b6392db8653ebb403bc0a270972f745f818d8",
            citation="Isensee2021",
            training="simulated data only, see the model card",
        ),
        Network(
            name="regions",
            module="",
            inputs="susceptibility around the deep grey nuclei, ppm",
            outputs="kinds of nuclei, the same on both sides (core.deep_grey.KINDS)",
            voxel_size=2.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(48, 56, 40),
            file="regions.zip",
            checksum="8315bb76d94b9d31b0dbb9126faac2c6758d3b6a57b101694a92d1f6238bb368",
            replaceable=True,
            needs=("regionsplace",),
            citation="Isensee2021",
            training="simulated data only, see the model card",
        ),
        Network(
            name="rim",
            module="qsm_nipype.models.rim:RimNet",
            inputs="susceptibility (ppm, cut at 0.3) times 10, FLAIR over its median in the brain "
            "minus 1, and the radiomics named in the weight file",
            outputs="logit of a paramagnetic rim",
            voxel_size=1.0,
            orientation="RAS+: axes to the right, to the front, upwards",
            patch=(28, 28, 28),
            file="rim.safetensors",
            checksum="de2b4a38aae859161afd612edf4d4e9f8db932528671d53c00a118ef0f055d7b",
            replaceable=True,
            citation="Zhang2022",
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
    return store.read(_shipped_file(entry), entry.checksum)


def read_nnunet(name: str, path: str | os.PathLike[str] | None = None) -> Model:
    """The user's nnU-Net model at `path`, or the shipped one after its checksum was compared.

    Raises WeightsError, also when none is shipped, with how to get one.
    """
    from qsm_nipype.models.nnunet import read_model

    if path is not None:
        return read_model(Path(path))
    entry = find(name)
    source = _shipped_file(entry)
    if store.digest(source) != entry.checksum:
        raise WeightsError(
            f"{source}: the checksum is not that of the model card; install it again"
        )
    return read_model(source)


def check(name: str, path: str | os.PathLike[str] | None = None) -> None:
    """Raise WeightsError now where a network's weights could not be used later."""
    entry = find(name)
    if entry.module:
        found = read_weights(name, path)
        if path is not None and name != "rim":  # its features are named by who calls it
            import_module(entry.module.split(":")[0]).load_network(found)
        return
    read_nnunet(name, path)
    for other in entry.needs:
        read_nnunet(other)


def _shipped_file(entry: Network) -> Path:
    if not shipped(entry.name):
        if not entry.replaceable:
            raise WeightsError(f"{entry.name}: its weights are missing; install qsm-nipype again")
        raise WeightsError(
            f"{entry.name}: this version ships no weights; train them with 'qsm-nipype train "
            f"{entry.name} OUT' or give others by --weights {entry.name}=PATH"
        )
    return store.FOLDER / entry.file
