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

EXTENT = 160.0  # the noise lattice covers ±EXTENT mm


@dataclass(frozen=True)
class Noise:
    """Random fields `(C, n, n, n)` on a lattice over ±EXTENT mm."""

    values: np.ndarray

    def at(self, points: np.ndarray) -> np.ndarray:
        """Trilinear values `(C, …)` at `points` `(3, …)`; the border value outside the lattice."""
        shape = points.shape[1:]
        flat = torch.from_numpy(np.ascontiguousarray(points[::-1], dtype=np.float32))
        flat = flat.reshape(3, -1).T.reshape(1, -1, 1, 1, 3) / EXTENT
        values = torch.from_numpy(self.values)[None]
        out = torch.nn.functional.grid_sample(
            values, flat, padding_mode="border", align_corners=True
        )
        return out.reshape(len(self.values), *shape).numpy()


def smooth_noise(
    rng: np.random.Generator, wavelength: float, *, channels: int = 1, bandwidth: float = 0.25
) -> Noise:
    """Unit-variance isotropic noise whose spectrum is a shell at 1/`wavelength` (1/mm)."""
    return Noise(np.stack([_band(rng, wavelength, bandwidth) for _ in range(channels)]))


def _band(rng: np.random.Generator, wavelength: float, bandwidth: float) -> np.ndarray:
    n = int(np.clip(round(2 * EXTENT * 7 / wavelength), 16, 144)) // 2 * 2
    step = 2 * EXTENT / (n - 1)
    k = np.fft.fftfreq(n, step)
    kz = np.fft.rfftfreq(n, step)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + kz[None, None] ** 2)
    shell = np.exp(-0.5 * ((radius * wavelength - 1) / bandwidth) ** 2)
    white = np.fft.rfftn(rng.standard_normal((n, n, n)))
    values = np.fft.irfftn(white * shell, s=(n, n, n), axes=(0, 1, 2))
    return (values / values.std()).astype(np.float32)


def with_gradient(noise: Noise) -> Noise:
    """The first field and the length of its gradient (per mm) as a second channel."""
    field = noise.values[0]
    step = 2 * EXTENT / (field.shape[0] - 1)
    slope = np.sqrt(sum(g**2 for g in np.gradient(field, step)))
    return Noise(np.stack([field, slope.astype(np.float32)]))


def ellipsoid(
    p: np.ndarray,
    center: Sequence[float],
    radii: Sequence[float],
    rotation: np.ndarray | None = None,
) -> np.ndarray:
    """Signed distance to first order; `rotation` turns the ellipsoid's axes."""
    q = _centered(p, center, rotation)
    r = np.asarray(radii, dtype=np.float32).reshape(3, *[1] * (p.ndim - 1))
    k0 = np.sqrt(((q / r) ** 2).sum(0))
    k1 = np.sqrt(((q / r**2) ** 2).sum(0))
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
    q = np.abs(_centered(p, center, rotation))
    h = np.asarray(half, dtype=np.float32).reshape(3, *[1] * (p.ndim - 1)) - rounding
    d = q - h
    outside = np.sqrt((np.maximum(d, 0) ** 2).sum(0))
    return outside + np.minimum(d.max(0), 0) - rounding


def chain(p: np.ndarray, nodes: Sequence[Sequence[float]]) -> np.ndarray:
    """Signed distance to a tube through `nodes` of (x, y, z, radius)."""
    best = np.full(p.shape[1:], np.inf, dtype=np.float32)
    for a, b in zip(nodes[:-1], nodes[1:], strict=True):
        start = np.asarray(a[:3], dtype=np.float32)
        axis = np.asarray(b[:3], dtype=np.float32) - start
        q = p - start.reshape(3, *[1] * (p.ndim - 1))
        t = np.clip(np.tensordot(axis, q, 1) / max(float(axis @ axis), 1e-6), 0, 1)
        d = np.sqrt(((q - axis.reshape(3, *[1] * (p.ndim - 1)) * t) ** 2).sum(0))
        best = np.minimum(best, d - (a[3] + (b[3] - a[3]) * t))
    return best


def join(surfaces: Sequence[np.ndarray], blend: float) -> np.ndarray:
    """Union with edges rounded over `blend` mm."""
    result = surfaces[0]
    for other in surfaces[1:]:
        h = np.clip(0.5 + 0.5 * (other - result) / blend, 0, 1)
        result = other + (result - other) * h - blend * h * (1 - h)
    return result


def _centered(p: np.ndarray, center: Sequence[float], rotation: np.ndarray | None) -> np.ndarray:
    q = p - np.asarray(center, dtype=np.float32).reshape(3, *[1] * (p.ndim - 1))
    if rotation is None:
        return q
    return np.tensordot(rotation.T.astype(np.float32), q, 1)
