"""Background removal and whole chains from raw phase on a simulated head, method by method.

    python benchmarks/chains.py --anatomy colin --seed 21
    python benchmarks/chains.py --background lbv_tfi --inversion tv whtv

First every background method on the true total field, over the true brain mask; then every pair
of `--background` and `--inversion` from raw phase, with the pipeline's own offset removal,
unwrapping, fit, mask and trimming, scored inside the brain. Scores by the public package qsm-ci;
simulated data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from qsm_ci.qsm_eval import nrmse_challenge

from qsm_nipype import methods
from qsm_nipype.core.fieldmap import FieldMap, linear_fit
from qsm_nipype.core.masking import quality_mask, reliable_mask
from qsm_nipype.core.offsets import mcpc3ds
from qsm_nipype.core.unwrapping import romeo
from qsm_nipype.evaluation import score_chi
from qsm_nipype.interfaces.base import accepted, resolve
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, run, print the tables."""
    options = parser().parse_args(argv)
    protocol = Protocol(b0=options.b0, snr=options.snr)
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    scan = simulate_subject(
        options.seed,
        shape=shape,  # type: ignore[arg-type]
        voxel_size=options.voxel_size,
        protocol=protocol,
        anatomy=options.anatomy,
    )
    backgrounds(scan, options.background)
    chains(scan, options.background, options.inversion)


def parser() -> argparse.ArgumentParser:
    """Which head, which methods."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="colin", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=21)
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--b0", type=float, default=3.0, help="tesla")
    made.add_argument("--snr", type=float, default=60.0, help="of white matter in echo 1")
    made.add_argument("--background", nargs="+", default=methods.names("background"))
    made.add_argument("--inversion", nargs="+", default=["tv", "nltv", "whtv"])
    return made


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def nrmse(found: torch.Tensor, truth: np.ndarray, where: torch.Tensor) -> float:
    """Demeaned NRMSE (%) of qsm-ci."""
    return nrmse_challenge(found.double().numpy(), truth.astype(float), where.numpy())[0]


def backgrounds(scan: Scan, names: Sequence[str]) -> None:
    """Every method on the true total field."""
    total, brain = torch.from_numpy(scan.truth.total), torch.from_numpy(scan.brain)
    size, direction = scan.head.voxel_size, scan.head.b0_dir
    print(f"\n{'true field →':<16}{'NRMSE %':>9}{'kept %':>9}{'wall s':>9}{'CPU s':>9}")
    for name in names:
        remove = resolve(methods.get("background", name).function)
        found, wall, cpu = timed(lambda f=remove: f(total, brain, size, direction))
        error = nrmse(found.field, scan.truth.local, found.mask)
        kept = 100 * float(found.mask.sum() / brain.sum())
        print(f"{name:<16}{error:>9.1f}{kept:>9.1f}{wall:>9.1f}{cpu:>9.1f}", flush=True)


def field_of(scan: Scan) -> tuple[FieldMap, torch.Tensor]:
    """Fitted field and trimmed mask, as the pipeline makes them."""
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    times, size = scan.protocol.echo_times, scan.head.voxel_size
    removed = mcpc3ds(phase, magnitude, times, size)
    unwrapped = romeo(removed.phase, times, magnitude=magnitude)
    fitted = linear_fit(unwrapped.phase, magnitude, times, scan.protocol.b0)
    mask = quality_mask(magnitude, size, quality=unwrapped.quality)
    trimmed = reliable_mask(mask, size, reliability=fitted.reliability, field=fitted.field)
    return fitted, trimmed


def chains(scan: Scan, names: Sequence[str], inversions: Sequence[str]) -> None:
    """Every pair of methods from raw phase."""
    fitted, mask = field_of(scan)
    brain = torch.from_numpy(scan.brain)
    size, direction = scan.head.voxel_size, scan.head.b0_dir
    combined = torch.from_numpy(scan.magnitude).square().sum(-1).sqrt()
    times = scan.protocol.echo_times
    known = {"noise": fitted.noise, "magnitude": combined, "b0": scan.protocol.b0}
    known["echo_time"] = sum(times) / len(times)
    print(f"\n{'raw phase →':<28}{'NRMSE %':>9}{'XSIM':>8}{'HFEN %':>8}{'slope±':>8}", end="")
    print(f"{'kept %':>9}{'wall s':>9}{'CPU s':>9}")
    for name in names:
        remove = resolve(methods.get("background", name).function)
        optional = accepted(remove, noise=fitted.noise)
        local = remove(fitted.field, mask, size, direction, **optional)
        where = (local.mask & brain).numpy()
        for inversion in inversions:
            row = methods.get("inversion", inversion)
            invert = resolve(row.function)
            field, inside = (
                (fitted.field, mask) if row.from_total_field else (local.field, local.mask)
            )
            found, wall, cpu = timed(
                lambda i=invert, f=field, m=inside: i(
                    f, m, size, direction, **accepted(i, **known)
                )
            )
            score = score_chi(found.chi.numpy(), scan.truth.chi, where, scan.head.labels)
            print(
                f"{name + ' → ' + inversion:<28}{score['nrmse']:>9.1f}{score['xsim']:>8.3f}",
                end="",
            )
            print(f"{score['hfen']:>8.1f}{score['dgm_slope_error']:>8.3f}", end="")
            kept = 100 * where.sum() / scan.brain.sum()
            print(f"{kept:>9.1f}{wall:>9.1f}{cpu:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
