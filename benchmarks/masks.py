"""Brain masks on simulated heads that no training has seen: surfaces, and what they do to χ.

    python benchmarks/masks.py surface --heads 6
    python benchmarks/masks.py chi --heads 8 --voxel-size 2

`surface` compares masks of the same gradient echoes with the true brain: Dice, 95th percentile of
the surface distance, volume, cavities, islands, seconds. `chi` runs the pipeline's field fit,
trimming, background removal and inversion with every mask and regresses the mean susceptibility of
deep nuclei and haemorrhages on that with the true mask, and on the truth. Dice is given
twice: with the simulator's brain, and with that brain and the fluid that lies around it inside
the skull, which every method takes for brain and whose phase is good. Heads, deformations,
protocols, noise, fields of view and bleeds are drawn from seeds that training does not use.
Simulated data.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import parameters_of
from scipy import ndimage, stats
from torch import Tensor

from qsm_nipype import chain, methods
from qsm_nipype.core import masking
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.core.morphology import fill_holes, largest_component
from qsm_nipype.models.deepbet import deepbet_mask
from qsm_nipype.models.mask import load_network, segment
from qsm_nipype.models.registry import read_weights
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import grid_affine
from qsm_nipype.simulation.pathology import haemorrhage
from qsm_nipype.simulation.signal import Scan
from qsm_nipype.simulation.subject import random_protocol, simulate_subject

#: Fields of view: extent and middle (mm), and voxel edges relative to the chosen size.
VIEWS = (
    ((180, 220, 180), (0, -12, 5), (1, 1, 1)),
    ((190, 230, 140), (0, -12, 12), (1, 1, 1)),  # a slab without neck
    ((200, 240, 220), (0, -8, -18), (1, 1, 1)),  # down to the neck
    ((190, 230, 160), (4, -10, 2), (0.8, 0.8, 2)),  # thick slices
)
SEED = 770_000
MASKS = ("net", "quality", "net&quality", "brain", "deepbet")
Maker = Callable[[Scan, Tensor], Tensor]


def scan_of(number: int, voxel_size: float) -> Scan:
    """Head `number` of the benchmark: procedural and Colin27 by turns, half of them bleeding."""
    rng = np.random.default_rng([SEED, number])
    extent, middle, stretch = VIEWS[number % len(VIEWS)]
    edges = [voxel_size * s for s in stretch]
    shape = tuple(2 * round(mm / v / 2) for mm, v in zip(extent, edges, strict=True))
    protocol = random_protocol(rng)
    first, last = protocol.echo_times[0], protocol.echo_times[-1]
    echoes = tuple(np.linspace(min(first, 0.5 * last), last, 3).tolist())
    protocol = replace(protocol, echo_times=echoes)
    affine = grid_affine(shape, edges, angles=protocol.angles, center=middle)
    make = heads.ANATOMIES[("procedural", "colin")[(number // 2) % 2]]
    head = make(rng, shape, edges, affine=affine, deform=1.3)
    if number % 2:
        head, _ = haemorrhage(head, rng)
    return simulate_subject(
        SEED + number, protocol=protocol, head=head, pathology=True, voxel_size=voxel_size
    )


def phase_of(scan: Scan) -> tuple[FieldMap, Tensor]:
    """Fitted field and phase quality, as the pipeline makes them."""
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    _, unwrapped, fitted = chain.map_field(phase, magnitude, parameters_of(scan))
    return fitted, unwrapped.quality


def makers(weights: Path | None) -> Mapping[str, Maker]:
    """Masks by name; without deepbet where it is not installed."""
    network, voxel = load_network(read_weights("mask", weights))

    def net(scan: Scan, quality: Tensor) -> Tensor:
        return segment(_magnitude(scan), scan.head.voxel_size, network, voxel)

    def phase_quality(scan: Scan, quality: Tensor) -> Tensor:
        echoes = torch.from_numpy(scan.magnitude)
        return masking.quality_mask(echoes, scan.head.voxel_size, quality=quality)

    def both(scan: Scan, quality: Tensor) -> Tensor:
        return net(scan, quality) & phase_quality(scan, quality)

    def brain(scan: Scan, quality: Tensor) -> Tensor:
        return masking.brain_mask(torch.from_numpy(scan.magnitude), scan.head.voxel_size)

    def bet(scan: Scan, quality: Tensor) -> Tensor:
        return deepbet_mask(_magnitude(scan), scan.head.voxel_size)

    made: tuple[Maker, ...] = (net, phase_quality, both, brain, bet)
    return {name: maker for name, maker in zip(MASKS, made, strict=True) if name in available()}


def available() -> tuple[str, ...]:
    """The masks that can be made with what is installed."""
    return tuple(m for m in MASKS if m != "deepbet" or importlib.util.find_spec("deepbet"))


def _magnitude(scan: Scan) -> Tensor:
    """Combined echoes; the simulated slabs are close enough to RAS+."""
    return masking.combined_magnitude(torch.from_numpy(scan.magnitude))


def surface(options: argparse.Namespace) -> None:
    """The first table."""
    made = makers(options.weights)
    rows: dict[str, list[list[float]]] = {name: [] for name in options.masks or made}
    print(f"{'head':<6}{'mask':<14}" + "".join(f"{title:>10}" for title in TITLES))
    for number in range(options.first, options.first + options.heads):
        scan = scan_of(number, options.voxel_size)
        _, quality = phase_of(scan)
        for name in rows:
            wall, cpu = time.perf_counter(), time.process_time()
            found = made[name](scan, quality).numpy()
            spent = [time.perf_counter() - wall, time.process_time() - cpu]
            scores = compare(found, scan.brain, scan.head.voxel_size)
            rows[name].append([scores[0], dice(found, with_fluid(scan)), *scores[1:], *spent])
            _print(f"{number:<6}{name:<14}", rows[name][-1])
    for name, values in rows.items():
        _print(f"{'mean':<6}{name:<14}", list(np.mean(values, axis=0)))
    for name, values in rows.items():
        worst = [f(column) for f, column in zip(_WORST, zip(*values, strict=True), strict=True)]
        _print(f"{'worst':<6}{name:<14}", worst)


TITLES = ("Dice", "+ fluid", "HD95 mm", "volume %", "cavities", "islands", "wall s", "CPU s")
_WORST: tuple[Callable[[Any], float], ...] = (
    min,
    min,
    max,
    lambda v: max(v, key=abs),
    max,
    max,
    max,
    max,
)


def _print(start: str, values: Sequence[float]) -> None:
    digits = (4, 4, 2, 1, 0, 0, 1, 1)
    print(
        start + "".join(f"{v:>10.{d}f}" for v, d in zip(values, digits, strict=True)), flush=True
    )


def compare(found: np.ndarray, truth: np.ndarray, step: Sequence[float]) -> list[float]:
    """Dice, HD95 (mm), volume error (%), voxels in cavities, number of islands."""
    cavities = (ndimage.binary_fill_holes(found) & ~found).sum()
    islands = max(ndimage.label(found)[1] - 1, 0)
    volume = 100 * (found.sum() / truth.sum() - 1)
    return [
        dice(found, truth),
        hausdorff(found, truth, step),
        float(volume),
        float(cavities),
        islands,
    ]


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1."""
    return float(2 * (one & two).sum() / max(one.sum() + two.sum(), 1))


