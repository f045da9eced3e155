"""Random susceptibility distributions with their fields: what the QSMGAN is trained on.

Three families, all simulated: `geometric` (spheres, boxes, ellipsoids and tubes, as in DeepQSM
[Bollmann2019]_), `tissue` (folded regions from thresholded random fields, with nuclei, veins,
bleeds and texture inside a brain-shaped mask) and `anatomy` (a label image, deformed at random
and given random values). Arrays are float32 `(X, Y, Z)` numpy; χ in ppm, zero outside the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft, ndimage

from qsm_nipype.core.dipole import dipole_field

Shape = tuple[int, int, int]
#: Of all volumes: mm, and B0 along the third axis.
VOXEL_SIZE, B0_DIR = (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Sample:
    """A map `chi`, its `field` (both ppm, zero outside `mask`), the mask, first guesses of χ.

    `guesses` are `(2, X, Y, Z)`; without them the field is free of noise.
    """

    chi: np.ndarray
    field: np.ndarray
    mask: np.ndarray
    guesses: np.ndarray | None = None


def smooth_noise(rng: np.random.Generator, shape: Shape, length: float) -> np.ndarray:
    """Gaussian random field of zero mean, unit SD and correlation length of `length` voxels."""
    k2 = sum(
        (f(n) ** 2).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, f) in enumerate(
            zip(shape, (fft.fftfreq, fft.fftfreq, fft.rfftfreq), strict=True)
        )
    )
    white = rng.standard_normal(shape, dtype=np.float32)
    filtered = fft.irfftn(
        fft.rfftn(white) * np.exp(-2 * (np.pi * length) ** 2 * k2).astype(np.float32), s=shape
    )
    return ((filtered - filtered.mean()) / max(float(filtered.std()), 1e-12)).astype(np.float32)


def brain_mask(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A bumpy ellipsoid, sometimes larger than the box, with a wrong edge as real masks have."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    centre = rng.uniform(-0.3, 0.3, 3)
    radii = rng.uniform(0.8, 1.5, 3)
    distance = np.sqrt(
        sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
    )
    bumps = 0.06 * smooth_noise(rng, shape, rng.uniform(4, 12))
    bumps += 0.02 * smooth_noise(rng, shape, rng.uniform(1.0, 2.5))
    return distance + bumps < 1.0


def _paint(chi: np.ndarray, centre: np.ndarray, reach: float) -> tuple[slice, ...]:
    """The part of the volume within `reach` voxels of `centre`."""
    return tuple(
        slice(max(0, int(c - reach)), min(n, int(c + reach) + 2))
        for c, n in zip(centre, chi.shape, strict=True)
    )


def _offsets(box: tuple[slice, ...], centre: np.ndarray) -> list[np.ndarray]:
    axes = np.ogrid[box]
    return [(a - c).astype(np.float32) for a, c in zip(axes, centre, strict=True)]


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return q


def add_ellipsoid(
    rng: np.random.Generator, chi: np.ndarray, value: float, radii: np.ndarray, *, power: float = 2
) -> None:
    """Add `value` in a rotated (super)ellipsoid with soft edges; a large `power` makes a box."""
    centre = rng.uniform(0, chi.shape)
    box = _paint(chi, centre, 1.8 * float(radii.max()) + 2)
    x, y, z = _offsets(box, centre)
    R = _rotation(rng)
    axes = [(R[i, 0] * x + R[i, 1] * y + R[i, 2] * z) / radii[i] for i in range(3)]
    distance = sum(np.abs(a) ** power for a in axes) ** (1 / power)
    chi[box] += value * np.clip((1 - distance) * float(radii.min()) + 0.5, 0, 1)


def add_vessel(
    rng: np.random.Generator, chi: np.ndarray, value: float, radius: float, length: int
) -> None:
    """Raise χ to `value` in a tube of `radius` voxels around a random walk that turns slowly."""
    position = rng.uniform(0, chi.shape)
    heading = rng.standard_normal(3)
    for _ in range(length):
        heading += 0.25 * rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        position = position + heading
        if np.any(position < 0) or np.any(position >= chi.shape):
            return
        box = _paint(chi, position, radius + 1)
        x, y, z = _offsets(box, position)
        cover = np.clip(radius + 0.5 - np.sqrt(x**2 + y**2 + z**2), 0, 1)
        chi[box] += cover * np.clip(value - chi[box], 0, None)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between `low` and `high`, every factor equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def add_lesions(rng: np.random.Generator, chi: np.ndarray) -> None:
    """Nuclei rich in iron, veins, microbleeds and calcifications, haemorrhages now and then."""
    scale = float(np.prod(chi.shape)) / 96**3
    for _ in range(rng.poisson(14 * scale)):
        value = rng.normal(0.06, 0.06)
        add_ellipsoid(rng, chi, value, rng.uniform(2, 10, 3), power=rng.uniform(1.6, 4))
    for _ in range(rng.poisson(22 * scale)):
        value, radius = rng.uniform(0.05, 0.35), log_uniform(rng, 0.4, 2.2)
        add_vessel(rng, chi, value, radius, int(rng.uniform(15, 90)))
    for _ in range(rng.poisson(5 * scale)):
        sign = 1 if rng.random() < 0.7 else -1
        radii = np.full(3, log_uniform(rng, 0.8, 3.5)) * rng.uniform(0.8, 1.25, 3)
        add_ellipsoid(rng, chi, sign * log_uniform(rng, 0.1, 1.0), radii)
    if rng.random() < 0.15 * scale:
        add_ellipsoid(rng, chi, log_uniform(rng, 0.1, 0.8), rng.uniform(4, 12, 3))


def geometric(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Spheres, boxes, ellipsoids and tubes of random sizes and values, overlapping."""
    chi = np.zeros(shape, np.float32)
    scale = float(np.prod(shape)) / 96**3
    spread = log_uniform(rng, 0.02, 0.15)
    for _ in range(rng.poisson(160 * scale)):
        power = rng.choice([2.0, 2.0, 8.0])
        value, size = float(rng.normal(0, spread)), log_uniform(rng, 1, 16)
        add_ellipsoid(rng, chi, value, size * rng.uniform(0.5, 1.5, 3), power=power)
    for _ in range(rng.poisson(20 * scale)):
        add_vessel(rng, chi, rng.uniform(0.05, 0.3), log_uniform(rng, 0.5, 3), 60)
    return chi, brain_mask(rng, shape) if rng.random() < 0.7 else np.ones(shape, bool)


