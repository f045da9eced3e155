"""Training images of the mask network: one random magnitude image of one anatomy.

Three kinds of contrast: the spoiled gradient echo's equation with random tissue, a random
intensity for every tissue [Hoopes2022]_, and for Colin27 a random function of its real image.
Then signal loss where the field is steep, receive bias, pose, field of view, thick slices, noise,
ghosts and what scanners and anonymisation do to the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.models.resize import resize
from qsm_nipype.training.heads import CENTRE, Anatomy

_BRAIN = (1, 2, 3, 4, 5, 6, 7, 8, 9)


def example(
    rng: np.random.Generator,
    anatomy: Anatomy,
    patch: Sequence[int],
    *,
    voxel: float,
) -> tuple[Tensor, Tensor]:
    """Magnitude in [0, 1] and coverage by brain (0 to 1), both of shape `patch`, RAS+.

    `voxel` is the edge of the patch's voxels in mm.
    """
    image = _blurred(rng, _render(rng, anatomy), anatomy.voxel, voxel)
    distance = torch.from_numpy(anatomy.distance.astype(np.float32)) / 10
    where = _pose(rng, anatomy, patch, voxel)
    image = _sample(image, where)
    coverage = (0.5 - _sample(distance, where, border=True) / voxel).clamp(0, 1)
    image, coverage = _cut(rng, image, coverage)
    image = _scanned(rng, image, coverage)
    if rng.random() < 0.5:
        image, coverage = image.flip(0), coverage.flip(0)
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-12), coverage


def _render(rng: np.random.Generator, anatomy: Anatomy) -> Tensor:
    """Magnitude on the anatomy's grid, before the scanner."""
    labels = torch.from_numpy(anatomy.labels).int()
    chance = rng.random()
    table = _gradient_echo(rng) if chance < 0.5 else _random_table(rng)
    image = torch.from_numpy(table)[labels]
    if anatomy.t1.any() and chance > 0.35:
        real = torch.from_numpy(_random_function(rng))[torch.from_numpy(anatomy.t1).int()]
        image = image + float(rng.uniform(0.4, 1.0)) * (real - image)
        image[labels == 0] = 0
    for grain, amplitude in ((2.5, 0.08), (8.0, 0.12)):
        image = image * (1 + float(rng.uniform(0, amplitude)) * _grain(rng, anatomy, grain))
    if rng.random() < 0.85:
        cycles = float(np.exp(rng.uniform(math.log(0.3), math.log(20))))
        slope = torch.from_numpy(anatomy.slope).float()
        image = image * torch.exp(-1.6 * (cycles * slope).square())
    return image.clamp_min(0)


def _gradient_echo(rng: np.random.Generator) -> np.ndarray:
    """Signal of every label in a spoiled gradient echo of random protocol."""
    from qsm_nipype.simulation.tissue import random_contrast

    b0 = float(rng.choice([1.5, 3.0, 7.0]))
    te, tr = rng.uniform(0.002, 0.030), rng.uniform(0.012, 0.060)
    alpha = np.deg2rad(rng.uniform(5, 30))
    table = np.zeros(256, np.float32)
    for label, (_, m0, r1, r2star, _) in random_contrast(rng, strength=2.0).items():
        e1 = np.exp(-tr * r1 * (3.0 / b0) ** 0.35)
        steady = m0 * np.sin(alpha) * (1 - e1) / (1 - np.cos(alpha) * e1)
        table[label] = steady * np.exp(-te * r2star * (0.4 + 0.6 * b0 / 3))
    return table / table.max()


def _random_table(rng: np.random.Generator) -> np.ndarray:
    """A random intensity for every label; in half of them the brain's tissues are alike."""
    table = rng.uniform(0, 1, 256).astype(np.float32)
    table[[0, 14]] *= 0.05 * rng.random(2)
    if rng.random() < 0.5:
        base, spread = rng.uniform(0.25, 0.9), rng.uniform(0.03, 0.2)
        table[list(_BRAIN)] = np.clip(base + spread * rng.normal(size=len(_BRAIN)), 0.05, 1.2)
    if rng.random() < 0.5:
        table[13] *= 0.2  # bone, most often dark
    return table


def _random_function(rng: np.random.Generator) -> np.ndarray:
    """A random smooth function of an 8-bit image, zero at zero; half of them monotonous."""
    knots = rng.uniform(0, 1, 6)
    if rng.random() < 0.5:
        knots = np.sort(knots)
    return np.interp(np.arange(256), [0, 12, 40, 65, 90, 115, 160], [0, *knots]).astype(np.float32)


def _grain(rng: np.random.Generator, anatomy: Anatomy, length: float) -> Tensor:
    """Noise of unit SD and about `length` mm on the anatomy's grid."""
    size = anatomy.labels.shape
    shape = [max(4, round(n * anatomy.voxel / length / 1.5)) for n in size]
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    noise = functional.interpolate(noise[None, None], size=size, mode="trilinear")[0, 0]
    return noise / noise.std()


def _blurred(rng: np.random.Generator, image: Tensor, step: float, voxel: float) -> Tensor:
    """Partial volume of the scanner's voxels and of the network's `voxel`; `step` the image's."""
    common = rng.uniform(0, 0.8)
    sigmas = np.sqrt((0.4 * voxel) ** 2 + (common + rng.uniform(0, 0.6, 3)) ** 2) / step
    for axis, sigma in enumerate(sigmas):
        x = torch.arange(image.shape[axis], dtype=torch.float32)
        kernel = torch.exp(-0.5 * ((x[:, None] - x) / float(sigma)).square())
        kernel /= kernel.sum(1, keepdim=True)
        image = torch.tensordot(kernel, image, ([1], [axis])).movedim(0, axis)
    return image.contiguous()


