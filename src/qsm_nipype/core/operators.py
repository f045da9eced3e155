"""Finite differences, their adjoint, and the shrinkages of sparsity-regularised inversion.

All act on a periodic grid, so that the gradient is diagonal in Fourier space: its energy is
`fourier.gradient_spectrum`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Off-diagonal components of a symmetric 3 × 3 tensor, in the order of `symmetric_gradient`.
_PAIRS = ((0, 1), (0, 2), (1, 2))


def gradient(x: Tensor, voxel_size: Sequence[float], *, out: Tensor | None = None) -> Tensor:
    """Periodic forward differences of `x` `(X, Y, Z)` in units of `x` per mm: (3, X, Y, Z).

    `out`, a tensor of the result's shape, spares the allocation in an iteration.
    """
    if out is None:
        out = x.new_empty((3, *x.shape))
    for axis in range(3):
        _difference(x, axis, voxel_size, out=out[axis])
    return out


def divergence(p: Tensor, voxel_size: Sequence[float], *, out: Tensor | None = None) -> Tensor:
    """Exact negative adjoint of `gradient`: `(3, X, Y, Z)` → `(X, Y, Z)`, ⟨∇x, p⟩ = −⟨x, div p⟩.

    `out`, a tensor of the result's shape that shares no memory with `p`, spares the allocation.
    """
    if out is None:
        out = p.new_empty(p.shape[1:])
    out.zero_()
    for axis, step in enumerate(voxel_size):
        n = p.shape[axis + 1]
        weight = 1.0 / float(step)
        out.add_(p[axis], alpha=weight)
        out.narrow(axis, 1, n - 1).sub_(p[axis].narrow(axis, 0, n - 1), alpha=weight)
        out.narrow(axis, 0, 1).sub_(p[axis].narrow(axis, n - 1, 1), alpha=weight)
    return out


def shrink(v: Tensor, threshold: float | Tensor) -> Tensor:
    """Soft threshold sign(v)·max(|v| − threshold, 0): the proximal map of threshold·‖v‖₁.

    `threshold` is a number or a tensor that broadcasts to `v`.
    """
    if isinstance(threshold, Tensor):
        return v - torch.minimum(torch.maximum(v, -threshold), threshold)
    return v - v.clamp(-threshold, threshold)


def symmetric_gradient(
    w: Tensor, voxel_size: Sequence[float], *, out: Tensor | None = None
) -> Tensor:
    """ℰw = ½(∇w + ∇wᵀ) of `w` (3, X, Y, Z) on faces: (6, X, Y, Z), xx, yy, zz, xy, xz, yz.

    The diagonal lies in voxels, between two faces, the rest on edges, between four: no axis is
    given a side.
    """
    out = w.new_empty((6, *w.shape[1:])) if out is None else out
    other = torch.empty_like(w[0])
    for a in range(3):
        _backward_difference(w[a], a, voxel_size, out=out[a])
    for n, (a, b) in enumerate(_PAIRS, start=3):
        _difference(w[a], b, voxel_size, out=out[n])
        out[n].add_(_difference(w[b], a, voxel_size, out=other)).mul_(0.5)
    return out


def symmetric_divergence(q: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """Negative adjoint of `symmetric_gradient` in the inner product of symmetric tensors."""
    out, other = q.new_empty((3, *q.shape[1:])), torch.empty_like(q[0])
    for a in range(3):
        _difference(q[a], a, voxel_size, out=out[a])
    for n, (a, b) in enumerate(_PAIRS, start=3):
        out[a].add_(_backward_difference(q[n], b, voxel_size, out=other))
        out[b].add_(_backward_difference(q[n], a, voxel_size, out=other))
    return out


def _difference(x: Tensor, axis: int, voxel_size: Sequence[float], *, out: Tensor) -> Tensor:
    """Periodic forward difference along `axis` per mm."""
    n = x.shape[axis]
    head, tail = x.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1)
    torch.sub(tail, head, out=out.narrow(axis, 0, n - 1))
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, n - 1, 1)
    torch.sub(first, last, out=out.narrow(axis, n - 1, 1))
    return _per_step(out, voxel_size[axis])


def _backward_difference(
    x: Tensor, axis: int, voxel_size: Sequence[float], *, out: Tensor
) -> Tensor:
    """Periodic backward difference along `axis` per mm: minus the adjoint of `_difference`."""
    n = x.shape[axis]
    head, tail = x.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1)
    torch.sub(tail, head, out=out.narrow(axis, 1, n - 1))
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, n - 1, 1)
    torch.sub(first, last, out=out.narrow(axis, 0, 1))
    return _per_step(out, voxel_size[axis])


def _per_step(x: Tensor, step: float) -> Tensor:
    return x if float(step) == 1.0 else x.div_(float(step))
