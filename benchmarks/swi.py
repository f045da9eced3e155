"""How dark bleeds, calcium and veins are in each susceptibility-weighted image.

    python benchmarks/swi.py --seed 5 6 --voxel-size 1

Simulated heads with haemorrhages, microbleeds and calcified spots, from raw phase with the
pipeline's field fit and inversion over the true brain. Contrast-to-noise is the median of the
tissue around (2 to 8 mm away, without lesions and veins) less the mean of the lesion, over the
tissue's spread (1.48 times the median absolute deviation); for all veins 5 mm and more below the
surface of the brain, 1 to 4 mm around. Positive is dark. The median over all lesions of all heads.
Seconds are of the method alone, with its projection.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from chains import parameters_of
from scipy import ndimage

from qsm_nipype import chain, methods
from qsm_nipype.core.swi.magnitude import WEIGHTINGS, joined_echoes
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.pathology import calcification, haemorrhage, microbleeds
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads

KINDS = {
    "haemorrhage": lab.HAEMORRHAGE,
    "microbleed": lab.MICROBLEED,
    "calcium": lab.CALCIFICATION,
}
TISSUE = (lab.WHITE_MATTER, lab.GREY_MATTER, *lab.NUCLEI)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, weight, print the table."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in options.seed:
        scan = simulated(seed, options.anatomy, options.voxel_size)
        for name, image, seconds in images(scan, options.inversion):
            for kind, contrast in contrasts(image, scan):
                found[name][kind].append(contrast)
            found[name]["seconds"].append(seconds)
    columns = [*KINDS, "veins", "seconds"]
    print(f"{'':<20}" + "".join(f"{c:>13}" for c in columns))
    for name, own in found.items():
        print(f"{name:<20}" + "".join(f"{np.median(own[c]):>13.2f}" for c in columns))


def parser() -> argparse.ArgumentParser:
    """Which heads."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="procedural", choices=tuple(heads.ANATOMIES))
    made.add_argument("--seed", type=int, nargs="+", default=[5, 6])
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--inversion", default="whtv", choices=methods.names("inversion"))
    made.add_argument("--threads", type=int, default=2)
    return made


def simulated(seed: int, anatomy: str, voxel_size: float) -> Scan:
    """A head with two haemorrhages, eight microbleeds and four calcified spots at 3 T."""
    shape = tuple(2 * round(n / voxel_size / 2) for n in (180, 220, 180))
    head = heads.ANATOMIES[anatomy](np.random.default_rng(seed), shape, voxel_size)
    rng = np.random.default_rng(seed)
    for radius in (5.0, 8.0):
        head, _ = haemorrhage(head, rng, radius=radius, chi=0.6)
    head, _ = microbleeds(head, rng, count=8)
    for radius in (2.0, 2.0, 3.0, 3.0):
        head, _ = calcification(head, rng, radius=radius, chi=-0.8)
    return simulate_subject(seed, head=head, protocol=Protocol(snr=60), voxel_size=voxel_size)


def images(scan: Scan, inversion: str) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, image and seconds: the magnitude as it is, then by each method of the registry."""
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    given, brain = parameters_of(scan), torch.from_numpy(scan.brain)
    removed, _, fitted = chain.map_field(phase, magnitude, given)
    trimmed, _ = chain.trim_mask(brain, fitted, given)
    chi = chain.susceptibility(
        fitted.field,
        trimmed,
        given,
        field_noise=fitted.noise,
        magnitude=magnitude,
        inversion=inversion,
    ).chi
    maps = {"phase": removed.phase, "total_field": fitted.field, "chi": chi}
    for weighting in WEIGHTINGS:
        joined = joined_echoes(magnitude, given.echo_times, weighting)
        yield f"magnitude, {weighting}", joined.numpy(), 0.0
    for method in methods.names("swi"):
        started = time.perf_counter()
        made = chain.weight_magnitude(magnitude, brain, given, method=method, **maps)
        yield method, made.image.numpy(), time.perf_counter() - started


def contrasts(image: np.ndarray, scan: Scan) -> Iterator[tuple[str, float]]:
    """Kind and contrast-to-noise of each lesion, and of all veins."""
    labels, spacing = scan.head.labels, scan.head.voxel_size
    tissue = np.isin(labels, TISSUE) & scan.brain
    for kind, label in KINDS.items():
        numbered, count = ndimage.label((labels == label) & scan.brain)
        for box, number in zip(ndimage.find_objects(numbered), range(1, count + 1), strict=True):
            margin = [int(np.ceil(9 / s)) for s in spacing]
            wide = tuple(
                slice(max(0, b.start - m), b.stop + m) for b, m in zip(box, margin, strict=True)
            )
            own = numbered[wide] == number
            yield kind, contrast(image[wide], own, tissue[wide], spacing, (2.0, 8.0))
    deep = ndimage.distance_transform_edt(scan.brain, sampling=spacing) > 5
    yield "veins", contrast(image, (labels == lab.VEIN) & deep, tissue & deep, spacing, (1.0, 4.0))


def contrast(
    image: np.ndarray,
    own: np.ndarray,
    tissue: np.ndarray,
    spacing: Any,
    reach: tuple[float, float],
) -> float:
    """(tissue around − mean inside) / spread of the tissue around, between `reach` mm."""
    away = ndimage.distance_transform_edt(~own, sampling=spacing)
    around = image[tissue & (away > reach[0]) & (away <= reach[1])]
    middle = np.median(around)
    return float((middle - image[own].mean()) / (1.4826 * np.median(np.abs(around - middle))))


if __name__ == "__main__":
    main()
