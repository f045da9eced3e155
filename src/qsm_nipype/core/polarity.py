"""Two habits of scanners that turn phase around: slices in alternating polarity, inverted sign."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.unwrapping import signal_mask, wrap

#: Susceptibility of tissue against air in ppm, for the sign of the field at the head's surface.
_TISSUE = -9.4


def alternating_axis(phase: Tensor, magnitude: Tensor) -> int | None:
    """The axis along which every other slice is turned by π (GE), or None.

    Along such an axis nearly every pair of neighbouring slices has opposite phase, in all
    echoes: the signal-weighted mean of cos(Δφ) is clearly negative. `phase`, `magnitude`
    `(X, Y, Z, E)`.
    """
    for axis in (2, 1, 0):
        n = phase.shape[axis]
        if n < 4:
            continue
        cosine = torch.diff(phase, dim=axis).cos()
        pair = magnitude.narrow(axis, 0, n - 1) * magnitude.narrow(axis, 1, n - 1)
        others = [a for a in range(3) if a != axis]
        weight = pair.sum(dim=others)
        mean = (pair * cosine).sum(dim=others) / weight.clamp_min(1e-30)
        strong = weight > 0.1 * weight.amax(dim=0, keepdim=True)
        if (mean[strong] < -0.3).float().mean() > 0.9:
            return axis
    return None


def undo_alternation(phase: Tensor, axis: int) -> Tensor:
    """`phase` `(X, Y, Z, E)` with every odd slice along `axis` turned by π."""
    turn = torch.zeros(phase.shape[axis], dtype=phase.dtype, device=phase.device)
    turn[1::2] = math.pi
    view = [1] * phase.dim()
    view[axis] = -1
    return wrap(phase + turn.view(view))


def sign_agreement(
    phase: Tensor,
    magnitude: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
) -> float:
    """Correlation in [−1, 1] of the measured field's slopes with those of a diamagnetic head.

    Where there is signal there is tissue, 9.4 ppm more diamagnetic than air: that alone fixes
    the pattern of the field at the head's surface and near its cavities. Compared are the
    differences of neighbouring voxels (no unwrapping needed) after a shim-like linear function
    of the position has been taken out of each component. Clearly negative means that the phase
    was stored with inverted sign. `phase` `(X, Y, Z, E)`; with two echoes or more the phase
    difference of the first two is used, which is free of the offset.
    """
    mask = signal_mask(magnitude)
    if not mask.any() or mask.all():
        return 0.0
    model = dipole_field(mask.to(phase.dtype) * _TISSUE, voxel_size, b0_dir)
    signal = magnitude.square().sum(-1).sqrt()
    bright = mask & (signal > 0.3 * signal[mask].median())
    measured = phase[..., 0] if phase.shape[3] == 1 else phase[..., 1] - phase[..., 0]
    products, powers, expected = 0.0, 0.0, 0.0
    for axis in range(3):
        n = phase.shape[axis]
        steps = wrap(torch.diff(measured, dim=axis))
        pair = bright.narrow(axis, 0, n - 1) & bright.narrow(axis, 1, n - 1) & (steps.abs() < 1)
        where = torch.nonzero(pair)
        if where.shape[0] < 100:
            continue
        where = where[:: max(1, where.shape[0] // 200_000)]
        at = tuple(where.T)
        shim = torch.cat([torch.ones_like(where[:, :1]), where], dim=1).to(phase.dtype)
        slope = _clipped(_without(shim, steps[at]))
        model_slope = _clipped(_without(shim, torch.diff(model, dim=axis)[at]))
        products += float((slope * model_slope).sum())
        powers += float(slope.square().sum())
        expected += float(model_slope.square().sum())
    return products / math.sqrt(powers * expected) if powers * expected > 0 else 0.0


def _clipped(values: Tensor) -> Tensor:
    """`values` no further from 0 than nine tenths of them are: steps at borders are unsure."""
    limit = values.abs().quantile(0.9)
    return values.clamp(-limit, limit)


def _without(basis: Tensor, values: Tensor) -> Tensor:
    """`values` less their least-squares fit by the columns of `basis`."""
    scaled = basis / basis.abs().amax(dim=0).clamp_min(1)
    fit = torch.linalg.lstsq(scaled, values.unsqueeze(1)).solution
    return values - (scaled @ fit).squeeze(1)
