"""Signal lost within a voxel because the field changes across it, and the decay that it feigns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO

#: Share of the signal below which no correction goes: further from there the sinc has lobes.
LEAST_SHARE = 0.2


def field_steps(field: Tensor, mask: Tensor) -> list[Tensor]:
    """Change of `field` `(X, Y, Z)` across a voxel along each axis, from neighbours in `mask`.

    The mean of both sides where both neighbours are inside, else that of the one side, else 0.
    """
    found = []
    for axis in range(3):
        n = field.shape[axis]
        step = torch.diff(field, dim=axis)
        both = mask.narrow(axis, 0, n - 1) & mask.narrow(axis, 1, n - 1)
        step = torch.where(both, step, 0.0)
        total, count = torch.zeros_like(field), torch.zeros_like(field)
        for start in (0, 1):
            total.narrow(axis, start, n - 1).add_(step)
            count.narrow(axis, start, n - 1).add_(both)
        found.append(total / count.clamp_min(1))
    return found


def log_loss(field: Tensor, mask: Tensor, echo_times: Sequence[float], b0: float) -> Tensor:
    """−ln of the share of signal that is left `(N, E)` in the voxels of `mask`.

    A `field` (ppm of `b0` T) that changes by Δ across a voxel turns its signal by γΔ TE from one
    side to the other, and leaves sinc(γΔ TE) of it along each axis [FernandezSeara2000]_; never
    below a fifth. `echo_times` in s.
    """
    cycles = [GYROMAGNETIC_RATIO * b0 * step[mask] for step in field_steps(field, mask)]
    columns = []
    for te in echo_times:
        share = torch.ones_like(cycles[0])
        for turn in cycles:
            share = share * torch.sinc((turn * float(te)).clamp(-1, 1)).abs()
        columns.append(-share.clamp_min(LEAST_SHARE).log())
    return torch.stack(columns, -1)
