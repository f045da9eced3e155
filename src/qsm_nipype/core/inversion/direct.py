"""Closed-form dipole inversions: one division in k-space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.core.fourier import gradient_spectrum, irfft, rfft, working_grid
from qsm_nipype.core.geometry import relative_voxel_size
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.problem import PADDING
from qsm_nipype.core.inversion.weights import l2_weight, rms


def tkd(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    threshold: float = 0.2,
    correct: bool = True,
) -> Solution:
    """Truncated k-space division [Shmueli2009]_: local `field` `(X, Y, Z)` in ppm → χ in ppm.

    Where |D| < `threshold`, D is replaced by ±`threshold`. With `correct`, χ is divided by
    `truncated_share`, which undoes the underestimation that the truncation causes [Schweser2013]_.
    Raises ValueError unless `threshold` is positive.
    """
    if threshold <= 0:
        raise ValueError("threshold must be positive")

    def inverse(kernel: Tensor) -> Tensor:
        inverted = torch.where(kernel < 0, -kernel.new_ones(()), kernel.new_ones(()))
        inverted = inverted / kernel.abs().clamp_min(threshold)
        inverted[0, 0, 0] = 0.0
        return inverted / truncated_share(threshold) if correct else inverted

    return Solution(_divide(field, mask, voxel_size, b0_dir, inverse))


def truncated_share(threshold: float) -> float:
    """Share of a source that truncation at `threshold` leaves: mean of min(|D|/threshold, 1).

    The mean is over all directions of k, D = 1/3 − cos²θ, for what is larger than a voxel has its
    spectrum near the origin, and there all directions alike. The mean over the grid (the point
    spread function at its origin) is that of a single voxel, whose spectrum reaches the corners
    of k-space: it is 5 % less, and dividing by it makes nuclei 5 to 8 % too strong.
    """
    middle = math.sqrt(1 / 3)
    low, high = (math.sqrt(min(max(1 / 3 + t, 0.0), 1.0)) for t in (-threshold, threshold))
    primitive = [u / 3 - u**3 / 3 for u in (low, middle, high)]
    inside = 2 * primitive[1] - primitive[0] - primitive[2]
    return 1 - (high - low) + inside / threshold


def tikhonov(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
) -> Solution:
    """Closed-form ℓ2 inversion with a gradient penalty [Bilgic2014]_: χ in ppm.

    The minimiser of ½‖Dχ − f‖² + ½λ‖∇χ‖² (∇ per mean voxel edge), that is χ = D·f/(D² + λ·Σ|E|²).
    `regularization` None takes λ from the noise by `l2_weight`.
    """
    if regularization is None:
        sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = l2_weight(sigma, rms(field, mask))

    def inverse(kernel: Tensor) -> Tensor:
        size = working_grid(mask.bool() & torch.isfinite(field), padding=PADDING).shape
        penalty = gradient_spectrum(size, relative_voxel_size(voxel_size), kernel)
        return kernel / (kernel.square() + regularization * penalty).clamp_min(1e-12)

    chi = _divide(field, mask, voxel_size, b0_dir, inverse)
    return Solution(chi, parameters=MappingProxyType({"regularization": regularization}))


def _divide(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    inverse: Callable[[Tensor], Tensor],
) -> Tensor:
    """χ = F⁻¹ D⁻¹ F f on the padded grid, with `inverse` making D⁻¹ from D; zero outside mask."""
    mask = mask.bool() & torch.isfinite(field)
    if not bool(mask.any()):
        return torch.zeros_like(field)
    grid = working_grid(mask, padding=PADDING)
    kernel = dipole_kernel(grid.shape, voxel_size, b0_dir, field)
    spectrum = rfft(grid.embed(torch.where(mask, field, field.new_zeros(()))))
    chi = grid.restore(irfft(spectrum.mul_(inverse(kernel)), grid.shape))
    return torch.where(mask, chi, chi.new_zeros(()))
