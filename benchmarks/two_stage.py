"""Two-stage reconstruction beside one stage on a simulated haemorrhage.

    python benchmarks/two_stage.py --radius 13 --chi 1.2 --inversion tv whtv

The pipeline's field fit, trimming of the true brain, background removal and inversion, with and
without the second stage: root-mean-square error of χ within 20 mm of the bleed, farther away, and
the bleed's mean. Simulated data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from chains import parameters_of
from scipy import ndimage

from qsm_nipype import chain, methods
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.pathology import haemorrhage
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, reconstruct, print the table."""
    options = parser().parse_args(argv)
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    head = heads.ANATOMIES[options.anatomy](options.seed, shape, options.voxel_size)
    rng = np.random.default_rng(options.seed)
    head, _ = haemorrhage(head, rng, radius=options.radius, chi=options.chi)
    scan = simulate_subject(
        options.seed, head=head, protocol=Protocol(snr=60), voxel_size=options.voxel_size
    )
    print(f"{'':<22}{'near ppm':>10}{'far ppm':>10}{'bleed ppm':>11}{'truth':>8}")
    for inversion in options.inversion:
        compare(scan, options.background, inversion, options.threshold)


def parser() -> argparse.ArgumentParser:
    """Which head, which bleed, which methods."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="procedural", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=5)
    made.add_argument("--voxel-size", type=float, default=2.0, help="mm")
    made.add_argument("--radius", type=float, default=13.0, help="of the bleed, mm")
    made.add_argument("--chi", type=float, default=1.2, help="of the bleed against water, ppm")
    made.add_argument("--threshold", type=float, default=0.3, help="of a strong source, ppm")
    made.add_argument("--background", default="lbv_tfi", choices=methods.names("background"))
    made.add_argument("--inversion", nargs="+", default=["tv", "whtv"])
    return made


def compare(scan: Scan, background: str, inversion: str, threshold: float) -> None:
    """The rows of one inversion."""
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    given = parameters_of(scan)
    *_, fitted = chain.map_field(phase, magnitude, given)
    trimmed, _ = chain.trim_mask(torch.from_numpy(scan.brain), fitted, given)
    make = partial(
        chain.susceptibility,
        fitted.field,
        scan=given,
        field_noise=fitted.noise,
        magnitude=magnitude,
        background=background,
        inversion=inversion,
    )
    first = make(trimmed)
    show(f"{inversion}, one stage", first.chi, scan, first.mask)
    chi = chain.add_second_stage(first, trimmed, make, given, threshold=threshold)
    show(f"{inversion}, two stages", chi, scan, first.mask)


def show(title: str, chi: torch.Tensor, scan: Scan, inside: torch.Tensor) -> None:
    """One row."""
    bleed = scan.head.labels == lab.HAEMORRHAGE
    away = ndimage.distance_transform_edt(~bleed, sampling=scan.head.voxel_size)
    mask = inside.numpy() & scan.brain & ~bleed
    error = chi.numpy() - scan.truth.chi
    error -= error[mask].mean()
    near, far = (
        np.sqrt(np.square(error[mask & place]).mean()) for place in (away < 20, away >= 20)
    )
    truth = scan.truth.chi[bleed].mean()
    found = truth + error[bleed].mean()
    print(f"{title:<22}{near:>10.4f}{far:>10.4f}{found:>11.3f}{truth:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
