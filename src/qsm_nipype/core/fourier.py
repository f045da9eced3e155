"""Padding, transform sizes and k-space grids shared by every Fourier-domain method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, int, int]


def fast_length(n: int) -> int:
    """Smallest even 2-3-5-smooth integer ≥ `n`: quick in pocketfft, MKL and cuFFT alike."""
    size = max(2, n + n % 2)
    while not _is_smooth(size):
        size += 2
    return size


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


@dataclass(frozen=True)
class WorkingGrid:
    """A mask's bounding box inside the volume, and its place in a padded, FFT-friendly grid.

    Computing on this grid makes a result independent of where the head lies in the box.
    """

    volume: Shape
    box: tuple[slice, slice, slice]
    shape: Shape

    @property
    def _extent(self) -> Shape:
        return tuple(s.stop - s.start for s in self.box)  # type: ignore[return-value]

    @property
    def inner(self) -> tuple[slice, slice, slice]:
        """Where the bounding box lies in the working grid (centred)."""
        starts = [(n - e) // 2 for n, e in zip(self.shape, self._extent, strict=True)]
        return tuple(slice(a, a + e) for a, e in zip(starts, self._extent, strict=True))  # type: ignore[return-value]

    def embed(self, x: Tensor) -> Tensor:
        """Cut `x` `(X, Y, Z)` to the box and centre it in zeros of the working grid."""
        out = x.new_zeros(self.shape)
        out[self.inner] = x[self.box]
        return out

    def restore(self, x: Tensor) -> Tensor:
        """Put a working-grid tensor back into the volume; zero outside the box."""
        out = x.new_zeros(self.volume)
        out[self.box] = x[self.inner]
        return out


def working_grid(mask: Tensor, *, padding: int | Sequence[int] = 16) -> WorkingGrid:
    """Bounding box of `mask` `(X, Y, Z)` plus `padding` voxels per axis, rounded up to fast sizes.

    `padding` is the total number of empty voxels added along each axis; because a periodic
    transform wraps round, they separate the head from its own image. Raises ValueError for an
    empty mask.
    """
    pads = (padding,) * 3 if isinstance(padding, int) else tuple(padding)
    box, shape = [], []
    for axis, pad in enumerate(pads):
        others = [a for a in range(3) if a != axis]
        hit = torch.nonzero(mask.bool().any(dim=others[1]).any(dim=others[0])).flatten()
        if hit.numel() == 0:
            raise ValueError("the mask is empty")
        start, stop = int(hit[0]), int(hit[-1]) + 1
        box.append(slice(start, stop))
        shape.append(fast_length(stop - start + pad))
    return WorkingGrid(tuple(mask.shape), tuple(box), tuple(shape))  # type: ignore[arg-type]


def frequencies(shape: Sequence[int], voxel_size: Sequence[float], like: Tensor) -> list[Tensor]:
    """Spatial frequencies (1/mm) of `rfftn`'s half grid, broadcastable; dtype of `like`."""
    axes = []
    for axis, (n, step) in enumerate(zip(shape, voxel_size, strict=True)):
        make = torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq
        k = make(n, d=float(step), dtype=torch.float64)
        view = [1, 1, 1]
        view[axis] = k.numel()
        axes.append(k.to(device=like.device, dtype=like.dtype).view(view))
    return axes


def rfft(x: Tensor) -> Tensor:
    """Real 3-D transform of the last three axes."""
    return torch.fft.rfftn(x, dim=(-3, -2, -1))


def irfft(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of `rfft` onto a grid of `shape`."""
    return torch.fft.irfftn(x, s=tuple(shape), dim=(-3, -2, -1))


def distances(shape: Sequence[int], voxel_size: Sequence[float], like: Tensor) -> Tensor:
    """Distance (mm) of each voxel of a periodic grid from the origin at index (0, 0, 0)."""
    squared = like.new_zeros(())
    for axis, (n, step) in enumerate(zip(shape, voxel_size, strict=True)):
        index = torch.fft.fftfreq(n, d=1.0 / n, dtype=torch.float64)
        view = [1, 1, 1]
        view[axis] = n
        squared = squared + (index * float(step)).square().to(like).view(view)
    return squared.sqrt()


def sphere_kernel(
    shape: Sequence[int], voxel_size: Sequence[float], radius: float, like: Tensor
) -> Tensor:
    """Half-grid transform of a solid sphere of `radius` mm around the origin, of sum 1."""
    ball = (distances(shape, voxel_size, like) <= radius * (1 + 1e-6)).to(like.dtype)
    return rfft(ball / ball.sum()).real.contiguous()


def gradient_spectrum(shape: Sequence[int], voxel_size: Sequence[float], like: Tensor) -> Tensor:
    """Σ|Eₐ(k)|² of the forward differences (1/mm²) on the half grid: minus the Laplacian."""
    total = like.new_zeros(())
    for k, step in zip(frequencies(shape, voxel_size, like), voxel_size, strict=True):
        total = total + (2 - 2 * torch.cos(2 * math.pi * k * float(step))) / float(step) ** 2
    return total
