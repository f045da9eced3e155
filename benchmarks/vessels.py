"""How many bleeds and calcifications are found, how many false ones, and how much of the veins.

    python benchmarks/vessels.py --seed 21 22 23

Simulated heads as in benchmarks/swi.py: two haemorrhages, eight microbleeds, four calcified spots,
from raw phase with the pipeline's field fit, trimming and inversion over the true brain. Spots of
the volume of a ball of 2 mm and more count, smaller ones neither as there nor as false. A spot is
found where a candidate's centre lies within 1.5 mm of it; a candidate near none is false. "In the
map" are spots with half of their voxels where χ is known: trimming leaves out the surface. Sign is
that of the found ones. FROC: sensitivity for microbleeds and false candidates for each head, over
the threshold. Veins: Dice, and the share of the veins' voxels that is found within a voxel and the
reverse, in the mask of χ.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from chains import parameters_of
from scipy import ndimage
from swi import KINDS, simulated

from qsm_nipype import chain, methods
from qsm_nipype.core.vessels.bleeds import Spots
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.signal import Scan
from qsm_nipype.system.threads import limit_threads

THRESHOLDS = (0.02, 0.03, 0.035, 0.04, 0.05, 0.08, 0.12)
#: Diameter (mm) of the ball of the same volume from which a spot is to be found.
LEAST = 2.0
SIGNS = {"haemorrhage": 1, "microbleed": 1, "calcium": -1}


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, look, print the tables."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    rows: dict[float, list[dict[str, Any]]] = {t: [] for t in THRESHOLDS}
    for seed in options.seed:
        scan = simulated(seed, options.anatomy, options.voxel_size)
        chi, mask = susceptibility(scan, options.inversion)
        given = parameters_of(scan)
        for threshold in THRESHOLDS:
            found = chain.find_vessels(
                chi,
                mask,
                given,
                method="bleeds",
                parameters={"vessels.bleeds": {"threshold": threshold}},
            )
            rows[threshold].append(judged(found, scan, mask.numpy()))
        started = time.perf_counter()
        veins = chain.find_vessels(chi, mask, given, method="veins")
        seconds = time.perf_counter() - started
        dice, found_share, true_share = overlap(veins.mask.numpy(), scan, mask.numpy())
        print(
            f"seed {seed}: veins Dice {dice:.2f}, found {found_share:.2f}, true {true_share:.2f}, "
            f"{seconds:.1f} s",
            flush=True,
        )
    print("| threshold | " + " | ".join(f"{k} (in the map)" for k in KINDS) + " | sign | false |")
    print("|---" * (len(KINDS) + 3) + "|")
    for threshold, own in rows.items():
        cells = []
        for kind in KINDS:
            there, inside, hits = (
                sum(r[kind][n] for r in own) for n in ("there", "inside", "found")
            )
            cells.append(f"{hits}/{there} ({hits}/{inside})")
        right, every = (sum(r[n] for r in own) for n in ("right", "hits"))
        false = sum(r["false"] for r in own) / len(own)
        print(f"| {threshold:g} | {' | '.join(cells)} | {right}/{every} | {false:.1f} |")


def parser() -> argparse.ArgumentParser:
    """Which heads."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="procedural", choices=tuple(heads.ANATOMIES))
    made.add_argument("--seed", type=int, nargs="+", default=[21, 22, 23])
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--inversion", default="whtv", choices=methods.names("inversion"))
    made.add_argument("--threads", type=int, default=2)
    return made


def susceptibility(scan: Scan, inversion: str) -> tuple[torch.Tensor, torch.Tensor]:
    """χ relative to the brain's mean (ppm), and where it is known."""
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    given, brain = parameters_of(scan), torch.from_numpy(scan.brain)
    _, _, fitted = chain.map_field(phase, magnitude, given)
    trimmed, _ = chain.trim_mask(brain, fitted, given)
    found = chain.susceptibility(
        fitted.field,
        trimmed,
        given,
        field_noise=fitted.noise,
        magnitude=magnitude,
        inversion=inversion,
    )
    return chain.set_reference(found.chi, found.mask, kind="brain").chi, found.mask


def judged(found: Spots, scan: Scan, mask: np.ndarray) -> dict[str, Any]:
    """Counts of one head: spots of each kind there, in the map and found; false candidates."""
    instances, labels = scan.head.instances, scan.head.labels
    assert instances is not None
    reach = max(1, round(1.5 / min(scan.head.voxel_size)))
    row: dict[str, Any] = {k: {"there": 0, "inside": 0, "found": 0} for k in KINDS}
    row |= {"right": 0, "hits": 0}
    volume = math.prod(scan.head.voxel_size)
    used: set[int] = set()
    for number in range(1, int(instances.max()) + 1):
        own = instances == number
        inside = own & scan.brain
        if not inside.any():
            continue
        label = int(np.median(labels[own]))
        kind = next(k for k, v in KINDS.items() if v == label)
        near = ndimage.binary_dilation(own, iterations=reach)
        hits = [spot for spot in found.found if near[spot.center]]
        used |= {spot.number for spot in hits}
        if volume * own.sum() < math.pi / 6 * LEAST**3:
            continue
        row[kind]["there"] += 1
        row[kind]["inside"] += bool(mask[own].mean() > 0.5)
        row[kind]["found"] += bool(hits)
        if hits:
            row["hits"] += 1
            row["right"] += hits[0].sign == SIGNS[kind]
    row["false"] = len(found.found) - len(used)
    return row


def overlap(found: np.ndarray, scan: Scan, mask: np.ndarray) -> tuple[float, float, float]:
    """Dice with the true veins, and the shares of the one within a voxel of the other."""
    truth, cube = (scan.head.labels == lab.VEIN) & mask, np.ones((3, 3, 3))
    wide_truth, wide = (ndimage.binary_dilation(x, cube) for x in (truth, found))
    dice = 2 * (found & truth).sum() / max(1, found.sum() + truth.sum())
    return (
        float(dice),
        float((wide & truth).sum() / max(1, truth.sum())),
        float((found & wide_truth).sum() / max(1, found.sum())),
    )


if __name__ == "__main__":
    main()