def with_fluid(scan: Scan) -> np.ndarray:
    """The brain with the fluid and the sinuses that touch it."""
    around = np.isin(scan.head.labels, (lab.CSF, lab.VEIN, lab.CHOROID_PLEXUS))
    whole = torch.from_numpy(scan.brain | around)
    return fill_holes(largest_component(whole)).numpy()


def hausdorff(one: np.ndarray, two: np.ndarray, step: Sequence[float]) -> float:
    """95th percentile of the distances between two surfaces, both ways, in mm."""
    where = np.argwhere(one | two)
    box = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
    surfaces = [np.pad(m[box], 1) for m in (one, two)]
    surfaces = [m & ~ndimage.binary_erosion(m) for m in surfaces]
    far = [ndimage.distance_transform_edt(~m, sampling=step) for m in surfaces]
    both = [far[1][surfaces[0]], far[0][surfaces[1]]]
    return float(max(np.percentile(d, 95) if d.size else np.inf for d in both))


def chi(options: argparse.Namespace) -> None:
    """The second table: mean χ of nuclei and bleeds with each mask."""
    made = makers(options.weights)
    names = options.masks or list(made)
    found: dict[str, list[list[float]]] = {}
    for number in range(options.first, options.first + options.heads):
        scan = scan_of(number, options.voxel_size)
        field, quality = phase_of(scan)
        kinds, truth = regions(scan, scan.truth.chi)
        masks = {"true mask": torch.from_numpy(scan.brain)}
        masks |= {name: made[name](scan, quality) for name in names}
        found.setdefault("kind", []).append(kinds)
        found.setdefault("truth", []).append(truth)
        for name, mask in masks.items():
            result = susceptibility(scan, field, mask, options)
            found.setdefault(name, []).append(regions(scan, result)[1])
        print(f"head {number}: {len(kinds)} regions", flush=True)
    columns = {name: np.concatenate(values) for name, values in found.items()}
    print(f"\n{'region':<14}{'mask':<14}{'against':<12}", end="")
    print("".join(f"{t:>10}" for t in ("n", "slope", "offset", "R2", "RMS ppm")))
    for kind in ("nuclei", "haemorrhage"):
        here = columns["kind"] == kind
        for name in ("true mask", *names):
            for against in ("true mask", "truth"):
                if name == against or here.sum() < 3:
                    continue
                x, y = columns[against][here], columns[name][here]
                fit = stats.linregress(x, y)
                error = float(np.sqrt(np.mean((y - x) ** 2)))
                print(
                    f"{kind:<14}{name:<14}{against:<12}{here.sum():>10}{fit.slope:>10.3f}"
                    f"{fit.intercept:>10.4f}{fit.rvalue**2:>10.3f}{error:>10.4f}"
                )


