"""Susceptibility-weighted imaging by the phase: homodyne filter, and CLEAR-SWI."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.swi.filters import high_passed, low_pass
from qsm_nipype.core.swi.magnitude import (
    joined_echoes,
    quantile,
    receive_sensitivity,
    softplus,
)
from qsm_nipype.core.swi.result import Weighted, weighted


def homodyne(  # noqa: PLR0913  what is measured, and the parameters of two filters
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    phase: Tensor,
    echo_times: Sequence[float],
    sigma: float = 3.0,
    power: int = 4,
    weighting: str = "te",
    thickness: float = 8.0,
) -> Weighted:
    """Susceptibility-weighted image by the phase mask of a homodyne filter [Haacke2004]_.

    `magnitude` and wrapped `phase` (rad, positive where the field is stronger) `(X, Y, Z, E)`,
    `mask` of the brain (bool), `echo_times` in s. The signal is divided by its Gaussian low pass
    of `sigma` mm (3 mm passes what the central 64² of 256² lines over 256 mm pass under a Hann
    window); the filtered phase of the echoes is joined by their power (M·TE)² and stated at the
    last. The mask is 1 where that phase is negative, 1 − φ/π where it is positive, 0 beyond π,
    and multiplies the magnitude `power` times. Outside the brain it is 1. `weighting` and
    `thickness` (mm): see `joined_echoes` and `minimum_projection`.
    """
    filtered = homodyne_phase(magnitude, phase, mask, voxel_size, echo_times, sigma=sigma)
    image = joined_echoes(magnitude, echo_times, weighting)
    weight = phase_mask(filtered) ** power
    return weighted(image, weight, mask, voxel_size, b0_dir, thickness)


def homodyne_phase(
    magnitude: Tensor,
    phase: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    echo_times: Sequence[float],
    *,
    sigma: float,
) -> Tensor:
    """High-passed phase (rad) `(X, Y, Z)` at the last echo time; see `homodyne`."""
    magnitude, phase = (x if x.dim() == 4 else x[..., None] for x in (magnitude, phase))
    low = low_pass(mask, voxel_size, sigma, magnitude)
    top = magnitude.new_zeros(mask.shape)
    bottom = torch.zeros_like(top)
    inside = mask.to(magnitude.dtype)
    for n, te in enumerate(float(t) for t in echo_times):
        signal = magnitude[..., n] * inside
        real, imaginary = signal * phase[..., n].cos(), signal * phase[..., n].sin()
        slow, across = low(real), low(imaginary)
        filtered = torch.atan2(imaginary * slow - real * across, real * slow + imaginary * across)
        power = signal.square() * te
        top += power * filtered
        bottom += power * te
    return top / bottom.clamp_min(1e-30) * max(float(t) for t in echo_times) * inside


def phase_mask(phase: Tensor) -> Tensor:
    """1 where `phase` (rad) is zero or negative, falling to 0 at π."""
    return (1 - phase / math.pi).clamp(0, 1)


def clear(  # noqa: PLR0913  what is measured, and the parameters of three filters
    magnitude: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    total_field: Tensor,
    echo_times: Sequence[float],
    sigma: float = 4.0,
    strength: float = 4.0,
    smoothness: float = 7.0,
    knee: float = 0.5,
    weighting: str = "snr",
    thickness: float = 8.0,
) -> Weighted:
    """Susceptibility-weighted image as CLEAR-SWI makes it [Eckstein2021]_.

    `magnitude` `(X, Y, Z, E)`; `total_field` (ppm) is that of the unwrapped phase of all echoes,
    `mask` (bool) the brain. Published: no wrapped phase is filtered, so that nothing is dark
    beside the sinuses; the mask is the `sigmoid` of the high-passed field (`strength` 4); the
    magnitude is that of all echoes, divided by the receive sensitivity (`smoothness` 7 mm) and put
    through a `softplus` with its knee at `knee` (½) of its 80th percentile. The high pass, 4
    voxels in the authors' program, is `sigma` mm here and fades within that of the mask's edge
    (`high_passed`). The image has no unit; tissue is near ½.
    """
    field = high_passed(total_field, mask, voxel_size, sigma)
    image = joined_echoes(magnitude, echo_times, weighting)
    image = image / receive_sensitivity(image, mask, voxel_size, sigma=smoothness)
    if knee > 0:
        image = softplus(image, knee * quantile(image[mask], 0.8))
    weight = sigmoid(field, mask, strength=strength)
    return weighted(image, weight, mask, voxel_size, b0_dir, thickness)


def sigmoid(phase: Tensor, mask: Tensor, *, strength: float) -> Tensor:
    """(1 + tanh(1 − φ/m))/2, m = 10/`strength` of the median positive `phase` in `mask`.

    Free of the phase's unit; 1 far below zero, 0.88 at zero, 0.5 at m, 0 far above.
    """
    positive = phase[mask & (phase > 0)]
    middle = quantile(positive, 0.5) * 10 / strength if positive.numel() else 1.0
    return (1 + torch.tanh(1 - phase / middle)) / 2