def _pose(
    rng: np.random.Generator, anatomy: Anatomy, patch: Sequence[int], voxel: float
) -> Tensor:
    """Where the patch's voxels lie in the anatomy: `(1, X, Y, Z, 3)` for `grid_sample`."""
    from qsm_nipype.simulation.deformation import grid_points, random_deformation

    change = random_deformation(
        rng,
        amplitude=float(rng.uniform(0, 4)),
        wavelength=float(rng.uniform(50, 110)),
        size=float(rng.uniform(0.92, 1.08)),
        scaling=0.10,
        rotation=float(rng.choice([6, 20])),
        shift=0.0,
    )
    affine = np.diag([voxel, voxel, voxel, 1.0])
    middle = np.array([0.0, -16.0, 5.0]) + rng.uniform(-1, 1, 3) * (22, 26, 30)
    affine[:3, 3] = middle - voxel * (np.asarray(patch) - 1) / 2
    points = change(grid_points(patch, affine))
    index = (points - np.reshape(CENTRE, (3, 1, 1, 1))) / anatomy.voxel
    half = (np.asarray(anatomy.labels.shape, dtype=np.float32) - 1).reshape(3, 1, 1, 1) / 2
    scaled = (index / half).astype(np.float32)[::-1]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, 0, -1)))[None]


def _sample(volume: Tensor, where: Tensor, *, border: bool = False) -> Tensor:
    return functional.grid_sample(
        volume[None, None],
        where,
        padding_mode="border" if border else "zeros",
        align_corners=True,
    )[0, 0]


def _cut(rng: np.random.Generator, image: Tensor, coverage: Tensor) -> tuple[Tensor, Tensor]:
    """A field of view that ends within the patch, through the neck or through the brain."""
    keep = torch.ones_like(image)
    for axis in range(3):
        for side in (False, True):
            if rng.random() < 0.2:
                n = int(rng.uniform(0, 0.25) * image.shape[axis])
                start = image.shape[axis] - n if side else 0
                keep.narrow(axis, start, n).zero_()
    return image * keep, coverage * keep


def _scanned(rng: np.random.Generator, image: Tensor, coverage: Tensor) -> Tensor:
    """Bias, thick slices, ghosts, noise, ringing, a cleaned background, a removed face."""
    inside = image > 0
    image = image * _bias(rng, image.shape)
    if rng.random() < 0.4:
        image = _thick(rng, image)
    brain = coverage > 0.5
    level = float(image[brain].mean()) if bool(brain.any()) else float(image.mean())
    if rng.random() < 0.15:
        axis = int(rng.integers(2))
        ghost = image.roll(image.shape[axis] // 2, axis)
        image = image + float(rng.uniform(0.02, 0.15)) * ghost
    sigma = level * float(np.exp(rng.uniform(math.log(0.002), math.log(0.2))))
    real, imaginary = torch.from_numpy(
        sigma * rng.standard_normal((2, *image.shape), dtype=np.float32)
    )
    image = torch.hypot(image + real, imaginary)
    if rng.random() < 0.2:
        image = _ringing(image, float(rng.uniform(0.5, 0.95)))
    if rng.random() < 0.3:
        image = image * inside if rng.random() < 0.5 else image * (image > 3 * sigma)
    if rng.random() < 0.1:
        image = _without_face(rng, image, coverage)
    if rng.random() < 0.3:
        top = max(float(image.max()), 1e-12)
        image = (image / top) ** float(rng.uniform(0.6, 1.6))
    if rng.random() < 0.3:
        image = image.clamp_max(float(rng.uniform(1.2, 3.0)) * level)
    return image


def _bias(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Receive sensitivity: the exponential of a random cubic-looking smooth field."""
    coarse = torch.from_numpy(rng.standard_normal((4, 4, 4), dtype=np.float32))[None, None]
    field = functional.interpolate(coarse, size=tuple(shape), mode="trilinear")[0, 0]
    return torch.exp(float(rng.uniform(0, 0.7)) * field)


def _thick(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Averaged over thick slices along one axis, then interpolated back."""
    axis = int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))
    coarse = list(image.shape)
    coarse[axis] = max(8, round(coarse[axis] / rng.uniform(1.2, 2.6)))
    return resize(resize(image, coarse), image.shape)


def _ringing(image: Tensor, keep: float) -> Tensor:
    """Magnitude after cutting k-space outside `keep` of its extent along every axis."""
    k = torch.fft.fftshift(torch.fft.fftn(image))
    for axis, n in enumerate(image.shape):
        edge = round(n * (1 - keep) / 2)
        k.narrow(axis, 0, edge).zero_()
        k.narrow(axis, n - edge, edge).zero_()
    return torch.fft.ifftn(torch.fft.ifftshift(k)).abs()


def _without_face(rng: np.random.Generator, image: Tensor, coverage: Tensor) -> Tensor:
    """Zero in front of and below a plane that touches the brain, as defacing leaves it."""
    angle, gap = np.deg2rad(rng.uniform(15, 60)), rng.uniform(2, 8)
    y, z = (torch.arange(n, dtype=torch.float32) for n in image.shape[1:])
    height = math.sin(angle) * y[:, None] - math.cos(angle) * z[None]
    brain = (coverage > 0.5).any(0)
    if not bool(brain.any()):
        return image
    return image * (height < height[brain].max() + gap)
