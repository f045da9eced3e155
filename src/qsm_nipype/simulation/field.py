"""The field of what lies around the brain, averaged over each voxel: harmonic in it at any tilt.

A scanner's image is band-limited, and so is the field of the brain's own weak sources in it: that
is D(k) sampled on the voxels' grid (`core.dipole`). Air is another matter: it is strong, its edge
is sharp, and it has no signal that could ring. On a tilted grid the cross terms 2 bᵢbⱼkᵢkⱼ/k² are
odd in kᵢ and jump at the highest frequency; the sampled kernel then rings from every surface of
air through the brain, with ten times the Laplacian of the brain's own field at 25°. So voxels of
the surroundings are boxes of one susceptibility, and their field is its mean over each voxel,
both taken on a grid twice finer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qsm_nipype.core.fourier import fast_length, frequencies, irfft


def voxel_kernel(
    shape: Sequence[int],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    like: Tensor,
) -> Tensor:
    """Half-grid transform of the dipole field of voxels, averaged over voxels.

    Σ w(q) D(q) over the eight aliases q = k + m/v of a grid twice finer, w = Π cos²(π qᵢvᵢ/2):
    each voxel is split in two along each axis, and the fine field averaged. w falls to zero at
    the fine grid's highest frequency, so that nothing jumps. `voxel_size` in mm; the result has
    the dtype of `like` and mean zero (its value at k = 0).
    """
    norm = math.sqrt(sum(float(b) ** 2 for b in b0_dir))
    (b, c, d) = (float(v) / norm for v in b0_dir)
    x, y, z = (
        _aliases(k, float(v))
        for k, v in zip(frequencies(shape, voxel_size, like), voxel_size, strict=True)
    )
    kernel = like.new_zeros(shape[0], shape[1], shape[2] // 2 + 1)
    for row in range(shape[0]):  # a slab at a time stays in the processor's cache
        slab = kernel[row]
        for (qx, wx), (qy, wy), (qz, wz) in _triples(x, y, z):
            across = wx[row] * wy[0] * wz[0]
            along = qx[row] * b + qy[0] * c + qz[0] * d
            size = qx[row].square() + qy[0].square() + qz[0].square()
            slab += across * (1.0 / 3.0 - along.square_() / size.clamp_min_(1e-30))
    kernel[0, 0, 0] = 0.0
    return kernel


def voxel_field(
    chi: Tensor, voxel_size: Sequence[float], b0_dir: Sequence[float], *, padding: float = 0.5
) -> Tensor:
    """Field shift (ppm of B0) of `chi` `(X, Y, Z)` in ppm, as `core.dipole.dipole_field` gives it.

    Zero-padded by the fraction `padding` of the size.
    """
    x, y, z = chi.shape
    shape = [fast_length(round(n * (1 + padding))) for n in (x, y, z)]
    spectrum = torch.fft.rfftn(chi, s=shape)
    spectrum *= voxel_kernel(shape, voxel_size, b0_dir, chi)
    return irfft(spectrum, shape)[:x, :y, :z].contiguous()


def _aliases(k: Tensor, step: float) -> list[tuple[Tensor, Tensor]]:
    """Both frequencies of the finer grid that look like `k`, and their weights."""
    other = torch.where(k < 0, k + 1.0 / step, k - 1.0 / step)
    return [(q, torch.cos(math.pi * q * step / 2).square()) for q in (k, other)]


def _triples(x: list, y: list, z: list) -> list[tuple]:
    return [(i, j, k) for i in x for j in y for k in z]
