"""How training maps come to be: a head's field with noise and a background's rest, inverted.

What a reader of maps meets (masks that lost layers, fields of view that end in the brain, bleeds,
every inversion of the pipeline) at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.direct import tikhonov, tkd
from qsm_nipype.core.inversion.harmonic import whtv
from qsm_nipype.core.inversion.nonlinear import nltv
from qsm_nipype.core.inversion.tv import tv
from qsm_nipype.simulation import pathology
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.tissue import tissue_maps

#: Of a tissue label: χ, M0, R1, R2*, R2, as in `simulation.tissue`.
Contrast = Mapping[int, tuple[float, float, float, float, float]]


@dataclass(frozen=True)
class Conditions:
    """Ranges that a case is drawn from.

    `noise` of the field (ppb) and `iron` (factor on the nuclei's susceptibility) log-uniformly;
    `texture` and `blur` as in `tissue_maps`; `leftover` the largest SD of the background's
    remainder (ppb); `inversions` how often each makes the map, mostly the pipeline's own family,
    and `iterations` the most that the slow ones may take.
    """

    noise: tuple[float, float]
    iron: tuple[float, float]
    texture: tuple[float, float]
    blur: tuple[float, float]
    leftover: float
    inversions: Mapping[str, float]
    iterations: int = 60


def reconstruct_chi(
    head: Head, contrast: Contrast, rng: np.random.Generator, drawn: Conditions
) -> np.ndarray:
    """χ (ppm) from the noisy field of `head`'s brain, as the pipeline's inversions see it.

    Texture, noise and errors are `drawn`; noise grows where the signal is low, a harmonic field
    of a few ppb stands for what background removal leaves, and the mask has lost its outer layers.
    """
    tissue = tissue_maps(
        head,
        rng,
        contrast=contrast,
        texture=float(rng.uniform(*drawn.texture)),
        blur=float(rng.uniform(*drawn.blur)),
    )
    mask = eroded(head, float(rng.uniform(1.0, 3.5)))
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    own = np.where(head.brain, tissue.chi - tissue.chi[head.brain].mean(), 0).astype(np.float32)
    size, direction = head.voxel_size, head.b0_dir
    field = dipole_field(torch.from_numpy(own), size, direction, padding=0.3).numpy()
    noise = noise_level(tissue.m0 * np.exp(-0.016 * tissue.r2star), mask, rng, drawn.noise)
    field = field + noise * rng.standard_normal(field.shape, dtype=np.float32)
    field = (field + leftover(head, rng, drawn.leftover)) * mask
    chi = invert(field, mask, noise, head, rng, drawn)
    chi[mask] -= chi[mask].mean() + np.float32(rng.normal(0, 0.01))
    return chi * mask


def diseased(head: Head, rng: np.random.Generator) -> Head:
    """A third of the heads with microbleeds or a calcification."""
    drawn = rng.random()
    if drawn < 0.15:
        return pathology.microbleeds(head, rng, count=int(rng.integers(2, 8)))[0]
    if drawn < 0.3:
        return pathology.calcification(head, rng, radius=float(rng.uniform(1.5, 4)))[0]
    return head


def eroded(head: Head, depth: float) -> np.ndarray:
    """Brain less its outer `depth` mm; the grid's border is no surface."""
    padded = np.pad(head.brain, 1, mode="edge")
    inner = ndimage.distance_transform_edt(padded, sampling=head.voxel_size) > depth
    return inner[1:-1, 1:-1, 1:-1]


def noise_level(
    magnitude: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    ppb: tuple[float, float],
) -> np.ndarray:
    """SD of the field (ppm) of one level in `ppb`, larger where `magnitude` is small."""
    level = 1e-3 * float(np.exp(rng.uniform(*np.log(ppb))))
    typical = float(np.median(magnitude[mask]))
    return (level * np.clip(typical / np.maximum(magnitude, 1e-3), 0.5, 8)).astype(np.float32)


def leftover(head: Head, rng: np.random.Generator, ppb: float) -> np.ndarray:
    """A harmonic polynomial of at most a few ppb."""
    x, y, z = np.ix_(*(np.linspace(-1, 1, n, dtype=np.float32) for n in head.labels.shape))
    a = rng.normal(0, rng.uniform(0, 1e-3 * ppb), 7).astype(np.float32)
    linear = a[0] * x + a[1] * y + a[2] * z
    return linear + a[3] * x * y + a[4] * y * z + a[5] * x * z + a[6] * (x**2 - y**2)


def invert(
    field: np.ndarray,
    mask: np.ndarray,
    noise: np.ndarray,
    head: Head,
    rng: np.random.Generator,
    drawn: Conditions,
) -> np.ndarray:
    """χ by an inversion of `drawn`."""
    shares = drawn.inversions
    chances = np.array(list(shares.values()))
    name = str(rng.choice(list(shares), p=chances / chances.sum()))
    given = torch.from_numpy(field), torch.from_numpy(mask), head.voxel_size, head.b0_dir
    if name == "tkd":
        return tkd(*given, threshold=float(rng.uniform(0.1, 0.22))).chi.numpy()
    if name == "l2":
        return tikhonov(*given).chi.numpy()
    few = 20 if min(head.voxel_size) > 1.5 else 40
    sigma = torch.from_numpy(noise)
    if name == "tv":
        return tv(*given, noise=sigma, tolerance=1e-2, max_iterations=few).chi.numpy()
    method = nltv if name == "nltv" else whtv
    return method(*given, noise=sigma, tolerance=5e-3, max_iterations=drawn.iterations).chi.numpy()


def halved(volume: np.ndarray) -> np.ndarray:
    """Mean over blocks of two voxels."""
    x, y, z = (n // 2 for n in volume.shape)
    return volume.reshape(x, 2, y, 2, z, 2).mean((1, 3, 5)).astype(np.float32)


def cut_field_of_view(head: Head, rng: np.random.Generator) -> Head:
    """A third of the heads lose their lower or upper part, some all of the cerebellum."""
    brain, drawn = head.brain.copy(), rng.random()
    height = brain.shape[2]
    if drawn < 0.22:
        brain[..., : int(rng.uniform(0.15, 0.6) * height)] = False
    elif drawn < 0.35:
        brain[..., int(rng.uniform(0.3, 0.7) * height) :] = False
    return replace(head, brain=brain)
