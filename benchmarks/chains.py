"""Background removal and whole chains from raw phase on a simulated head, method by method.

    python benchmarks/chains.py --anatomy colin --seed 21 --snr 120 30 12 --cache FOLDER
    python benchmarks/chains.py --background lbv_tfi --inversion all

First every background method on the true total field, over the true brain mask. Then, for every
SNR, chains from raw phase with the pipeline's own offset removal, unwrapping, fit, mask and
trimming, scored inside the brain: each `--background` with each `--inversion`, and the default
background with each of `--after-default`. `--cache` keeps what precedes background removal; empty
that folder after a change of the simulator or of those steps.

Scores by the public package qsm-ci; simulated data. Time, CPU time (user + system, all threads)
and memory (peak above what the process held before) are of the inversion alone; those of
background removal stand in the first table.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inversion import Peak
from qsm_ci.qsm_eval import nrmse_challenge

from qsm_nipype import methods
from qsm_nipype.core.fieldmap import linear_fit
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.core.masking import quality_mask, reliable_mask
from qsm_nipype.core.offsets import mcpc3ds
from qsm_nipype.core.unwrapping import romeo
from qsm_nipype.interfaces.base import accepted, resolve
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.scores import score_chi
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject

#: Voxels kept around the head: as far as the filters of the scorer reach.
MARGIN = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, run, print the tables."""
    options = parser().parse_args(argv)
    if options.after_default and Settings.background not in options.background:
        parser().error(f"--after-default needs {Settings.background} among --background")
    torch.set_num_threads(options.threads)
    for number, snr in enumerate(options.snr):
        data = prepared(options, snr)
        if number == 0 and not options.no_true_field:
            backgrounds(data, options.background)
        chains(data, options, snr)


