"""The registry: which method serves which step, what runs it, and what to cite.

A method's parameters and their defaults are those of its core function; nothing is repeated
here. CONTRIBUTING.md says how to add a row.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from qsm_nipype.errors import UsageError, did_you_mean
from qsm_nipype.system import yaml_text

#: Parameters of a core function that the pipeline supplies and a user cannot set.
SUPPLIED = frozenset(
    {
        *("field", "mask", "voxel_size", "b0_dir", "noise", "magnitude", "phase", "echo_times"),
        *("b0", "echo_time", "total_field", "quality", "reliability", "residual", "unwrapped"),
        *("csf", "chi", "generator", "network", "localiser", "segmenter", "mirrored", "device"),
        "gains",
        *("r2", "r2star", "r2prime", "refocusing"),
        *("coils", "sign", "units", "kind", "region", "threads", "min_volume"),
    }
)


@dataclass(frozen=True)
class Method:
    """One way to do one step.

    `interface` is `module:Class`, imported when needed; `memory` is the peak in bytes per voxel of
    one echo (per voxel and echo where `per_echo`), beyond the interpreter's and `fixed_gb`, which
    a network takes at any size; `extra` the optional package that it needs.
    """

    step: str
    name: str
    label: str
    interface: str
    memory: float
    fixed_gb: float = 0.0
    per_echo: bool = False
    from_total_field: bool = False
    network: str | None = None
    extra: str | None = None

    @property
    def key(self) -> str:
        """`inversion.tv`: how settings and records name it."""
        return f"{self.step}.{self.name}"

    @property
    def is_network(self) -> bool:
        """Whether a deep network does it."""
        return self.network is not None or self.extra is not None

    @property
    def function(self) -> str:
        """`module:name` of what does the work, as the interface names it."""
        module, name = self.interface.split(":")
        return getattr(importlib.import_module(module), name).function

    def parameters(self) -> dict[str, Any]:
        """The parameters a user can set, with their defaults."""
        module, name = self.function.split(":")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        return {
            key: parameter.default
            for key, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and key not in SUPPLIED
        }


def _load() -> tuple[Method, ...]:
    """The rows of data/methods.yml."""
    text = (resources.files("qsm_nipype.data") / "methods.yml").read_text(encoding="utf-8")
    rows = []
    for key, row in yaml_text.parse(text).items():
        step, name = key.split(".")
        rows.append(
            Method(
                step=step,
                name=name,
                label=row["label"],
                interface=f"qsm_nipype.interfaces.{row['interface']}",
                memory=float(row["memory"]),
                fixed_gb=float(row.get("fixed", 0.0)),
                per_echo=row.get("per_echo", False),
                from_total_field=row.get("total", False),
                network=row.get("network"),
                extra=row.get("extra"),
            )
        )
    return tuple(rows)


METHODS: tuple[Method, ...] = _load()


@dataclass(frozen=True)
class StepKind:
    """A step of the pipeline: what it is called, and whether an option of its name chooses it."""

    title: str
    option: bool = True


#: The steps in their order.
STEPS = {
    "given": StepKind("map that was given", option=False),
    "read": StepKind("reading of phase and magnitude", option=False),
    "offset": StepKind("phase offset removal"),
    "unwrapping": StepKind("phase unwrapping"),
    "fit": StepKind("field fit"),
    "mask": StepKind("brain mask"),
    "trim": StepKind("trimming of the mask"),
    "background": StepKind("background field removal"),
    "inversion": StepKind("dipole inversion"),
    "two_stage": StepKind("two-stage reconstruction", option=False),
    "reference": StepKind("referencing"),
    "relaxometry": StepKind("R2* mapping"),
    "r2prime": StepKind("R2′ mapping", option=False),
    "separation": StepKind("separation of susceptibility sources"),
    "segmentation": StepKind("segmentation"),
    "regions": StepKind("statistics of regions", option=False),
    "lesions": StepKind("classification of lesions", option=False),
    "swi": StepKind("susceptibility-weighted imaging"),
    "vessels": StepKind("search for veins and bleeds"),
}
#: Steps whose method the user chooses by the option of the step's name.
CHOSEN = tuple(step for step, kind in STEPS.items() if kind.option)


def names(step: str) -> list[str]:
    """Names of the methods of a step, in the registry's order."""
    return [method.name for method in METHODS if method.step == step]


def get(step: str, name: str) -> Method:
    """The method `name` of `step`. Raises UsageError listing the ones there are."""
    for method in METHODS:
        if method.step == step and method.name == name:
            return method
    raise UsageError(
        f"{name!r} is no method for {STEPS[step].title}"
        f"{did_you_mean(name, names(step))}; choose from {', '.join(names(step))}"
    )


def check_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse parameters of unknown methods, unknown parameters of known ones, unfit values."""
    for key, values in parameters.items():
        step, _, name = key.partition(".")
        if step not in STEPS or not name:
            raise UsageError(f"{key!r} is no STEP.METHOD; the steps are {', '.join(STEPS)}")
        method = get(step, name)
        known = method.parameters()
        for parameter, value in values.items():
            if parameter not in known:
                raise UsageError(
                    f"{key} has no parameter {parameter!r}{did_you_mean(parameter, known)}; "
                    f"it has {', '.join(known) or 'none'}"
                )
            _check_value(method, parameter, value)


def _check_value(method: Method, parameter: str, value: Any) -> None:
    """Refuse a value that the interface's trait does not take. Raises UsageError."""
    from traits.api import Bool, TraitError

    module, name = method.interface.split(":")
    inputs = getattr(importlib.import_module(module), name).input_spec()
    trait = inputs.trait(parameter)
    try:
        if isinstance(value, bool) and not trait.is_trait_type(Bool):  # would pass for 0 or 1
            raise TraitError
        if isinstance(value, float) and math.isnan(value):
            raise TraitError
        setattr(inputs, parameter, value)
    except TraitError as exc:
        wanted = trait.full_info(inputs, parameter, value)
        raise UsageError(
            f"{method.key}.{parameter} cannot be {value!r}; give {wanted}, or leave it out"
        ) from exc


def resolve(function: str) -> Callable[..., Any]:
    """The function behind `package.module:name`, imported when first needed."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def accepted(function: Callable[..., Any], **candidates: Any) -> dict[str, Any]:
    """Those of `candidates` that `function` takes by name and that are not None."""
    names = inspect.signature(function).parameters
    return {k: v for k, v in candidates.items() if k in names and v is not None}
