"""Implicit surfaces and smooth noise in millimetres, evaluated on arrays of points.

A surface is given by its approximate signed distance in mm, negative inside. Points are
`(3, …)` float32 arrays. Noise lives on a lattice fixed in space, so that the same seed gives the
same anatomy at every voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import irfftn, rfftn
from scipy.ndimage import label

EXTENT = 128.0  # the noise lattice covers ±EXTENT mm


@dataclass(frozen=True)
class Noise:
    """Random fields `(C, n, n, n)` on a lattice over ±`extent` mm."""

    values: np.ndarray
    extent: float = EXTENT

    def at(self, points: np.ndarray) -> np.ndarray:
        """Trilinear values `(C, …)` at `points` `(3, …)`; the border value outside the lattice."""
        shape = points.shape[1:]
        flat = torch.from_numpy(np.ascontiguousarray(points[::-1], dtype=np.float32))
        flat = flat.reshape(3, -1).T.reshape(1, -1, 1, 1, 3) / self.extent
        values = torch.from_numpy(self.values)[None]
        out = torch.nn.functional.grid_sample(
            values, flat, padding_mode="border", align_corners=True
        )
        return out.reshape(len(self.values), *shape).numpy()


def smooth_noise(
    rng: np.random.Generator,
    wavelength: float,
    *,
    channels: int = 1,
    bandwidth: float = 0.25,
    extent: float = EXTENT,
) -> Noise:
    """Unit-variance isotropic noise whose spectrum is a shell at 1/`wavelength` (1/mm)."""
    n = int(np.clip(round(2 * extent * 5.5 / wavelength), 16, 112)) // 2 * 2
    step = 2 * extent / (n - 1)
    k = np.fft.fftfreq(n, step)
    kz = np.fft.rfftfreq(n, step)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + kz[None, None] ** 2)
    shell = np.exp(-0.5 * ((radius * wavelength - 1) / bandwidth) ** 2).astype(np.float32)
    white = rng.standard_normal((channels, n, n, n), dtype=np.float32)
    values = irfftn(rfftn(white, axes=(1, 2, 3)) * shell, s=(n, n, n), axes=(1, 2, 3))
    return Noise(values / values.std(axis=(1, 2, 3), keepdims=True), extent)


def with_gradient(noise: Noise) -> Noise:
    """The first field and the length of its gradient (per mm) as a second channel."""
    field = noise.values[0]
    step = 2 * noise.extent / (field.shape[0] - 1)
    slope = np.sqrt(sum(g**2 for g in np.gradient(field, step)))
    return Noise(np.stack([field, slope.astype(np.float32)]), noise.extent)


def ellipsoid(
    p: np.ndarray,
    center: Sequence[float],
    radii: Sequence[float],
    rotation: np.ndarray | None = None,
) -> np.ndarray:
    """Signed distance to first order; `rotation` turns the ellipsoid's axes."""
    q = _centered(p, center, rotation)
    k0 = np.zeros(p.shape[1:], dtype=np.float32)
    k1 = np.zeros(p.shape[1:], dtype=np.float32)
    for axis, radius in zip(q, radii, strict=True):
        scaled = axis * np.float32(1 / radius)
        scaled *= scaled
        k0 += scaled
        k1 += scaled * np.float32(1 / radius**2)
    np.sqrt(k0, out=k0)
    np.sqrt(k1, out=k1)
    return k0 * (k0 - 1) / np.maximum(k1, 1e-6)


def half_ellipsoids(
    p: np.ndarray, center: Sequence[float], radii: Sequence[float], below: float
) -> np.ndarray:
    """An ellipsoid whose z radius is `below` under its centre: flat-bottomed like a cerebrum."""
    upper = ellipsoid(p, center, radii)
    lower = ellipsoid(p, center, (radii[0], radii[1], below))
    return np.where(p[2] >= center[2], upper, lower)


def box(
    p: np.ndarray,
    center: Sequence[float],
    half: Sequence[float],
    rotation: np.ndarray | None = None,
    *,
    rounding: float = 2.0,
) -> np.ndarray:
    """Signed distance to a box with rounded edges, `half` its half edge lengths."""
    q = _centered(p, center, rotation)
    x, y, z = (np.abs(a) - np.float32(h - rounding) for a, h in zip(q, half, strict=True))
    outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0) - np.float32(rounding)


def chain(p: np.ndarray, nodes: Sequence[Sequence[float]]) -> np.ndarray:
    """Signed distance to a tube through `nodes` of (x, y, z, radius)."""
    best = np.full(p.shape[1:], np.inf, dtype=np.float32)
    for a, b in zip(nodes[:-1], nodes[1:], strict=True):
        axis = [float(v - u) for u, v in zip(a[:3], b[:3], strict=True)]
        length2 = max(sum(v * v for v in axis), 1e-6)
        x, y, z = (p[i] - np.float32(a[i]) for i in range(3))
        t = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) * np.float32(1 / length2), 0, 1)
        x -= axis[0] * t
        y -= axis[1] * t
        z -= axis[2] * t
        t *= np.float32(b[3] - a[3])
        np.minimum(best, np.sqrt(x * x + y * y + z * z) - (t + np.float32(a[3])), out=best)
    return best


def join(surfaces: Sequence[np.ndarray], blend: float) -> np.ndarray:
    """Union with edges rounded over `blend` mm."""
    result = surfaces[0]
    for other in surfaces[1:]:
        h = np.clip(0.5 + 0.5 * (other - result) / blend, 0, 1)
        result = other + (result - other) * h - blend * h * (1 - h)
    return result


def crop(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The bounding box of `mask` as slices."""
    out = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        out.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    return tuple(out)  # type: ignore[return-value]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected part of `mask`."""
    parts, count = label(mask)
    if count < 2:
        return mask
    return parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def within(
    p: np.ndarray, low: Sequence[float], high: Sequence[float]
) -> tuple[slice, slice, slice]:
    """The index box that holds the points between the corners `low` and `high`.

    Found on every fourth point, so it may be a little larger.
    """
    coarse = p[:, ::4, ::4, ::4]
    spans = [np.abs(np.diff(coarse, axis=a)).max() for a in (1, 2, 3) if coarse.shape[a] > 1]
    margin = max(spans, default=8.0)
    inside = np.ones(coarse.shape[1:], dtype=bool)
    for axis in range(3):
        inside &= (coarse[axis] > low[axis] - margin) & (coarse[axis] < high[axis] + margin)
    box = crop(inside)
    return tuple(slice(4 * s.start, max(4 * s.stop - 3, 0)) for s in box)  # type: ignore[return-value]


def _centered(
    p: np.ndarray, center: Sequence[float], rotation: np.ndarray | None
) -> list[np.ndarray]:
    q = [p[i] - np.float32(center[i]) for i in range(3)]
    if rotation is None:
        return q
    r = rotation.astype(np.float32)
    return [r[0, i] * q[0] + r[1, i] * q[1] + r[2, i] * q[2] for i in range(3)]