def parser() -> argparse.ArgumentParser:
    """Which head, which methods."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="colin", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=21)
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--b0", type=float, default=3.0, help="tesla")
    made.add_argument("--snr", nargs="+", type=float, default=[60.0], help="of echo 1")
    made.add_argument("--background", nargs="+", default=methods.names("background"))
    made.add_argument("--inversion", nargs="+", default=["tv", "whtv"], help='"all": every one')
    made.add_argument("--after-default", nargs="+", default=[], help='likewise, "all"')
    made.add_argument("--no-true-field", action="store_true", help="only chains from raw phase")
    made.add_argument("--cache", type=Path, help="folder for what precedes background removal")
    made.add_argument("--threads", type=int, default=2)
    return made


def every(names: Sequence[str]) -> list[str]:
    """`names`, or all inversions that need no weights."""
    if list(names) != ["all"]:
        return list(names)
    return [n for n in methods.names("inversion") if methods.get("inversion", n).network is None]


# ---- what precedes background removal ---------------------------------------------------------


def prepared(options: argparse.Namespace, snr: float) -> dict[str, Any]:
    """Truth, fitted field, its noise, masks: computed, or taken from the cache."""
    name = f"{options.anatomy}-{options.seed}-{options.voxel_size:g}-{options.b0:g}-{snr:g}.pt"
    path = options.cache / name if options.cache else None
    if path is not None and path.exists():
        return dict(torch.load(path, weights_only=True))
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    scan = simulate_subject(
        options.seed,
        shape=shape,  # type: ignore[arg-type]
        voxel_size=options.voxel_size,
        protocol=Protocol(b0=options.b0, snr=snr),
        anatomy=options.anatomy,
    )
    data = front_end(scan)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(data, path)
    return data


def front_end(scan: Scan) -> dict[str, Any]:
    """Field, noise and trimmed mask as the pipeline makes them, beside the truth.

    Everything is cut to the union of the masks and `MARGIN`, which saves time in scoring.
    """
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    times, size = scan.protocol.echo_times, scan.head.voxel_size
    removed = mcpc3ds(phase, magnitude, times, size)
    unwrapped = romeo(removed.phase, times, magnitude=magnitude)
    fitted = linear_fit(unwrapped.phase, magnitude, times, scan.protocol.b0)
    mask = quality_mask(magnitude, size, quality=unwrapped.quality)
    trimmed = reliable_mask(mask, size, reliability=fitted.reliability, field=fitted.field)
    brain = torch.from_numpy(scan.brain)
    volumes = {
        "field": fitted.field,
        "noise": fitted.noise,
        "mask": trimmed,
        "magnitude": magnitude.square().sum(-1).sqrt(),
        "brain": brain,
        "labels": torch.from_numpy(scan.head.labels),
        "total": torch.from_numpy(scan.truth.total),
        "local": torch.from_numpy(scan.truth.local),
        "chi": torch.from_numpy(scan.truth.chi),
    }
    box = tuple(
        slice(max(side.start - MARGIN, 0), side.stop + MARGIN)
        for side in working_grid(trimmed | brain).box
    )
    return {
        **{name: volume[box].clone() for name, volume in volumes.items()},
        "b0": float(scan.protocol.b0),
        "echo_time": sum(times) / len(times),
        "size": tuple(float(v) for v in size),
        "b0_dir": tuple(float(v) for v in scan.head.b0_dir),
    }


# ---- measuring --------------------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Result of a call; its wall and CPU seconds and the rise of the process' memory in GiB."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # else memory freed by earlier calls would hide it
    peak = Peak()
    peak.start()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return result, {**cost, "memory": peak.stop()}


def costs(cost: Mapping[str, float]) -> str:
    """The last three cells of a row."""
    return f" {cost['wall']:.1f} | {cost['cpu']:.1f} | {cost['memory']:.2f} |"


def backgrounds(data: Mapping[str, Any], names: Sequence[str]) -> None:
    """Every method on the true total field."""
    print("\n| true field → | NRMSE % | kept % | wall s | CPU s | GB |\n|---|---|---|---|---|---|")
    for name in names:
        remove = resolve(methods.get("background", name).function)
        found, cost = timed(
            lambda f=remove: f(data["total"], data["brain"], data["size"], data["b0_dir"])
        )
        local, truth = (x.double().numpy() for x in (found.field, data["local"]))
        error = nrmse_challenge(local, truth, found.mask.numpy())[0]
        kept = 100 * float(found.mask.sum() / data["brain"].sum())
        print(f"| {name} | {error:.1f} | {kept:.1f} |" + costs(cost), flush=True)


def describe_noise(data: Mapping[str, Any], snr: float) -> None:
    """The noise that the fit reports and the one that the truth reveals, in ppb."""
    where = data["mask"] & data["brain"]
    off = (data["field"] - data["total"])[where]
    measured = 1.4826 * float((off - off.median()).abs().median())
    told = float(data["noise"][where].median())
    error = nrmse_challenge(
        data["field"].double().numpy(), data["total"].double().numpy(), where.numpy()
    )[0]
    print(
        f"\nSNR {snr:g}: field off by {1000 * measured:.2f} ppb (1.48 × median deviation; the fit "
        f"says {1000 * told:.2f}), total field NRMSE {error:.2f} % in the trimmed mask\n"
    )


def chains(data: Mapping[str, Any], options: argparse.Namespace, snr: float) -> None:
    """Every pair of methods from raw phase, as a Markdown table."""
    describe_noise(data, snr)
    print("| raw phase → | NRMSE % | XSIM | HFEN % | slope off | kept % | wall s | CPU s | GB |")
    print("|---|---|---|---|---|---|---|---|---|")
    inversions, more = every(options.inversion), every(options.after_default)
    default = Settings.background
    for name in options.background:
        remove = resolve(methods.get("background", name).function)
        optional = accepted(remove, noise=data["noise"])
        local = remove(data["field"], data["mask"], data["size"], data["b0_dir"], **optional)
        extra = [m for m in more if m not in inversions] if name == default else []
        for inversion in [*inversions, *extra]:
            print(row(data, name, inversion, local), flush=True)


def row(data: Mapping[str, Any], background: str, inversion: str, local: Any) -> str:
    """One chain's cells."""
    method = methods.get("inversion", inversion)
    invert = resolve(method.function)
    known = {key: data[key] for key in ("noise", "magnitude", "b0", "echo_time")}
    field, mask = local.field, local.mask
    if method.from_total_field:
        background, field, mask = "–", data["field"], data["mask"]
    found, cost = timed(
        lambda: invert(field, mask, data["size"], data["b0_dir"], **accepted(invert, **known))
    )
    where = (local.mask & data["brain"]).numpy()
    score = score_chi(found.chi.numpy(), data["chi"].numpy(), where, data["labels"].numpy())
    kept = 100 * where.sum() / np.count_nonzero(data["brain"].numpy())
    return (
        f"| {background} → {inversion} | {score['nrmse']:.1f} | {score['xsim']:.3f} "
        f"| {score['hfen']:.1f} | {score['dgm_slope_error']:.3f} | {kept:.1f} |" + costs(cost)
    )


if __name__ == "__main__":
    main()
