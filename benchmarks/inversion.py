"""Accuracy, time and memory of every dipole inversion on a simulated brain.

    python benchmarks/inversion.py                         # all methods, 1 mm, σ = 0.5, 2, 5 ppb
    python benchmarks/inversion.py --methods TKD TV --voxel-size 2
    python benchmarks/inversion.py --sweep TV              # automatic weight against the best one

The truth is a simulated head's susceptibility in the brain; the local field is its dipole field
plus white noise. Scores are those of the public package qsm-ci. Time is of one call, CPU time is
user + system over all threads, memory the peak above what the process had with the data loaded.
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from qsm_ci import qsm_eval

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.interfaces import inversion
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.simulation import heads
from qsm_nipype.simulation.tissue import random_contrast, tissue_maps
from qsm_nipype.system.threads import limit_threads

FACTORS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)


def methods() -> dict[str, str]:
    """Every inversion there is: interface name → core function."""
    return {
        name: cls.function
        for name, cls in vars(inversion).items()
        if inspect.isclass(cls) and issubclass(cls, inversion.DipoleInversion) and cls.function
    }


def brain(kind: str, seed: int, voxel_size: float, texture: float) -> dict[str, np.ndarray]:
    """χ (ppm, mean 0 in the mask, 0 outside), mask and labels of a simulated brain."""
    shape = tuple(round(n / voxel_size) for n in (176, 220, 187))
    head = getattr(heads, kind)(seed, shape, voxel_size)
    rng = np.random.default_rng(seed)
    chi = tissue_maps(head, rng, contrast=random_contrast(rng), texture=texture).chi
    mask = head.brain & (np.abs(chi) < 1)
    chi = np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32)
    return {"chi": chi, "mask": mask, "labels": head.labels}


def noisy_field(chi: torch.Tensor, mask: torch.Tensor, args: Any, sigma: float) -> torch.Tensor:
    """Local field (ppm) with white noise of SD `sigma` in the mask."""
    field = dipole_field(chi, [args.voxel_size] * 3, args.b0_dir)
    generator = torch.Generator().manual_seed(1)
    field += sigma * torch.randn(field.shape, generator=generator)
    return torch.where(mask, field, 0.0)


def scores(found: torch.Tensor, data: dict[str, np.ndarray]) -> dict[str, float]:
    """NRMSE (%), XSIM, HFEN (%) and the slope of the deep grey nuclei's means."""
    x, chi, mask = found.numpy(), data["chi"], data["mask"]
    pairs = [
        (chi[data["labels"] == n].mean(), x[data["labels"] == n].mean())
        for n in range(1, 7)
        if (data["labels"] == n).any()
    ]
    truth, recovered = zip(*pairs, strict=True)
    return {
        "NRMSE": qsm_eval.nrmse_challenge(x, chi, mask)[0],
        "XSIM": qsm_eval.xsim(x, chi, mask),
        "HFEN": qsm_eval.hfen(x, chi, mask),
        "slope": qsm_eval.linear_fit(np.array(truth), np.array(recovered))[0],
    }


def call(function: str, field: torch.Tensor, mask: torch.Tensor, args: Any, **more: Any) -> Any:
    """One inversion of a `field` that is both local and total: there is no background."""
    invert = resolve(function)
    optional = accepted(invert, b0=3.0, echo_time=0.02, **more)
    return invert(field, mask, [args.voxel_size] * 3, args.b0_dir, **optional)


