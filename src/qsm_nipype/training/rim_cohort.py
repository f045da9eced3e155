"""The cohort for rim classification: simulated regions reconstructed by the pipeline's methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor

from qsm_nipype.core.background.tfi import lbv_tfi
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.harmonic import whtv
from qsm_nipype.core.inversion.nonlinear import nltv
from qsm_nipype.simulation.lesions import Region, lesion_region, rim_count
from qsm_nipype.training.cache import fill_cache

VOXEL = (1.0, 1.0, 1.0)
#: multiples of this, modulo one, fill the unit interval evenly from the first few on
_GOLDEN = 0.5 * (5**0.5 - 1)


@dataclass(frozen=True)
class Patient:
    """A reconstructed region. Arrays `(X, Y, Z)` at 1 mm.

    `chi` (ppm, mean zero in the mask), `flair`, `instances` (1, 2 … per lesion), `rim` (bool, one
    for each instance).
    """

    chi: np.ndarray
    flair: np.ndarray
    instances: np.ndarray
    mask: np.ndarray
    rim: np.ndarray


def make_cohort(
    folder: Path, patients: int, *, seed: int = 0, rims: int | None = None, workers: int = 0
) -> None:
    """Simulate `patients` regions into `folder`, `workers` at a time (see `cache.fill_cache`).

    `rims` is the number of rim lesions in each (None: as in a clinical cohort, the patients
    spread evenly over the quantiles of `rim_count`, however many they are).
    """
    first = np.random.default_rng(seed).random()

    def make(number: int) -> Mapping[str, np.ndarray]:
        count = rim_count((first + _GOLDEN * number) % 1) if rims is None else rims
        patient = simulate_patient(1000 * (seed + 1) + number, rims=count)
        inside = f"{len(patient.rim)} lesions, {int(patient.rim.sum())} with rim"
        print(f"patient {number + 1} of {patients}: {inside}", flush=True)
        return arrays_of(patient)

    fill_cache(
        folder, "patient", patients, make, made_with={"seed": seed, "rims": rims}, workers=workers
    )


def simulate_patient(seed: int, *, edge: int = 80, rims: int | None = None) -> Patient:
    """A region with lesions through forward model, background removal and inversion."""
    region = lesion_region(seed, edge=edge, rims=rims)
    rng = np.random.default_rng([seed, 1])
    chi, mask = reconstruct(region, rng)
    names = np.arange(1, len(region.plans) + 1)
    kept = np.array([bool(mask[region.instances == n].any()) for n in names], bool)
    instances = np.zeros_like(region.instances)
    for new, old in enumerate(names[kept], start=1):
        instances[region.instances == old] = new
    rim = np.array([p.positive for p in region.plans], bool)[kept]
    return Patient(chi, region.flair, instances, mask, rim)


def reconstruct(region: Region, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """χ (ppm) and mask of a region: its field, a background and noise, undone by our methods.

    The susceptibilities around the cube are random, so that the background has parts that no
    harmonic model of the cube's surface knows exactly. Three quarters are inverted by `nltv`, the
    rest by forty iterations of the pipeline's default, `whtv`.
    """
    head = region.head
    around = 24
    source = np.pad(region.tissue.chi, around, mode="edge")
    far = gaussian_filter(rng.standard_normal(source.shape, dtype=np.float32), 5.0)
    far *= rng.uniform(0.2, 1.5) / far.std()
    inner = (slice(around, -around),) * 3
    far[inner] = 0
    outside = ~np.pad(head.brain, around, mode="edge")
    outside[inner] = False
    source = np.where(outside, 0, source) + far
    total = dipole_field(torch.from_numpy(source.astype(np.float32)), VOXEL, head.b0_dir)
    total = total[inner].contiguous()
    sd = float(np.clip(rng.lognormal(np.log(0.002), 0.4), 0.0008, 0.006))
    noise = sd * torch.from_numpy(np.exp(0.3 * _smooth(rng, head.labels.shape, 12.0)))
    total = total + noise * torch.from_numpy(
        rng.standard_normal(head.labels.shape, dtype=np.float32)
    )
    mask = _trusted(head.brain)
    local = lbv_tfi(total, mask, VOXEL, head.b0_dir, noise=noise)
    solution = _invert(local.field, local.mask, head.b0_dir, noise, bool(rng.random() < 0.25))
    keep = local.mask.numpy()
    chi = solution.chi.numpy()
    return np.where(keep, chi - chi[keep].mean(), 0).astype(np.float32), keep


def _invert(
    field: Tensor, mask: Tensor, b0_dir: tuple[float, ...], noise: Tensor, default: bool
) -> Solution:
    if default:
        return whtv(field, mask, VOXEL, b0_dir, noise=noise, max_iterations=40)
    return nltv(field, mask, VOXEL, b0_dir, noise=noise)


def _trusted(brain: np.ndarray) -> Tensor:
    """The brain without its outer 2 mm and without the cube's own faces."""
    inner = np.zeros_like(brain)
    inner[2:-2, 2:-2, 2:-2] = True
    return torch.from_numpy(binary_erosion(brain, iterations=2, border_value=1) & inner)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain)
    return (noise / noise.std()).astype(np.float32)


def arrays_of(patient: Patient) -> Mapping[str, np.ndarray]:
    """What is kept of a patient: images in half precision (χ in ppb)."""
    return {
        "chi": (1e3 * patient.chi).astype(np.float16),
        "flair": patient.flair.astype(np.float16),
        "instances": patient.instances,
        "mask": patient.mask,
        "rim": patient.rim,
    }


def read_patient(path: Path) -> Patient:
    """A file of `arrays_of`."""
    with np.load(path, allow_pickle=False) as data:
        return Patient(
            data["chi"].astype(np.float32) / 1e3,
            data["flair"].astype(np.float32),
            data["instances"],
            data["mask"],
            data["rim"],
        )
