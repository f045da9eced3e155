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

from qsm_nipype import chain, methods
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.scores import score_chi
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads

#: Voxels kept around the head: as far as the filters of the scorer reach.
MARGIN = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, run, print the tables."""
    options = parser().parse_args(argv)
    if options.after_default and Settings.background not in options.background:
        parser().error(f"--after-default needs {Settings.background} among --background")
    limit_threads(options.threads)
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
    data = front_end(raw(scan))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(data, path)
    return data


def raw(scan: Scan) -> dict[str, Any]:
    """What a reconstruction is given, and the truth: plain tensors and numbers."""
    volumes = {
        "phase": scan.phase,
        "magnitude": scan.magnitude,
        "brain": scan.brain,
        "labels": scan.head.labels,
        "total": scan.truth.total,
        "local": scan.truth.local,
        "chi": scan.truth.chi,
    }
    known = parameters_of(scan)
    return {
        **{name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in volumes.items()},
        "b0": known.b0,
        "echo_times": known.echo_times,
        "size": known.voxel_size,
        "b0_dir": known.b0_dir,
    }


def front_end(given: Mapping[str, Any]) -> dict[str, Any]:
    """Field, noise and trimmed mask as the pipeline makes them of `raw`, beside the truth.

    Everything is cut to the union of the masks and `MARGIN`, which saves time in scoring.
    """
    magnitude = given["magnitude"]
    _, unwrapped, fitted = chain.map_field(given["phase"], magnitude, acquired(given))
    mask = chain.make_mask(magnitude, unwrapped.quality, acquired(given))
    trimmed, _ = chain.trim_mask(mask, fitted, acquired(given))
    volumes = {
        "field": fitted.field,
        "noise": fitted.noise,
        "mask": trimmed,
        "magnitude": combined_magnitude(magnitude),
        **{name: given[name] for name in ("brain", "labels", "total", "local", "chi")},
    }
    box = tuple(
        slice(max(side.start - MARGIN, 0), side.stop + MARGIN)
        for side in working_grid(trimmed | given["brain"]).box
    )
    return {
        **{name: volume[box].clone() for name, volume in volumes.items()},
        **{name: given[name] for name in ("b0", "echo_times", "size", "b0_dir")},
    }


def parameters_of(scan: Scan) -> chain.ScanParameters:
    """How a simulated scan was acquired."""
    size, direction = (
        tuple(float(v) for v in values) for values in (scan.head.voxel_size, scan.head.b0_dir)
    )
    return chain.ScanParameters(
        tuple(float(t) for t in scan.protocol.echo_times),
        float(scan.protocol.b0),
        size,  # type: ignore[arg-type]
        direction,  # type: ignore[arg-type]
    )


def acquired(data: Mapping[str, Any]) -> chain.ScanParameters:
    """How a scan was acquired, from `raw` or what `front_end` keeps."""
    return chain.ScanParameters(data["echo_times"], data["b0"], data["size"], data["b0_dir"])


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
        found, cost = timed(
            lambda method=name: chain.remove_background(
                data["total"], data["brain"], acquired(data), method=method
            )
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
    reported = float(data["noise"][where].median())
    error = nrmse_challenge(
        data["field"].double().numpy(), data["total"].double().numpy(), where.numpy()
    )[0]
    print(
        f"\nSNR {snr:g}: field off by {1000 * measured:.2f} ppb (1.48 × median deviation; the fit "
        f"reports {1000 * reported:.2f}), total field NRMSE {error:.2f} % in the trimmed mask\n"
    )


def chains(data: Mapping[str, Any], options: argparse.Namespace, snr: float) -> None:
    """Every pair of methods from raw phase, as a Markdown table."""
    describe_noise(data, snr)
    print("| raw phase → | NRMSE % | XSIM | HFEN % | slope off | kept % | wall s | CPU s | GB |")
    print("|---|---|---|---|---|---|---|---|---|")
    inversions, more = every(options.inversion), every(options.after_default)
    default = Settings.background
    for name in options.background:
        local = chain.remove_background(
            data["field"], data["mask"], acquired(data), field_noise=data["noise"], method=name
        )
        extra = [m for m in more if m not in inversions] if name == default else []
        for inversion in [*inversions, *extra]:
            print(row(data, name, inversion, local), flush=True)


def row(data: Mapping[str, Any], background: str, inversion: str, local: Any) -> str:
    """One chain's cells."""
    known = {"field_noise": data["noise"], "magnitude": data["magnitude"], "region": data["mask"]}
    field, mask = local.field, local.mask
    if methods.get("inversion", inversion).from_total_field:
        background, field, mask = "–", data["field"], data["mask"]
    found, cost = timed(
        lambda: chain.invert(field, mask, acquired(data), method=inversion, **known)
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
