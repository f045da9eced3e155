"""One call from a seed to a scan with its truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qsm_nipype.simulation import heads
from qsm_nipype.simulation.contrast import flair, t1w
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.pathology import random_pathology
from qsm_nipype.simulation.scanner.acquire import acquire_realistic
from qsm_nipype.simulation.scanner.finer import split
from qsm_nipype.simulation.scanner.surroundings import with_surroundings
from qsm_nipype.simulation.signal import Protocol, Scan, acquire
from qsm_nipype.simulation.tissue import average_contrast, random_contrast, tissue_maps


def random_protocol(rng: np.random.Generator) -> Protocol:
    """A plausible acquisition at 1.5, 3 or 7 T, drawn for training."""
    b0 = float(rng.choice([1.5, 3.0, 3.0, 3.0, 7.0]))
    count = int(rng.integers(1, 9))
    first = float(rng.uniform(0.002, 0.008))
    last = max(first, float(rng.uniform(0.6, 1.2)) * 0.030 * (3.0 / b0) ** 0.6)
    return Protocol(
        b0=b0,
        echo_times=tuple(np.linspace(first, last, count).tolist()) if count > 1 else (last,),
        repetition_time=last + float(rng.uniform(0.005, 0.025)),
        flip_angle=float(rng.uniform(8, 25)),
        snr=float(np.exp(rng.uniform(np.log(15), np.log(120)))),
        shim=int(rng.integers(1, 3)),
        phase_offset=float(rng.uniform(0.3, 1.5)),
        receive_bias=float(rng.uniform(0.05, 0.6)),
        angles=tuple(float(np.clip(rng.normal(0, s), -35, 35)) for s in (12, 4, 4)),  # type: ignore[arg-type]
    )


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
    finer = "finer" in protocol.effects
    if head is None:
        if finer:
            shape, voxel_size = tuple(2 * n for n in shape), voxel_size / 2  # type: ignore[assignment]
        head = heads.ANATOMIES[anatomy](person, shape, voxel_size, angles=protocol.angles)
    elif finer:
        head = split(head)
    if pathology:
        head, _ = random_pathology(head, disease)
    if "surroundings" in protocol.effects:
        head = with_surroundings(head, np.random.default_rng([seed, 1]))
    table = random_contrast(contrast) if vary_contrast else average_contrast()
    tissue = tissue_maps(head, texture, contrast=table)
    scan = (acquire_realistic if protocol.effects else acquire)(head, tissue, protocol, scanner)
    images = {"T1w": t1w, "FLAIR": flair}
    return replace(
        scan,
        extra={name: images[name](scan.head, scan.tissue, other) for name in protocol.contrasts},
    )