def _texture(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    slow = rng.uniform(0.003, 0.02) * smooth_noise(rng, shape, rng.uniform(5, 15))
    medium = rng.uniform(0.003, 0.015) * smooth_noise(rng, shape, rng.uniform(1.5, 4))
    fine = rng.uniform(0.002, 0.012) * smooth_noise(rng, shape, rng.uniform(0.5, 1.2))
    return slow + medium + fine


def tissue(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Folded compartments: level sets of random fields, with texture, nuclei, veins, bleeds."""
    chi = _texture(rng, shape)
    for _ in range(rng.integers(1, 4)):
        folds = smooth_noise(rng, shape, log_uniform(rng, 1.0, 6))
        folds += rng.uniform(0, 0.8) * smooth_noise(rng, shape, rng.uniform(5, 15))
        level, width = rng.normal(0, 0.7), rng.uniform(0.1, 0.4)
        inside = np.clip((folds - level) / width + 0.5, 0, 1)
        if rng.random() < 0.5:  # a sheet (cortex) instead of a region
            inside = np.clip(1.5 - np.abs(folds - level) / rng.uniform(0.3, 0.8), 0, 1)
        chi += rng.normal(0, 0.03) * inside
    add_lesions(rng, chi)
    return chi, brain_mask(rng, shape)


def deformation(
    rng: np.random.Generator, shape: Shape, *, amplitude: float = 4.0, length: float = 14.0
) -> np.ndarray:
    """Coordinates `(3, X, Y, Z)` after a smooth random displacement of `amplitude` voxels."""
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    return grid + amplitude * np.stack([smooth_noise(rng, shape, length) for _ in range(3)])


def anatomy(
    rng: np.random.Generator, image: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A deformed brain: a random function of the T1w `image` plus a random value per label.

    `image` is zero outside the brain, `labels` holds integers; both on about 1 mm.
    """
    where = deformation(rng, image.shape)  # type: ignore[arg-type]
    grey = ndimage.map_coordinates(image, where, order=1)
    regions = ndimage.map_coordinates(labels, where, order=0)
    mask = ndimage.binary_fill_holes(grey > 0.05 * np.percentile(grey[grey > 0], 95))
    quantiles = np.quantile(grey[mask], np.linspace(0, 1, 6))
    ramp = np.interp(grey, quantiles, rng.normal(0, 0.025, 6)).astype(np.float32)
    values = rng.normal(0, 0.012, int(labels.max()) + 1).astype(np.float32)
    values[rng.random(values.size) < 0.1] += rng.uniform(0.02, 0.15)
    chi = ramp + ndimage.gaussian_filter(values[regions], 0.5)
    chi += rng.uniform(0.3, 1) * _texture(rng, chi.shape)
    add_lesions(rng, chi)
    return chi, np.asarray(mask)


def sample(chi: np.ndarray, mask: np.ndarray) -> Sample:
    """Zero `chi` outside the mask and compute its field (B0 along z, 1 mm voxels)."""
    inside = np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32)
    field = dipole_field(torch.from_numpy(inside), VOXEL_SIZE, B0_DIR).numpy()
    return Sample(inside, np.where(mask, field, 0).astype(np.float32), mask)


def families(
    image: np.ndarray | None = None, labels: np.ndarray | None = None
) -> list[Callable[[np.random.Generator, Shape], tuple[np.ndarray, np.ndarray]]]:
    """The generators in the proportions used for training; without an anatomy two remain."""
    if image is None or labels is None:
        return [tissue, tissue, geometric]

    def brain(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        return anatomy(rng, image, labels)

    return [tissue, brain, brain, geometric]
