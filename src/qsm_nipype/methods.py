"""The registry: which method serves which step, what runs it, and what to cite.

A method's parameters and their defaults are those of its core function; nothing is repeated
here. CONTRIBUTING.md says how to add a row.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qsm_nipype.errors import UsageError

#: Parameters of a core function that the pipeline supplies and a user cannot set.
SUPPLIED = frozenset(
    {
        *("field", "mask", "voxel_size", "b0_dir", "noise", "magnitude", "phase", "echo_times"),
        *("b0", "echo_time", "total_field", "quality", "reliability", "residual", "unwrapped"),
    }
)


@dataclass(frozen=True)
class Method:
    """One way to do one step.

    `function` and `interface` are `module:name`, imported when needed; `memory` is the peak in
    bytes per voxel of one echo (per voxel and echo where `per_echo`), beyond the interpreter's.
    """

    step: str
    name: str
    label: str
    function: str
    interface: str
    memory: float = 64.0
    per_echo: bool = False
    from_total_field: bool = False

    @property
    def key(self) -> str:
        """`inversion.tv`: how settings and records name it."""
        return f"{self.step}.{self.name}"

    def parameters(self) -> dict[str, Any]:
        """The parameters a user can set, with their defaults."""
        module, name = self.function.split(":")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        return {
            key: parameter.default
            for key, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and key not in SUPPLIED
        }


def _row(step: str, name: str, label: str, function: str, interface: str, **more: Any) -> Method:
    """A row whose function lies in `core` and whose interface in `interfaces`."""
    return Method(
        step,
        name,
        label,
        f"qsm_nipype.core.{function}",
        f"qsm_nipype.interfaces.{interface}",
        **more,
    )


METHODS: tuple[Method, ...] = (
    _row(
        *("offset", "mcpc3ds", "MCPC-3D-S", "offsets:mcpc3ds", "fieldmap:MCPC3DS"),
        memory=48,
        per_echo=True,
    ),
    _row(
        *("unwrapping", "romeo", "ROMEO", "unwrapping:romeo", "fieldmap:Romeo"),
        memory=48,
        per_echo=True,
    ),
    _row(
        *("unwrapping", "laplacian", "Laplacian", "unwrapping:laplacian"),
        "fieldmap:LaplacianUnwrap",
        memory=48,
        per_echo=True,
    ),
    _row(
        *("fit", "linear", "Weighted linear fit", "fieldmap:linear_fit", "fieldmap:LinearFit"),
        memory=48,
        per_echo=True,
    ),
    _row(
        *("fit", "nonlinear", "Complex fit", "fieldmap:nonlinear_fit", "fieldmap:NonlinearFit"),
        memory=64,
        per_echo=True,
    ),
    _row(
        *("mask", "quality", "Brain with trustworthy phase", "masking:quality_mask"),
        "masking:QualityMask",
        memory=80,
    ),
    _row(
        *("mask", "brain", "Brain by magnitude", "masking:brain_mask", "masking:BrainMask"),
        memory=80,
    ),
    _row(
        *("mask", "magnitude", "Signal", "masking:magnitude_mask", "masking:MagnitudeMask"),
        memory=80,
    ),
    _row(
        *("background", "vsharp", "V-SHARP", "background.sharp:vsharp", "background:VSHARP"),
        memory=80,
    ),
    _row(
        *("background", "sharp", "SHARP", "background.sharp:sharp", "background:SHARP"),
        memory=64,
    ),
    _row(
        *("background", "resharp", "RESHARP", "background.sharp:resharp", "background:RESHARP"),
        memory=80,
    ),
    _row(*("inversion", "tv", "TV", "inversion.tv:tv", "inversion:TV"), memory=120),
    _row(*("inversion", "tkd", "TKD", "inversion.direct:tkd", "inversion:TKD"), memory=48),
    _row(
        *("inversion", "tikhonov", "Closed-form L2", "inversion.direct:tikhonov"),
        "inversion:Tikhonov",
        memory=48,
    ),
    _row(
        *("relaxometry", "loglinear", "Weighted log-linear fit", "relaxometry:loglinear"),
        "relaxometry:LogLinearDecay",
        memory=32,
        per_echo=True,
    ),
    _row(
        *("relaxometry", "arlo", "ARLO", "relaxometry:arlo", "relaxometry:ARLO"),
        memory=32,
        per_echo=True,
    ),  # fmt: skip
)

STEPS = {
    "offset": "phase offset removal",
    "unwrapping": "phase unwrapping",
    "fit": "field fit",
    "mask": "brain mask",
    "background": "background field removal",
    "inversion": "dipole inversion",
    "relaxometry": "R2* mapping",
}


def names(step: str) -> list[str]:
    """Names of the methods of a step, in the registry's order."""
    return [method.name for method in METHODS if method.step == step]


def get(step: str, name: str) -> Method:
    """The method `name` of `step`. Raises UsageError listing the ones there are."""
    for method in METHODS:
        if method.step == step and method.name == name:
            return method
    raise UsageError(
        f"{name!r} is no method for {STEPS[step]}; choose from {', '.join(names(step))}"
    )


def check_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse parameters of unknown methods and unknown parameters of known ones."""
    for key, values in parameters.items():
        step, _, name = key.partition(".")
        if step not in STEPS or not name:
            raise UsageError(f"{key!r} is no STEP.METHOD; the steps are {', '.join(STEPS)}")
        known = get(step, name).parameters()
        for parameter in values:
            if parameter not in known:
                raise UsageError(
                    f"{key} has no parameter {parameter!r}; it has {', '.join(known) or 'none'}"
                )
