"""How a trained QSMGAN compares with direct inversion on volumes that it has not seen."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.core.inversion.direct import tikhonov, tkd
from qsm_nipype.models.consistency import consistent
from qsm_nipype.models.qsmgan import Trained, consistency_weight, first_guesses, qsmgan
from qsm_nipype.training.sources import B0_DIR, VOXEL_SIZE, Sample

#: Thresholds among which TKD may choose the best for each volume, knowing the truth.
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3)


def relative_error(chi: Tensor, truth: Tensor, mask: Tensor) -> float:
    """NRMSE in % inside the mask, both maps taken relative to their means there."""
    found, right = chi[mask] - chi[mask].mean(), truth[mask] - truth[mask].mean()
    return float(100 * (found - right).norm() / right.norm())


def compare(
    generator: Trained, volume: Sample, *, noise: float | None, seed: int = 0
) -> dict[str, float]:
    """NRMSE (%) of each method on one volume whose field gets noise of SD `noise` (ppm).

    Least norm and whTV are what the network starts from. None: the field is the volume's own.
    """
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(volume.chi.astype(np.float32))
    mask = torch.from_numpy(volume.mask)
    if noise is None:
        field = torch.from_numpy(volume.field.astype(np.float32))
        noise = field_noise(field, mask, VOXEL_SIZE, B0_DIR)
    else:
        field = dipole_field(truth, VOXEL_SIZE, B0_DIR)
        field += noise * torch.from_numpy(rng.standard_normal(field.shape, dtype=np.float32))
        field *= mask
    sd = torch.full_like(field, noise)
    case = (field, mask, VOXEL_SIZE, B0_DIR)
    alone = qsmgan(*case, generator=generator, consistency=float("inf"), noise=sd).chi
    weight = consistency_weight(noise)
    combined, _ = consistent(alone, *case, weight=weight)
    least, smooth = first_guesses(*case, noise=noise)
    best = min(relative_error(tkd(*case, threshold=t).chi, truth, mask) for t in THRESHOLDS)
    return {
        "TKD": relative_error(tkd(*case).chi, truth, mask),
        "TKD, best threshold": best,
        "L2": relative_error(tikhonov(*case, noise=sd).chi, truth, mask),
        "least norm": relative_error(least, truth, mask),
        "whTV": relative_error(smooth, truth, mask),
        "network alone": relative_error(alone, truth, mask),
        "network, consistent": relative_error(combined, truth, mask),
    }


def write_table(
    path: Path, generator: Trained, volumes: Sequence[Sample], *, noises: Sequence[float | None]
) -> None:
    """`compare` for every volume and noise (ppm; None: its own), one row each, as CSV."""
    with path.open("w", newline="") as stream:
        writer = None
        for noise in noises:
            for number, volume in enumerate(volumes):
                row = compare(generator, volume, noise=noise, seed=number)
                added = "its own" if noise is None else f"{1000 * noise:g}"
                full = {"noise_ppb": added, "volume": str(number)}
                full |= {name: f"{value:.2f}" for name, value in row.items()}
                writer = writer or csv.DictWriter(stream, list(full))
                if stream.tell() == 0:
                    writer.writeheader()
                writer.writerow(full)
                stream.flush()
