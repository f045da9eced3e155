"""Nodes made from the registry, with the memory and threads they may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nipype.pipeline import engine as pe

from qsm_nipype import methods
from qsm_nipype.interfaces.base import QSMInterface

#: Memory (GB) of a node's process before any volume: 0.25 to 0.4, by what ran in it before.
INTERPRETER_GB = 0.33


@dataclass(frozen=True)
class Resources:
    """What an acquisition's nodes need: its size, and what one node may use."""

    voxels: int
    echoes: int = 1
    threads: int = 1
    gpu: bool = False

    def memory(
        self, bytes_per_voxel: float, *, per_echo: bool = False, fixed_gb: float = 0.0
    ) -> float:
        """Peak memory in GB of a node that holds that many bytes for each voxel, and `fixed_gb`
        whatever the volume's size.
        """
        count = self.voxels * (self.echoes if per_echo else 1)
        return round(INTERPRETER_GB + fixed_gb + bytes_per_voxel * count / 1e9, 3)


def make(
    interface: QSMInterface,
    name: str,
    resources: Resources,
    *,
    bytes_per_voxel: float = 32.0,
    per_echo: bool = False,
    fixed_gb: float = 0.0,
    threads: int | None = None,
) -> pe.Node:
    """A node that declares its threads, and its memory from the volume's size."""
    threads = resources.threads if threads is None else threads
    interface.inputs.num_threads = threads
    memory = resources.memory(bytes_per_voxel, per_echo=per_echo, fixed_gb=fixed_gb)
    return pe.Node(interface, name=name, mem_gb=memory, n_procs=threads)


def make_method(
    step: str,
    name: str,
    resources: Resources,
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    node: str | None = None,
    **inputs: Any,
) -> pe.Node:
    """The node of the method `name` of `step`, with the user's parameters and fixed `inputs`."""
    method = methods.get(step, name)
    chosen = dict((parameters or {}).get(method.key, {}))
    interface = methods.resolve(method.interface)(**chosen)
    for port, value in inputs.items():
        if port in interface.inputs.copyable_trait_names():
            setattr(interface.inputs, port, value)
    if resources.gpu and (method.is_network or step == "inversion"):
        interface.inputs.use_gpu = True
    made = make(
        interface,
        node or name.replace("-", "_"),
        resources,
        bytes_per_voxel=method.memory,
        per_echo=method.per_echo,
        fixed_gb=method.fixed_gb,
    )
    if interface.inputs.use_gpu:
        made.n_procs = 1
    return made


def has_port(node: pe.Node, port: str) -> bool:
    """Whether a node's interface takes `port`: optional data go only to methods that use them."""
    return port in node.inputs.copyable_trait_names()
