"""Phase offsets φ0(x) of gradient echoes: MCPC-3D-S, bipolar readouts, uncombined coils.

The model is φ_e(x) = φ0(x) + 2π f(x) t_e, with φ0 smooth in space (receive coil, reconstruction).
A single echo cannot tell φ0 from the field: there the offset is assumed to be zero up to whole
turns, and whatever smooth rest remains is left to background field removal, which takes out
every part without sources inside the brain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.unwrapping import (
    echo_first,
    echo_last,
    follow_field,
    romeo,
    signal_mask,
    wrap,
)

TWO_PI = 2.0 * math.pi


@dataclass(frozen=True)
class Offsets:
    """`phase` `(X, Y, Z, E)` with the offset removed (wrapped, rad) and what was removed.

    `offset` `(X, Y, Z)` is φ0, `alternating` `(X, Y, Z)` the odd/even part of a bipolar readout
    (added to odd, subtracted from even echoes; None for monopolar data).
    """

    phase: Tensor
    offset: Tensor
    alternating: Tensor | None = None


def mcpc3ds(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor | None = None,
    bipolar: bool = False,
    smoothing: float = 5.0,
) -> Offsets:
    """Remove the smooth phase offset by MCPC-3D-S [Eckstein2018]_.

    The phase difference between echoes (summed over neighbouring pairs when they are equally
    spaced) is unwrapped and extrapolated to t = 0; what the first echo has beyond that is the
    offset. It is smoothed with magnitude weights by a Gaussian of `smoothing` mm, then refined
    from the intercept of a straight line through all echoes. `phase`, `magnitude`
    `(X, Y, Z, E)`; `echo_times` in s. Raises ValueError for bipolar data of fewer than three
    echoes.
    """
    if phase.shape[3] == 1:
        return Offsets(wrap(phase), torch.zeros_like(phase[..., 0]))
    keep = signal_mask(magnitude) if mask is None else mask.bool()
    alternating = None
    if bipolar:
        alternating = bipolar_phase(
            phase, magnitude, echo_times, voxel_size, mask=keep, smoothing=smoothing
        )
        signs = phase.new_tensor([1.0 if e % 2 == 0 else -1.0 for e in range(phase.shape[3])])
        phase = wrap(phase - alternating.unsqueeze(-1) * signs)
    difference, spacing = _phase_difference(phase, magnitude, echo_times, keep)

    # φ0 = φ1 − Δφ t1/Δt
    raw = phase[..., 0] - difference * (float(echo_times[0]) / spacing)
    weight = magnitude[..., 0] * magnitude[..., 1] * keep
    offset = smooth_phase(raw, weight, voxel_size, smoothing)
    corrected = wrap(phase - offset.unsqueeze(-1))
    if phase.shape[3] > 2:
        field = difference / spacing
        intercept, weight = _intercept(corrected, magnitude, echo_times, field, keep)
        offset = offset + smooth_phase(intercept, weight, voxel_size, smoothing)
        corrected = wrap(phase - offset.unsqueeze(-1))
    return Offsets(corrected, wrap(offset), alternating)


def bipolar_phase(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor,
    smoothing: float = 5.0,
) -> Tensor:
    """Smooth phase β `(X, Y, Z)` that a bipolar readout adds to odd and takes from even echoes.

    From three echoes, φ1 + (φ3 − φ1) s − φ2 = 2β with s = (t2 − t1)/(t3 − t1). For equal spacing
    its double φ1 + φ3 − 2 φ2 = 4β needs no unwrapping in space. The constant part of β is taken
    as the one nearest to zero. Raises ValueError for fewer than three echoes.
    """
    if phase.shape[3] < 3:
        raise ValueError("a bipolar readout is corrected from at least three echoes")
    t1, t2, t3 = (float(t) for t in echo_times[:3])
    weight = magnitude[..., 0] * magnitude[..., 1] * mask
    if abs((t2 - t1) - (t3 - t2)) < 0.01 * (t2 - t1):
        multiple = 4.0
        raw = phase[..., 0] + phase[..., 2] - 2 * phase[..., 1]
    else:
        multiple = 2.0
        lapse = wrap(phase[..., 2] - phase[..., 0]).unsqueeze(-1)
        pair = (magnitude[..., 2] * magnitude[..., 0]).unsqueeze(-1)
        long = romeo(lapse, [t3 - t1], magnitude=pair, mask=mask).phase[..., 0]
        raw = phase[..., 0] + long * (t2 - t1) / (t3 - t1) - phase[..., 1]
    smooth = smooth_phase(raw, weight, voxel_size, smoothing).unsqueeze(-1)
    whole = torch.ones_like(mask)
    smooth = romeo(smooth, [t2 - t1], mask=whole).phase[..., 0]
    level = (smooth * weight).sum() / weight.sum().clamp_min(1e-30)
    return (smooth - TWO_PI * torch.round(level / TWO_PI)) / multiple


def combine_coils(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor | None = None,
    smoothing: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """Combine uncombined coils `(X, Y, Z, E, C)` → phase and magnitude `(X, Y, Z, E)`.

    The phase difference of the first two echoes, summed over coils, does not depend on the
    coils; extrapolated to t = 0 it yields each coil's own offset, which is smoothed and removed
    before the coils are added with their magnitudes as weights [Eckstein2018]_.
    """
    combined = magnitude.square().sum(-1).sqrt()
    keep = signal_mask(combined) if mask is None else mask.bool()
    real, imaginary = torch.zeros(2, *phase.shape[:4]).to(magnitude).unbind(0)
    if phase.shape[3] > 1:
        step = phase[..., 1, :] - phase[..., 0, :]
        pair = magnitude[..., 1, :] * magnitude[..., 0, :]
        step = torch.atan2((pair * step.sin()).sum(-1), (pair * step.cos()).sum(-1))
        spacing = float(echo_times[1]) - float(echo_times[0])
        signal = pair.sum(-1).sqrt().unsqueeze(-1)
        step = romeo(step.unsqueeze(-1), [spacing], magnitude=signal, mask=keep).phase[..., 0]
        evolution = step * (float(echo_times[0]) / spacing)
    else:
        # one echo: the coil with the most signal carries the common phase
        lead = int(magnitude.square().sum((0, 1, 2, 3)).argmax())
        evolution = phase[..., 0, lead]
    for coil in range(phase.shape[4]):
        weight = magnitude[..., 0, coil].square() * keep
        raw = phase[..., 0, coil] - evolution
        offset = smooth_phase(raw, weight, voxel_size, smoothing).unsqueeze(-1)
        turned = phase[..., coil] - offset
        strength = magnitude[..., coil].square()
        real = real + strength * turned.cos()
        imaginary = imaginary + strength * turned.sin()
    return torch.atan2(imaginary, real), combined


def smooth_phase(
    phase: Tensor, weight: Tensor, voxel_size: Sequence[float], sigma: float
) -> Tensor:
    """Smooth a (wrapped) phase map `(X, Y, Z)` with `weight` by a Gaussian of `sigma` mm.

    Works on complex numbers, so that wraps do not matter, and on blocks of about σ/2, so that
    its time does not grow with σ. What the Gaussian leaves behind is smoothed and added four
    times, without blocks off by over 1 rad: this takes the bias at borders and of curvature away,
    and outliers with it.
    """
    # odd blocks, padded alike on both sides: flipping the volume flips the result
    blocks = [2 * round((0.5 * sigma / float(step) - 1) / 2) + 1 for step in voxel_size]
    blocks = [max(1, b) for b in blocks]
    sigmas = [sigma / (b * float(step)) for b, step in zip(blocks, voxel_size, strict=True)]
    top = weight.amax().clamp_min(1e-30)
    weight = weight / top
    parts = torch.stack([weight * phase.cos(), weight * phase.sin()])
    small = block_mean(parts, blocks)
    z = torch.complex(small[0], small[1])
    estimate = _gauss(z, sigmas)
    estimate = estimate / estimate.abs().clamp_min(1e-20)
    for _ in range(4):
        rest = z * estimate.conj()
        rest = rest * (rest.real > 0.54 * rest.abs())  # cos(1 rad)
        correction = _gauss(rest, sigmas)
        strength = correction.abs()
        turn = torch.where(strength > 1e-12, correction / strength.clamp_min(1e-20), 1.0)
        estimate = estimate * turn
    estimate = torch.where(estimate.abs() > 0.5, estimate, torch.ones_like(estimate))
    return _upsample(estimate, blocks, phase.shape)


def _phase_difference(
    phase: Tensor, magnitude: Tensor, echo_times: Sequence[float], keep: Tensor
) -> tuple[Tensor, float]:
    """Unwrapped phase difference (rad) of neighbouring echoes, and their spacing in s."""
    times = [float(t) for t in echo_times]
    spacing = times[1] - times[0]
    pairs = [
        e for e in range(len(times) - 1) if abs(times[e + 1] - times[e] - spacing) < 0.01 * spacing
    ]
    real, imaginary = torch.zeros_like(phase[..., 0]), torch.zeros_like(phase[..., 0])
    for e in pairs:
        step = phase[..., e + 1] - phase[..., e]
        strength = magnitude[..., e + 1] * magnitude[..., e]
        real += strength * step.cos()
        imaginary += strength * step.sin()
    signal = torch.hypot(real, imaginary).sqrt().unsqueeze(-1)
    wrapped = torch.atan2(imaginary, real).unsqueeze(-1)
    return romeo(wrapped, [spacing], magnitude=signal, mask=keep).phase[..., 0], spacing


def _intercept(
    phase: Tensor, magnitude: Tensor, echo_times: Sequence[float], field: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Intercept (rad) of a weighted line through all echoes, and its inverse variance."""
    times = np.asarray(echo_times, np.float32)
    echoes, weights = echo_first(phase), echo_first(magnitude)
    inside = keep.cpu().numpy().reshape(-1)
    expected = field.cpu().numpy().reshape(-1) * times[0]
    first = echoes[0] + np.float32(TWO_PI) * np.rint((expected - echoes[0]) / np.float32(TWO_PI))
    unwrapped = follow_field(echoes, weights, times, 0, first, inside)
    phi = echo_last(unwrapped, phase.shape[:3]).to(phase)
    t = phase.new_tensor(times)
    w = magnitude.square()
    w0, w1, w2 = w.sum(-1), w @ t, w @ t**2
    y0, y1 = (w * phi).sum(-1), (w * phi) @ t
    determinant = (w0 * w2 - w1**2).clamp_min(0)
    intercept = (y0 * w2 - y1 * w1) / determinant.clamp_min(1e-30)
    weight = determinant / w2.clamp_min(1e-30) * keep
    good = torch.isfinite(intercept) & (weight > 1e-6 * weight.amax())
    return torch.where(good, intercept, 0.0), torch.where(good, weight, 0.0)


