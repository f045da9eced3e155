"""Patch-wise inference: overlapping tiles, blended without seams, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

#: Bytes of activations per input voxel; generous for the networks here (32 channels, two copies).
BYTES_PER_VOXEL = 1000
#: Memory for one batch on the CPU; on CUDA it is half of what is free.
CPU_BYTES = 1 << 30

Shape = tuple[int, int, int]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of `tile` voxels begin so that they cover `length` and share ≥ `overlap`.

    Evenly spread; a single tile at 0 when it covers everything.
    """
    if tile >= length:
        return [0]
    step = tile - min(overlap, tile - 1)
    count = -(-(length - tile) // step) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def blending(tile: Sequence[int], overlap: Sequence[int], like: Tensor) -> Tensor:
    """Weight of each voxel of a tile: 1 in the middle, falling to the faces over `overlap`."""
    weight = like.new_ones(())
    for axis, (n, fade) in enumerate(zip(tile, overlap, strict=True)):
        i = torch.arange(n, device=like.device, dtype=like.dtype)
        edge = torch.minimum(i, n - 1 - i) + 1
        ramp = (edge / (max(fade, 0) + 1)).clamp(max=1.0)
        weight = weight * ramp.view([-1 if a == axis else 1 for a in range(3)])
    return weight


def batch_size(voxels: int, device: torch.device) -> int:
    """How many patches of `voxels` voxels fit into memory at once, at least one."""
    free = CPU_BYTES
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] // 2
    return max(1, min(16, free // (BYTES_PER_VOXEL * voxels)))


@torch.inference_mode()
def sliding_window(
    x: Tensor,
    network: Callable[[Tensor], Tensor],
    *,
    patch: Sequence[int],
    overlap: Sequence[int],
    context: int = 0,
    where: Tensor | None = None,
) -> Tensor:
    """Apply `network` `(B, C, patch) → (B, 1, patch − 2·context)` to a volume `x`.

    `x` is `(X, Y, Z)` or, with several channels, `(C, X, Y, Z)`; the result is `(X, Y, Z)`.
    Outputs share at least `overlap` voxels with their neighbours and are blended by weights that
    fall linearly to the faces and are normalised by their sum, so that a network that returns
    its input gives `x` back. The volume is continued by zeros. `where` (bool): tiles without a
    true voxel are left out, and stay zero. The computation runs on the device of `x`.
    """
    tile = tuple(p - 2 * context for p in patch)
    shape = x.shape[-3:]
    starts = [tile_starts(n, t, o) for n, t, o in zip(shape, tile, overlap, strict=True)]
    padding = [(context, context + max(0, t - n)) for n, t in zip(shape, tile, strict=True)]
    padded = functional.pad(x, [p for pair in reversed(padding) for p in pair])
    padded = padded.reshape(-1, *padded.shape[-3:])
    total = x.new_zeros([max(n, t) for n, t in zip(shape, tile, strict=True)])
    weights = torch.zeros_like(total)
    blend = blending(tile, overlap, x)
    places = [s for s in product(*starts) if where is None or bool(where[_box(s, tile)].any())]
    size = batch_size(patch[0] * patch[1] * patch[2], x.device)
    for first in range(0, len(places), size):
        chunk = places[first : first + size]
        results = network(torch.stack([padded[(slice(None), *_box(s, patch))] for s in chunk]))
        for start, result in zip(chunk, results, strict=True):
            total[_box(start, tile)] += blend * result[0].to(total.dtype)
            weights[_box(start, tile)] += blend
    blended = total / weights.clamp_min(torch.finfo(total.dtype).tiny)
    return blended[tuple(slice(0, n) for n in shape)].clone()


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
