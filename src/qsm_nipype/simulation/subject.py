"""One call from a seed to a scan with its truth."""

from __future__ import annotations

import numpy as np

from qsm_nipype.simulation import heads
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.signal import Protocol, Scan, acquire
from qsm_nipype.simulation.tissue import average_contrast, random_contrast, tissue_maps


def simulate_subject(
    seed: int,
    *,
    shape: tuple[int, int, int] = (180, 220, 180),
    voxel_size: float = 1.0,
    protocol: Protocol | None = None,
    anatomy: str = "procedural",
    head: Head | None = None,
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
    vary_contrast: bool = True,
) -> Scan:
    """A scan of a random head: same seed, same bytes.

    `anatomy` is "procedural" or "colin"; a given `head` replaces it; `vary_contrast` draws the person's tissue properties
    instead of taking the literature's means.
    """
    person, contrast, texture, scanner = np.random.default_rng(seed).spawn(4)
    if head is None:
        head = heads.ANATOMIES[anatomy](person, shape, voxel_size, angles=angles)
    table = random_contrast(contrast) if vary_contrast else average_contrast()
    tissue = tissue_maps(head, texture, contrast=table)
    return acquire(head, tissue, protocol or Protocol(), scanner)