class Peak(threading.Thread):
    """Watches the process' resident memory (bytes) until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.done = psutil.Process(), threading.Event()
        self.start_size = self.highest = self.process.memory_info().rss

    def run(self) -> None:
        """Look every 10 ms."""
        while not self.done.wait(0.01):
            self.highest = max(self.highest, self.process.memory_info().rss)

    def stop(self) -> float:
        """End the watch; the rise in GiB."""
        self.done.set()
        self.join()
        return (self.highest - self.start_size) / 2**30


def measure(function: str, args: Any, path: str, queue: Any) -> None:
    """In a process of its own: every noise level, one row each."""
    limit_threads(args.threads)
    data = dict(np.load(path))
    chi, mask = torch.from_numpy(data["chi"]), torch.from_numpy(data["mask"])
    for sigma in args.sigma:
        field = noisy_field(chi, mask, args, sigma / 1000)
        peak = Peak()
        peak.start()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            solution = call(function, field, mask, args)
        except Exception as error:  # the table goes on with the other methods
            peak.stop()
            queue.put({"sigma": sigma, "error": f"{type(error).__name__}: {error}"})
            continue
        row = {"sigma": sigma, "wall": time.perf_counter() - wall}
        row["cpu"] = time.process_time() - cpu
        row["memory"] = peak.stop()
        row["iterations"] = solution.iterations
        queue.put(row | scores(solution.chi, data))
    queue.put(None)


def rows(function: str, args: Any, path: str) -> Iterator[dict[str, Any]]:
    """The rows of one method as its process reports them."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(function, args, path, queue))
    process.start()
    while (row := queue.get(timeout=3600)) is not None:
        yield row
    process.join()


def table(args: Any, data: dict[str, np.ndarray]) -> None:
    """Print a Markdown table of the methods asked for."""
    print("| method | σ ppb | NRMSE % | XSIM | HFEN % | slope | it. | wall s | CPU s | GB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "brain.npz")
        np.savez(path, **data)
        for name, function in methods().items():
            if args.methods and name not in args.methods:
                continue
            for row in rows(function, args, path):
                if "error" in row:
                    print(f"| {name} | {row['sigma']:g} | {row['error']} |", flush=True)
                    continue
                print(
                    f"| {name} | {row['sigma']:g} | {row['NRMSE']:.1f} | {row['XSIM']:.3f} "
                    f"| {row['HFEN']:.1f} | {row['slope']:.3f} | {row['iterations']} "
                    f"| {row['wall']:.1f} | {row['cpu']:.1f} | {row['memory']:.2f} |",
                    flush=True,
                )


def sweep(args: Any, data: dict[str, np.ndarray]) -> None:
    """Print NRMSE at multiples of the automatic weight, at every noise level."""
    function = methods()[args.sweep]
    chi, mask = torch.from_numpy(data["chi"]), torch.from_numpy(data["mask"])
    print(f"{args.sweep}: NRMSE % at multiples of the automatic weight")
    print("| σ ppb | σ found | λ auto | " + " | ".join(f"×{f:g}" for f in FACTORS) + " | loss |")
    print("|" + "---|" * (len(FACTORS) + 4))
    for sigma in args.sigma:
        field = noisy_field(chi, mask, args, sigma / 1000)
        found = 1000 * field_noise(field, mask, [args.voxel_size] * 3, args.b0_dir)
        automatic = call(function, field, mask, args).parameters["regularization"]
        errors = []
        for factor in FACTORS:
            result = call(function, field, mask, args, regularization=factor * automatic)
            errors.append(
                qsm_eval.nrmse_challenge(result.chi.numpy(), data["chi"], data["mask"])[0]
            )
        loss = 100 * (errors[FACTORS.index(1.0)] / min(errors) - 1)
        cells = " | ".join(f"{e:.2f}" for e in errors)
        print(
            f"| {sigma:g} | {found:.2f} | {automatic:.3g} | {cells} | {loss:.1f} % |", flush=True
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=sorted(methods()), help="default: all")
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.5, 2.0, 5.0], help="ppb")
    parser.add_argument("--head", choices=["procedural", "colin"], default="procedural")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texture", type=float, default=1.0, help="scales the fine structure")
    parser.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    parser.add_argument("--b0-dir", nargs=3, type=float, default=[0.0, 0.1, 0.995])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sweep", metavar="METHOD", choices=sorted(methods()))
    args = parser.parse_args(argv)
    limit_threads(args.threads)
    data = brain(args.head, args.seed, args.voxel_size, args.texture)
    (sweep if args.sweep else table)(args, data)


if __name__ == "__main__":
    main()
