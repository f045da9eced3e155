"""One call from a seed to a scan with its truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qsm_nipype.simulation import heads
from qsm_nipype.simulation.contrast import flair, t1w
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.pathology import random_pathology
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
    vary_contrast: bool = True,
    pathology: bool = False,
) -> Scan:
    """A scan of a random head: same seed, same bytes.

    `anatomy` is "procedural" or "colin"; a given `head` replaces it. `vary_contrast` draws the
    person's tissue properties instead of taking the literature's means; `pathology` adds random
    bleeds, calcifications and lesions. The protocol's further contrasts come in `Scan.extra`.
    """
    person, contrast, texture, scanner, disease, other = np.random.default_rng(seed).spawn(6)
    protocol = protocol or Protocol()
    if head is None:
        head = heads.ANATOMIES[anatomy](person, shape, voxel_size, angles=protocol.angles)
    if pathology:
        head, _ = random_pathology(head, disease)
    table = random_contrast(contrast) if vary_contrast else average_contrast()
    tissue = tissue_maps(head, texture, contrast=table)
    scan = acquire(head, tissue, protocol, scanner)
    images = {"T1w": t1w, "FLAIR": flair}
    return replace(
        scan, extra={name: images[name](head, tissue, other) for name in protocol.contrasts}
    )
