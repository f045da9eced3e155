"""Binary morphology of volumes with balls given in mm: right for anisotropic voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_SLACK = 1 + 1e-5  # a voxel exactly at the radius belongs to the ball


def distance_inside(
    mask: Tensor, voxel_size: Sequence[float], limit: float, *, border: bool = True
) -> Tensor:
    """Distance (mm) from each voxel of `mask` `(X, Y, Z)` to the nearest voxel outside it.

    Exact Euclidean distance between voxel centres up to `limit` (mm), which stands for all larger
    ones; 0 outside the mask. With `border`, what lies beyond the volume counts as outside. A ball
    of radius r around a voxel fits into the mask where the distance exceeds r.
    """
    ceiling = (limit * _SLACK) ** 2
    squared = torch.where(mask, ceiling, 0.0)
    for axis, step in enumerate(float(v) for v in voxel_size):
        reach = min(math.floor(limit * _SLACK / step), mask.shape[axis] - 1)
        along = 1 if axis == 0 else 0
        for part in squared.split(8, dim=along):  # slabs that stay in the cache
            part.copy_(_nearest(part.contiguous(), axis, step, reach, border))
    return squared.sqrt_()


def _nearest(g: Tensor, axis: int, step: float, reach: int, border: bool) -> Tensor:
    """min over d of g(i + d) + (d·step)² along `axis`: one pass of the separable transform."""
    n = g.shape[axis]
    out = g.clone()
    if border:
        index = torch.arange(n, device=g.device)
        edge = (torch.minimum(index + 1, n - index) * step).square_()
        view = [1, 1, 1]
        view[axis] = n
        torch.minimum(out, edge.view(view), out=out)
    for d in range(1, reach + 1):
        cost, span = (d * step) ** 2, n - d
        shifted = g + cost
        for source, target in ((0, d), (d, 0)):
            part = out.narrow(axis, target, span)
            torch.minimum(part, shifted.narrow(axis, source, span), out=part)
    return out


def erode(mask: Tensor, voxel_size: Sequence[float], radius: float) -> Tensor:
    """Voxels around which a ball of `radius` mm lies inside `mask` (and inside the volume)."""
    if radius <= 0:
        return mask.clone()
    return distance_inside(mask, voxel_size, radius) > radius * (1 + 5e-6)


def dilate(mask: Tensor, voxel_size: Sequence[float], radius: float) -> Tensor:
    """Voxels within `radius` mm of a voxel of `mask`."""
    if radius <= 0:
        return mask.clone()
    return ~(distance_inside(~mask, voxel_size, radius, border=False) > radius * (1 + 5e-6))


def peel(mask: Tensor, voxel_size: Sequence[float], depth: float) -> Tensor:
    """`mask` without its outer `depth` mm: one layer of voxels at least, however large."""
    if depth <= 0:
        return mask.clone()
    return erode(mask, voxel_size, depth) & erode(mask, (1.0, 1.0, 1.0), 1.0)


def grow(mask: Tensor, voxel_size: Sequence[float], depth: float) -> Tensor:
    """`mask` and the `depth` mm around it: one layer of voxels at least, however large."""
    if depth <= 0:
        return mask.clone()
    return dilate(mask, voxel_size, depth) | dilate(mask, (1.0, 1.0, 1.0), 1.0)


def opening(mask: Tensor, voxel_size: Sequence[float], radius: float) -> Tensor:
    """Erosion, then dilation: removes what is thinner than a ball of `radius` mm."""
    return dilate(erode(mask, voxel_size, radius), voxel_size, radius)


def closing(mask: Tensor, voxel_size: Sequence[float], radius: float) -> Tensor:
    """Dilation, then erosion: fills gaps narrower than a ball of `radius` mm.

    The volume is extended meanwhile, so that its border closes nothing and opens nothing.
    """
    pads = [math.ceil(radius / float(v)) + 1 for v in voxel_size]
    wide = torch.nn.functional.pad(mask, [p for pad in reversed(pads) for p in (pad, pad)])
    wide = erode(dilate(wide, voxel_size, radius), voxel_size, radius)
    inner = tuple(slice(p, p + n) for p, n in zip(pads, mask.shape, strict=True))
    return wide[inner] | mask


def largest_component(mask: Tensor) -> Tensor:
    """The largest set of voxels of `mask` connected through faces; empty for an empty mask."""
    labels, count = ndimage.label(mask.cpu().numpy())
    if count == 0:
        return torch.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return torch.as_tensor(labels == sizes.argmax(), device=mask.device)


def fill_holes(mask: Tensor, *, largest_hole: float | None = None) -> Tensor:
    """`mask` with its cavities filled: whatever the border of the volume cannot reach.

    With `largest_hole` (voxels), larger cavities stay open.
    """
    labels, count = ndimage.label(~mask.cpu().numpy())
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    hole = np.ones(count + 1, dtype=bool)
    if largest_hole is not None:
        hole &= sizes <= largest_hole
    for axis in range(3):
        for face in (0, -1):
            hole[np.unique(labels.take(face, axis=axis))] = False
    hole[0] = True
    return torch.as_tensor(hole[labels], device=mask.device)
