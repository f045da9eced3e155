"""What the steps of the chain start from: a scan's parameters, its echoes, its masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsm_nipype.core import region_values
from qsm_nipype.errors import DataError


@dataclass(frozen=True)
class ScanParameters:
    """How a gradient echo was acquired; what cannot be is refused.

    `echo_times` in s, increasing; `b0` in T; `voxel_size` in mm; `b0_dir` is the direction of B0
    along the voxel axes, of any length. Raises DataError.
    """

    echo_times: tuple[float, ...]
    b0: float
    voxel_size: tuple[float, float, float]
    b0_dir: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        times = self.echo_times
        if not times or not all(a < b < math.inf for a, b in zip((0.0, *times), times)):  # noqa: B905  one is longer
            raise DataError(
                f"echo_times {_shown(times)}: give the time of every echo in s, each later than "
                "the one before"
            )
        if not 0 < self.b0 < math.inf:
            raise DataError(f"b0 {self.b0:g}: give the field strength in T, above 0")
        if len(self.voxel_size) != 3 or not all(0 < v < math.inf for v in self.voxel_size):
            raise DataError(
                f"voxel_size {_shown(self.voxel_size)}: give three lengths in mm, above 0"
            )
        direction = self.b0_dir
        if len(direction) != 3 or not 0 < math.hypot(*direction) < math.inf:
            raise DataError(f"b0_dir {_shown(direction)}: give three numbers, not all zero")

    @property
    def echo_time(self) -> float:
        """The effective echo time: the mean of all, in s."""
        return sum(self.echo_times) / len(self.echo_times)


def as_echoes(phase: Any, magnitude: Any, scan: ScanParameters) -> tuple[Tensor, Tensor]:
    """Phase and magnitude as finite tensors `(X, Y, Z, E)`, E as many as echo times.

    One echo may be `(X, Y, Z)`. Raises DataError for other shapes, or a phase that is infinite or
    without a number.
    """
    phase, magnitude = (tensor(x) for x in (phase, magnitude))
    if phase.dim() == 3:
        phase = phase[..., None]
    if magnitude.dim() == 3:
        magnitude = magnitude[..., None]
    if phase.dim() != 4:
        raise DataError(f"phase: shape {_shown(phase.shape)}; give (X, Y, Z, echoes)")
    if magnitude.shape != phase.shape:
        raise DataError(
            f"magnitude: shape {_shown(magnitude.shape)} differs from the phase's "
            f"{_shown(phase.shape)}; give the magnitude of the same echoes"
        )
    if phase.shape[3] != len(scan.echo_times):
        raise DataError(
            f"phase: {phase.shape[3]} echoes for {len(scan.echo_times)} echo times; give one "
            "volume for each echo time"
        )
    if not bool(torch.isfinite(phase).any()):
        raise DataError("phase: no voxel has a number; look at how it was read")
    if bool(torch.isinf(phase).any()):
        raise DataError("phase: it has infinite values; set them to NaN if nothing was measured")
    magnitude = torch.nan_to_num(magnitude, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
    return torch.nan_to_num(phase), magnitude


def as_mask(mask: Any, like: Tensor, name: str) -> Tensor:
    """A mask `(X, Y, Z)` as bool on the grid of `like` `(X, Y, Z[, E])`: see `region_values`.

    Raises DataError, in which `name` says whose shape differs, or who has no voxel.
    """
    given = torch.as_tensor(mask)
    if given.shape[:3] != like.shape[:3]:
        raise DataError(
            f"{name}: shape {_shown(given.shape)} is not the data's {_shown(like.shape[:3])}; "
            "give it on the voxels of the data"
        )
    inside = region_values.binary(given.detach().cpu().numpy(), name)
    return torch.as_tensor(inside).to(like.device)


def tensor(x: Any) -> Tensor:
    return torch.as_tensor(x).to(torch.float32)


def numbers(values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError) as exc:
        raise DataError(f"{values!r}: {exc}; give a sequence of numbers") from exc


def three(values: Any) -> tuple[float, float, float]:
    return numbers(values)  # type: ignore[return-value]  # ScanParameters counts them


def _shown(values: Sequence[float]) -> str:
    return f"({', '.join(f'{v:g}' for v in values)})"
