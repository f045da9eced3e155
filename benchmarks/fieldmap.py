"""Accuracy and speed of the field mapping: `python benchmarks/fieldmap.py [--voxel-size 1.0]`.

A simulated head (sinuses, ear canals, dephasing, smooth receive phase, fat in the scalp) at 3 T
and 7 T, two spacings of echo times each, with and without phase offset, at SNR 100 and 40. NRMSE
of the total field, its median removed, over the true brain, over the pipeline's own brain mask,
over the part of that within the true brain, and over what trimming leaves there; `off` counts
voxels wrong by more than half a cycle of the echo spacing, `kept` is the share of the brain.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import torch
from chains import parameters_of

from qsm_nipype import chain
from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.core.masking import quality_mask, reliable_mask, without_dropout
from qsm_nipype.simulation import labels
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.heads import ANATOMIES
from qsm_nipype.simulation.signal import Protocol, Scan, acquire
from qsm_nipype.simulation.tissue import tissue_maps
from qsm_nipype.system.threads import limit_threads

ECHO_TIMES = {
    3.0: ((0.004, 0.011, 0.018, 0.025), (0.005, 0.010, 0.015, 0.020)),
    7.0: ((0.004, 0.012, 0.020, 0.028), (0.004, 0.008, 0.012, 0.016)),
}


def field_map(
    scan: Scan, phase: torch.Tensor, magnitude: torch.Tensor
) -> tuple[FieldMap, torch.Tensor]:
    """The chain as the workflow runs it, and the quality of the phase."""
    _, unwrapped, fitted = chain.map_field(phase, magnitude, parameters_of(scan))
    return fitted, unwrapped.quality


def own_masks(
    found: FieldMap, quality: torch.Tensor, magnitude: torch.Tensor, size: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pipeline's brain mask and the trimmed one."""
    mask = quality_mask(magnitude, size, quality=quality)
    trimmed = reliable_mask(mask, size, reliability=found.reliability, field=found.field)
    brain = without_dropout(mask, size, reliability=found.reliability, quality=quality)
    return brain, trimmed


def with_noise(scan: Scan, snr: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Phase and magnitude at `snr` of white matter in the first echo."""
    white = scan.head.labels == labels.WHITE_MATTER
    level = float(scan.magnitude[..., 0][white].mean()) / snr
    signal = torch.polar(torch.from_numpy(scan.magnitude), torch.from_numpy(scan.phase))
    generator = torch.Generator().manual_seed(seed)
    noise = level * torch.randn(*signal.shape, 2, generator=generator)
    signal = signal + torch.view_as_complex(noise)
    return signal.angle(), signal.abs()


def errors(result: FieldMap, scan: Scan, where: torch.Tensor) -> tuple[float, int]:
    """NRMSE in % and the number of voxels off by more than half a cycle."""
    truth = torch.from_numpy(scan.truth.total)
    error = (result.field - truth)[where]
    error = error - error.median()
    times = scan.protocol.echo_times
    cycle = 1 / (times[1] - times[0]) / (GYROMAGNETIC_RATIO * scan.protocol.b0)
    nrmse = 100 * float(error.norm() / truth[where].norm())
    return nrmse, int((error.abs() > cycle / 2).sum())


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def scans(head: Head, seed: int, quick: bool) -> list[Scan]:
    """Noise-free scans of `head` for every row of the table."""
    rng = np.random.default_rng(seed)
    tissue = tissue_maps(head, rng)
    rows = []
    for b0, spacings in ECHO_TIMES.items():
        for times in spacings[: 1 if quick else 2]:
            for offset in (1.0,) if quick else (1.0, 0.0):
                protocol = Protocol(b0=b0, echo_times=times, snr=None, phase_offset=offset)
                rows.append((protocol, np.random.default_rng(seed)))
    return [acquire(head, tissue, protocol, generator) for protocol, generator in rows]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxel-size", type=float, default=1.5, help="mm (default 1.5)")
    parser.add_argument("--anatomy", default="procedural", choices=sorted(ANATOMIES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one spacing, offset on")
    options = parser.parse_args()
    limit_threads(options.threads)
    shape = tuple(round(n / options.voxel_size) for n in (176, 220, 187))
    head = ANATOMIES[options.anatomy](options.seed, shape, options.voxel_size)
    brain = torch.from_numpy(head.brain)
    print("  B0  echo times (ms)   offset  SNR   brain %   off     own %   off", end="")
    print("  within %   off   kept  trimmed %   off   kept    s  CPU s")
    for number, scan in enumerate(scans(head, options.seed, options.quick)):
        for snr in (100, 40):
            phase, magnitude = with_noise(scan, snr)
            if number == 0 and snr == 100:
                small = replace(scan, head=head)
                field_map(small, phase[:40, :40, :40], magnitude[:40, :40, :40])  # compile
            start, cpu = time.perf_counter(), cpu_seconds()
            result, quality = field_map(scan, phase, magnitude)
            wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
            times = " ".join(f"{1e3 * t:.0f}" for t in scan.protocol.echo_times)
            print(
                f"{scan.protocol.b0:4.0f}  {times:16s}  {scan.protocol.phase_offset:6.0f}", end=""
            )
            print("  {:3d}  {:8.2f} {:5d}".format(snr, *errors(result, scan, brain)), end="")
            masks = own_masks(result, quality, magnitude, head.voxel_size)
            print("  {:8.2f} {:5d}".format(*errors(result, scan, masks[0])), end="")
            for mask in masks:
                where = mask & brain
                kept = float(where.sum() / brain.sum())
                print("  {:8.2f} {:5d} {:6.3f}".format(*errors(result, scan, where), kept), end="")
            print(f"  {wall:4.1f}  {cpu:5.1f}", flush=True)


if __name__ == "__main__":
    main()
