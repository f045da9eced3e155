"""Methods by name: what there is is called, what there is not is refused."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qsm_nipype import methods
from qsm_nipype.core.mask_language import parse_masks, parse_operations
from qsm_nipype.errors import UsageError
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.settings import Settings

Parameters = Mapping[str, Mapping[str, Any]]
Weights = Mapping[str, "str | os.PathLike[str]"]

NONE: Mapping[str, Any] = MappingProxyType({})


def check_choices(names: Mapping[str, str], parameters: Parameters = NONE) -> None:
    """Refuse methods (by step) and parameters that the registry does not have: UsageError."""
    for step, name in names.items():
        methods.get(step, name)
    methods.check_parameters({key: {} for key in parameters})
    for key, values in parameters.items():
        known = methods.get(*key.split(".", 1)).parameters()
        methods.check_parameters({key: {n: v for n, v in values.items() if n not in known}})


def check_masks(method: str, operations: str) -> None:
    """Refuse unknown masks and operations before anything is computed. Raises UsageError."""
    parse_operations(operations)
    for part in parse_masks(method) if method else ():
        methods.get("mask", part.name)


def check_threshold(threshold: float) -> None:
    if not 0 <= threshold < math.inf:
        raise UsageError(f"two_stage {threshold:g}: give a susceptibility above 0 ppm, or 0")


def check_reference(kind: str, region: Any) -> None:
    kinds = Settings.__dataclass_fields__["reference"].metadata["choices"]
    if kind not in kinds:
        raise UsageError(f"reference {kind!r}: choose from {', '.join(kinds)}")
    if kind in ("csf", "region") and region is None:
        raise UsageError(f"reference {kind!r}: give its mask as region")


def call(step: str, name: str, parameters: Parameters, *args: Any, **known: Any) -> Any:
    """The core function of a method, given `args`, what it takes of `known`, its parameters."""
    check_choices({step: name}, parameters)
    method = methods.get(step, name)
    function = resolve(method.function)
    return function(*args, **accepted(function, **known), **parameters.get(method.key, {}))