def block_mean(x: Tensor, blocks: Sequence[int]) -> Tensor:
    """Mean over blocks of voxels of `(C, X, Y, Z)`, filled up with zeros around."""
    (ax, bx), (ay, by), (az, bz) = (
        _margins(n, b) for n, b in zip(x.shape[1:], blocks, strict=True)
    )
    return functional.avg_pool3d(functional.pad(x, (az, bz, ay, by, ax, bx)), tuple(blocks))


def _margins(n: int, block: int) -> tuple[int, int]:
    """Voxels to add before and after `n` for whole blocks; equal for odd blocks."""
    missing = (-n) % block
    if missing % 2 and block % 2:
        missing += block
    return missing // 2, missing - missing // 2


def _gauss(z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Separable Gaussian of a complex volume, zeros beyond the border."""
    x = torch.stack([z.real, z.imag]).unsqueeze(1)
    for axis, sigma in enumerate(sigmas):
        radius = max(1, math.ceil(4 * sigma))
        at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (at / sigma) ** 2)
        view, pad = [1, 1, 1, 1, 1], [0, 0, 0]
        view[axis + 2], pad[axis] = at.numel(), radius
        kernel = (kernel / kernel.sum()).view(view)
        # in slabs across the axis: torch copies a volume for each of the kernel's taps
        across = 3 if axis == 0 else 2
        slabs = x.split(max(1, x.shape[across] // at.numel()), dim=across)
        x = torch.cat([functional.conv3d(slab, kernel, padding=pad) for slab in slabs], across)
    return torch.complex(x[0, 0], x[1, 0])


def _upsample(z: Tensor, blocks: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Angle of a block-wise complex volume, interpolated to the voxels."""
    x = torch.stack([z.real, z.imag]).unsqueeze(0)
    full = [n * b for n, b in zip(z.shape, blocks, strict=True)]
    x = functional.interpolate(x, size=full, mode="trilinear", align_corners=False)[0]
    x = x[
        (slice(None), *(slice(_margins(n, b)[0], _margins(n, b)[0] + n)
                        for n, b in zip(shape, blocks, strict=True)))
    ]  # fmt: skip
    return torch.atan2(x[1], x[0])
