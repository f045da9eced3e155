"""Two-stage reconstruction beside one stage on a simulated haemorrhage.

    python benchmarks/two_stage.py --radius 13 --chi 1.2 --inversion tv whtv

The pipeline's field fit, trimming of the true brain, background removal and inversion, with and
without the second stage: root-mean-square error of χ within 20 mm of the bleed, farther away, and
the bleed's mean. Simulated data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from qsm_nipype import methods
from qsm_nipype.core.fieldmap import linear_fit
from qsm_nipype.core.masking import reliable_mask
from qsm_nipype.core.offsets import mcpc3ds
from qsm_nipype.core.two_stage import join_stages, without_strong_sources
from qsm_nipype.core.unwrapping import romeo
from qsm_nipype.interfaces.base import accepted, resolve
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
    times, b0 = scan.protocol.echo_times, scan.protocol.b0
    size, direction = scan.head.voxel_size, scan.head.b0_dir
    removed = mcpc3ds(phase, magnitude, times, size)
    unwrapped = romeo(removed.phase, times, magnitude=magnitude)
    fitted = linear_fit(unwrapped.phase, magnitude, times, b0)
    brain = torch.from_numpy(scan.brain)
    trimmed = reliable_mask(brain, size, reliability=fitted.reliability, field=fitted.field)
    known = {"noise": fitted.noise, "magnitude": magnitude.square().sum(-1).sqrt(), "b0": b0}
    known["echo_time"] = sum(times) / len(times)

    def chi(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        remove = resolve(methods.get("background", background).function)
        local = remove(fitted.field, mask, size, direction, **accepted(remove, **known))
        invert = resolve(methods.get("inversion", inversion).function)
        found = invert(local.field, local.mask, size, direction, **accepted(invert, **known))
        return found.chi, local.mask

    filled, inside = chi(trimmed)
    show(f"{inversion}, one stage", filled, scan, inside)
    robust, where = chi(without_strong_sources(filled, trimmed, size, threshold=threshold))
    show(f"{inversion}, two stages", join_stages(robust, where, filled, inside), scan, inside)


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
