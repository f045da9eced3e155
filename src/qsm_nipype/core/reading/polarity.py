"""Two habits of scanners that turn phase around: slices in alternating polarity, inverted sign."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.offsets import block_mean
from qsm_nipype.core.phase import wrap
from qsm_nipype.core.unwrapping import romeo, signal_mask

#: Susceptibility of tissue against air in ppm, for the sign of the field at the head's surface.
_TISSUE_CHI = -9.4


def alternating_axis(phase: Tensor, magnitude: Tensor) -> int | None:
    """The axis along which every other slice is turned by π (GE), or None.

    Along such an axis most pairs of neighbouring slices have opposite phase: the signal-weighted
    mean of cos(Δφ) is clearly negative in over 0.6 of them, counted over all echoes (steep fields
    leave 0.8 in 3 mm voxels at 28 ms; without alternation it is 0.05 at most). `phase`,
    `magnitude` `(X, Y, Z, E)`.
    """
    for axis in (2, 1, 0):
        n = phase.shape[axis]
        if n < 4:
            continue
        every = [slice(None) if a == axis else slice(None, None, 2) for a in range(3)]
        angle, signal = phase[tuple(every)], magnitude[tuple(every)]  # a quarter is enough
        cosine = torch.diff(angle, dim=axis).cos_()
        pair = signal.narrow(axis, 0, n - 1) * signal.narrow(axis, 1, n - 1)
        others = [a for a in range(3) if a != axis]
        weight = pair.sum(dim=others)
        mean = (pair * cosine).sum(dim=others) / weight.clamp_min(1e-30)
        strong = weight > 0.1 * weight.amax(dim=0, keepdim=True)
        if (mean[strong] < -0.3).float().mean() > 0.6:
            return axis
    return None


def undo_alternation(phase: Tensor, axis: int) -> Tensor:
    """`phase` `(X, Y, Z, E)` with every odd slice along `axis` turned by π."""
    turn = torch.zeros(phase.shape[axis], dtype=phase.dtype, device=phase.device)
    turn[1::2] = math.pi
    view = [1] * phase.dim()
    view[axis] = -1
    return wrap(phase + turn.view(view))


def undo_alternations(phase: Tensor, magnitude: Tensor) -> tuple[Tensor, list[int]]:
    """`phase` `(X, Y, Z, E)` without alternation along any axis, and the axes that had one.

    A k-space whose centre was not moved to the corner turns the image along several axes.
    """
    axes: list[int] = []
    while (axis := alternating_axis(phase, magnitude)) is not None and axis not in axes:
        phase = undo_alternation(phase, axis)
        axes.append(axis)
    return phase, sorted(axes)


def shows_sign(magnitude: Tensor, voxel_size: Sequence[float], b0_dir: Sequence[float]) -> bool:
    """Whether enough of a head is in view for `sign_agreement` to decide on the sign.

    Faces at which the image cuts the head look like its surface, but have no field of their own;
    of slabs thin along B0, one in fifty agrees with the wrong sign. Enough are 100 mm along B0 or
    0.6 of the extent across (newborns, animals); √12 standard deviations of the voxels with
    signal count as extent, which is the length of a block. `magnitude` `(X, Y, Z, E)`.
    """
    where = 2.0 * torch.nonzero(signal_mask(magnitude)[::2, ::2, ::2])
    if where.shape[0] < 100:
        return False
    covariance = 12 * torch.cov((where * where.new_tensor(list(voxel_size))).T)
    direction = where.new_tensor(list(b0_dir))
    along = float(direction @ covariance @ direction)
    across = (float(covariance.trace()) - along) / 2
    return along >= 100.0**2 or along >= 0.6**2 * across


def sign_agreement(
    phase: Tensor,
    magnitude: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
) -> float:
    """Correlation in [−1, 1] of the measured field with that of a diamagnetic head.

    Where there is signal there is tissue, 9.4 ppm more diamagnetic than air: that alone fixes
    the pattern of the field near the head's surface and its cavities. Both fields are compared
    on blocks of 3 mm inside the head, after what a second-order shim can make has been taken
    out of them. Clearly negative means that the phase was stored with inverted sign. `phase`,
    `magnitude` `(X, Y, Z, E)`; with two echoes or more the phase difference of the first two is
    used, which is free of the offset. 0 where the image holds no air, hence no head's outline.
    """
    mask = signal_mask(magnitude)
    if not 0.02 < float(mask.float().mean()) < 0.9:
        return 0.0
    blocks = [max(1, round(3.0 / float(step))) for step in voxel_size]
    step = [b * float(s) for b, s in zip(blocks, voxel_size, strict=True)]
    if phase.shape[3] == 1:
        angle, pair = phase[..., 0], magnitude[..., 0].square()
    else:
        angle = phase[..., 1] - phase[..., 0]
        pair = magnitude[..., 1] * magnitude[..., 0]
    parts = torch.stack([pair * angle.cos(), pair * angle.sin(), mask.to(phase.dtype)])
    real, imaginary, filled = block_mean(parts, blocks)
    signal = torch.hypot(real, imaginary).sqrt()
    # well above the noise: single voxels of air would close up to tissue
    small = (filled > 0.5) & (signal > 0.2 * signal[filled > 0.5].quantile(0.9))
    if int(small.sum()) < 1000:
        return 0.0
    # bone has no signal either: gaps of up to a centimetre count as tissue
    tissue = _eroded(_dilated(small, step, 5.0), step, 5.0) | small
    model = dipole_field(tissue.to(phase.dtype) * _TISSUE_CHI, step, b0_dir)
    inner = small & _eroded(tissue, step, 6.0) & (signal > 0.3 * signal[small].median())
    wrapped = torch.atan2(imaginary, real).unsqueeze(-1)
    measured = romeo(wrapped, [1.0], magnitude=signal.unsqueeze(-1), mask=small).phase[..., 0]
    where = torch.nonzero(inner)
    if where.shape[0] < 500:
        return 0.0
    at, shim = tuple(where.T), _second_order(where.to(phase.dtype))
    a, b = (_clipped(_without(shim, field[at])) for field in (measured, model))
    power = float(a.square().sum()) * float(b.square().sum())
    return float((a * b).sum()) / math.sqrt(power) if power > 0 else 0.0


def _second_order(position: Tensor) -> Tensor:
    """All products of up to two coordinates `(N, 3)`, scaled to ±1, as columns."""
    x = position - position.mean(dim=0)
    x = x / x.abs().amax(dim=0).clamp_min(1)
    squares = [x[:, i] * x[:, j] for i in range(3) for j in range(i, 3)]
    return torch.stack([torch.ones_like(x[:, 0]), *x.T, *squares], dim=1)


def _dilated(mask: Tensor, voxel_size: Sequence[float], reach: float) -> Tensor:
    """`mask` `(X, Y, Z)` grown by a box of `reach` mm to each side."""
    x = mask.float()[None, None]
    for axis, step in enumerate(voxel_size):
        size, pad = [1, 1, 1], [0, 0, 0]
        pad[axis] = min(max(1, round(reach / float(step))), mask.shape[axis] // 4)
        size[axis] = 2 * pad[axis] + 1
        x = functional.max_pool3d(x, size, stride=1, padding=pad)
    return x[0, 0] > 0.5


def _eroded(mask: Tensor, voxel_size: Sequence[float], reach: float) -> Tensor:
    return ~_dilated(~mask, voxel_size, reach)


def _clipped(values: Tensor) -> Tensor:
    """`values` no further from 0 than 19 of 20 are: borders are unsure."""
    limit = values.abs().quantile(0.95)
    return values.clamp(-limit, limit)


def _without(basis: Tensor, values: Tensor) -> Tensor:
    """`values` less their least-squares fit by the columns of `basis`."""
    fit = torch.linalg.lstsq(basis, values.unsqueeze(1)).solution
    return values - (basis @ fit).squeeze(1)
