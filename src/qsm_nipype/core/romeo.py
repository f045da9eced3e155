"""ROMEO: path-following phase unwrapping guided by edge qualities [Dymerska2021]_, in numba.

Everything works on contiguous float32 arrays `(X, Y, Z)`; a voxel is its flat index and the edge
between a voxel and its next neighbour along `axis` is `3 * voxel + axis`. `core.unwrapping` is
the door with tensors.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from qsm_nipype.core.phase import TWO_PI

#: Edge costs are 8-bit: 1 is the best edge, 255 the worst, 0 no edge.
BINS = 256


@njit(cache=True, nogil=True, inline="always")
def wrap_number(x, turn):
    """`phase.wrap` for kernels: the number `x` less whole turns of 2π, `turn` in x's precision."""
    return x - turn * np.rint(x / turn)


@njit(cache=True, nogil=True, inline="always")
def _wrap(x):
    return wrap_number(x, np.float32(TWO_PI))


@njit(cache=True, nogil=True, inline="always")
def _linearity(before, here, after):
    curvature = abs(_wrap(before - np.float32(2.0) * here + after))
    return max(np.float32(0.0), np.float32(1.0) - np.float32(0.5) * curvature)


@njit(cache=True, nogil=True)
def _edge(phase, second, ratio, magnitude, strong, line):
    """Quality in [0, 1] of the edge v–w; `line` is (before, v, w, after), −1 where missing."""
    before, v, w, after = line
    step = _wrap(phase[v] - phase[w])
    # phase coherence
    quality = np.float32(0.1) + np.float32(0.9) * (
        np.float32(1.0) - abs(step) / np.float32(math.pi)
    )
    # phase gradient coherence
    if second.size > 0:
        other = _wrap(second[v] - second[w]) * ratio
        coherence = max(np.float32(0.0), np.float32(1.0) - abs(step - other))
        quality *= np.float32(0.1) + np.float32(0.9) * coherence
    # phase linearity
    linearity = np.float32(0.9)
    if before >= 0 and after >= 0:
        linearity = _linearity(phase[before], phase[v], phase[w])
        linearity *= _linearity(phase[v], phase[w], phase[after])
    quality *= np.float32(0.1) + np.float32(0.9) * linearity
    if magnitude.size > 0:
        low = min(magnitude[v], magnitude[w])
        high = max(magnitude[v], magnitude[w])
        if not high > 0:
            return np.float32(0.0)
        half = np.float32(0.5) * strong
        # magnitude coherence, then the two magnitude weights: weak signal, inflow
        quality *= np.float32(0.1) + np.float32(0.9) * (low / high) ** 2
        weak = np.float32(0.5) + np.float32(0.5) * min(np.float32(1.0), low / half)
        bright = np.float32(0.5) + np.float32(0.5) * min(np.float32(1.0), half / high)
        quality *= np.float32(0.1) + np.float32(0.9) * weak
        quality *= np.float32(0.1) + np.float32(0.9) * bright
    return quality


@njit(cache=True, nogil=True, inline="always")
def _along(axis, strides, shape, x, y, z, v):
    """Flat indices (next, before, after) along `axis`; next is −1 at the border."""
    position = x if axis == 0 else (y if axis == 1 else z)
    step = strides[axis]
    if position + 1 >= shape[axis]:
        return -1, -1, -1
    before = v - step if position > 0 else -1
    after = v + 2 * step if position + 2 < shape[axis] else -1
    return v + step, before, after


@njit(cache=True, nogil=True, parallel=True)
def edge_costs(phase, second, ratio, magnitude, strong, mask, shape):
    """8-bit cost of every edge, flat `(3 N,)`: 1 best … 255 worst, 0 where a side is unmasked.

    `second` (another echo, or empty) with `ratio` = TE/TE₂ adds the phase gradient coherence,
    `magnitude` (or empty) with the `strong` signal level the magnitude qualities.
    """
    nx, ny, nz = shape
    strides = (ny * nz, nz, 1)
    costs = np.zeros(3 * nx * ny * nz, np.uint8)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                v = x * ny * nz + y * nz + z
                if not mask[v]:
                    continue
                for axis in range(3):
                    w, before, after = _along(axis, strides, shape, x, y, z, v)
                    if w < 0 or not mask[w]:
                        continue
                    quality = _edge(phase, second, ratio, magnitude, strong, (before, v, w, after))
                    cost = np.rint((np.float32(1.0) - quality) * np.float32(BINS - 1))
                    costs[3 * v + axis] = np.uint8(max(np.float32(1.0), cost))
    return costs