def susceptibility(
    scan: Scan, fitted: FieldMap, mask: Tensor, options: argparse.Namespace
) -> np.ndarray:
    """χ (ppm, zero mean over the brain) from the fitted field with a mask of the brain."""
    given = parameters_of(scan)
    trimmed, _ = chain.trim_mask(mask, fitted, given)
    result = chain.susceptibility(
        fitted.field,
        trimmed,
        given,
        field_noise=fitted.noise,
        magnitude=_magnitude(scan),
        background=options.background,
        inversion=options.inversion,
    )
    values, known = result.chi.numpy(), result.mask.numpy()
    return np.where(known, values - values[known & scan.brain].mean(), 0)


def regions(scan: Scan, values: np.ndarray) -> tuple[list[str], list[float]]:
    """Mean of `values` in every nucleus and every haemorrhage, whole, whatever the mask."""
    kinds, means = [], []
    for label in lab.NUCLEI:
        where = (scan.head.labels == label) & scan.brain
        if where.sum() >= 10:
            kinds.append("nuclei")
            means.append(float(values[where].mean()))
    bleeding = (scan.head.labels == lab.HAEMORRHAGE) & scan.brain
    instances = np.zeros(bleeding.shape, int)
    if scan.head.instances is not None:
        instances = np.where(bleeding, scan.head.instances, 0)
    for number in np.unique(instances[instances > 0]):
        kinds.append("haemorrhage")
        means.append(float(values[instances == number].mean()))
    return kinds, means


def parser() -> argparse.ArgumentParser:
    """Which table, which heads, which masks."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("table", choices=("surface", "chi"))
    made.add_argument("--heads", type=int, default=6)
    made.add_argument("--first", type=int, default=0, help="number of the first head")
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--masks", nargs="+", choices=available(), help="only these masks")
    made.add_argument("--weights", type=Path, help="other weights of the network")
    made.add_argument("--background", default="lbv_tfi", choices=methods.names("background"))
    made.add_argument("--inversion", default="tv", choices=methods.names("inversion"))
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Print the chosen table."""
    options = parser().parse_args(argv)
    {"surface": surface, "chi": chi}[options.table](options)


if __name__ == "__main__":
    main()
