"""The unit dipole response and the field that a susceptibility distribution makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.fourier import fast_length, frequencies, irfft, rfft


def dipole_kernel(
    shape: Sequence[int], voxel_size: Sequence[float], b0_dir: Sequence[float], like: Tensor
) -> Tensor:
    """D(k) = 1/3 − (k·b)²/k² on `rfftn`'s half grid of `shape` [Salomir2003]_ [Marques2005]_.

    `voxel_size` in mm; `b0_dir` along the voxel axes (normalised here); D(0) = 0. The result has
    the dtype and device of `like`.
    """
    wide = like.new_zeros((), dtype=torch.float64)
    k = frequencies(shape, voxel_size, wide)
    b = _unit(b0_dir)
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    # The highest frequency of an even axis has no sign, so products with it mean zero.
    signed = [
        f.masked_fill(f.abs() > (0.5 - 1e-9) / v, 0) for f, v in zip(k, voxel_size, strict=True)
    ]
    along2 = (b[0] * k[0]) ** 2 + (b[1] * k[1]) ** 2 + (b[2] * k[2]) ** 2
    for i, j in ((0, 1), (1, 2), (2, 0)):
        along2 = along2 + 2 * b[i] * b[j] * signed[i] * signed[j]
    kernel = 1.0 / 3.0 - along2 / k2.clamp_min(1e-30)
    kernel[0, 0, 0] = 0.0
    return kernel.to(like.dtype)


def dipole_field(
    chi: Tensor, voxel_size: Sequence[float], b0_dir: Sequence[float], *, padding: float = 0.5
) -> Tensor:
    """Field shift (ppm of B0) made by `chi` `(X, Y, Z)` in ppm: the forward model.

    The volume is zero-padded by the fraction `padding` of its size along each axis, so that the
    periodic images of the object stay away.
    """
    shape = [fast_length(round(n * (1 + padding))) for n in chi.shape]
    kernel = dipole_kernel(shape, voxel_size, b0_dir, chi)
    spectrum = torch.fft.rfftn(chi, s=shape)
    x, y, z = chi.shape
    return irfft(spectrum * kernel, shape)[:x, :y, :z].contiguous()


def apply_kernel(x: Tensor, kernel: Tensor) -> Tensor:
    """Circular convolution of `x` with a half-grid `kernel` of the same grid."""
    return irfft(rfft(x) * kernel, x.shape)


def _unit(direction: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in direction)
    norm = (x * x + y * y + z * z) ** 0.5
    if not norm > 0:
        raise ValueError("the direction of B0 is a zero vector")
    return x / norm, y / norm, z / norm