@njit(cache=True, nogil=True, parallel=True)
def voxel_quality(phase, second, ratio, magnitude, strong, mask, shape):
    """Mean quality of a voxel's six edges, in [0, 1]; a missing edge counts as 0."""
    nx, ny, nz = shape
    strides = (ny * nz, nz, 1)
    quality = np.zeros(nx * ny * nz, np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                v = x * ny * nz + y * nz + z
                if not mask[v]:
                    continue
                total = np.float32(0.0)
                for axis in range(3):
                    position = x if axis == 0 else (y if axis == 1 else z)
                    w, before, after = _along(axis, strides, shape, x, y, z, v)
                    if w >= 0 and mask[w]:
                        total += _edge(
                            phase, second, ratio, magnitude, strong, (before, v, w, after)
                        )
                    if position > 0 and mask[v - strides[axis]]:
                        u = v - strides[axis]
                        ahead = u - strides[axis] if position > 1 else -1
                        total += _edge(phase, second, ratio, magnitude, strong, (ahead, u, v, w))
                quality[v] = total / np.float32(6.0)
    return quality


@njit(cache=True, nogil=True)
def _seed_order(costs, mask):
    """Masked voxels, the one with the cheapest three edges first (counting sort)."""
    n = mask.size
    count = np.zeros(3 * BINS + 1, np.int64)
    for v in range(n):
        if mask[v]:
            count[_seed_cost(costs, v) + 1] += 1
    for b in range(1, count.size):
        count[b] += count[b - 1]
    order = np.empty(count[count.size - 1], np.int32)
    for v in range(n):
        if mask[v]:
            b = _seed_cost(costs, v)
            order[count[b]] = v
            count[b] += 1
    return order


@njit(cache=True, nogil=True, inline="always")
def _seed_cost(costs, v):
    total = 0
    for axis in range(3):
        cost = int(costs[3 * v + axis])
        total += cost if cost > 0 else BINS - 1
    return total


@njit(cache=True, nogil=True)
def grow(phase, costs, mask, shape):
    """Unwrap `phase` (flat, changed in place) along the best edges; returns region labels.

    One region per connected part of the mask, numbered from 1 in order of seed quality, 0 outside
    the mask. The queue holds one stack of edges per 8-bit cost.
    """
    ny, nz = shape[1], shape[2]
    strides = (ny * nz, nz, 1)
    region = np.zeros(phase.size, np.int32)
    top = np.full(BINS, -1, np.int32)  # last edge of each stack
    below = np.empty(costs.size, np.int32)  # the edge under each edge
    label = 0
    for seed in _seed_order(costs, mask):
        if region[seed] != 0:
            continue
        label += 1
        region[seed] = label
        best = _push_edges(seed, costs, region, strides, top, below, BINS)
        while best < BINS:
            edge = top[best]
            if edge < 0:
                best += 1
                continue
            top[best] = below[edge]
            a = edge // 3
            b = a + strides[edge - 3 * a]
            if region[a] != 0:
                old, new = a, b
            else:
                old, new = b, a
            if region[new] != 0:
                continue
            turns = np.rint((phase[new] - phase[old]) / np.float32(TWO_PI))
            phase[new] -= np.float32(TWO_PI) * turns
            region[new] = label
            best = _push_edges(new, costs, region, strides, top, below, best)
    return region


@njit(cache=True, nogil=True)
def _push_edges(v, costs, region, strides, top, below, best):
    """Queue the edges from `v` to voxels not reached yet; returns the cheapest stack in use."""
    for axis in range(3):
        step = strides[axis]
        edge = 3 * v + axis
        cost = costs[edge]
        if cost > 0 and region[v + step] == 0:
            below[edge] = top[cost]
            top[cost] = edge
            best = min(best, int(cost))
        edge = 3 * (v - step) + axis
        if edge >= 0:
            cost = costs[edge]
            if cost > 0 and region[v - step] == 0:
                below[edge] = top[cost]
                top[cost] = edge
                best = min(best, int(cost))
    return best
