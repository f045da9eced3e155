"""Several subjects under MultiProc on two processors against Linear: time, and memory kept.

python benchmarks/parallel.py OUT [--subjects 8] [--voxel-size 2.5] [--repeats 1] [--mem 4]
    [-- --inversion tv]

Simulates the subjects, then runs the whole command on them under Linear and under MultiProc with
`--nprocs 2`, one thread per step in both, each time from nothing. CPU is the time of all
processes; where other programs compete for the processors, wall times say little, and
`CPU Linear / (CPU MultiProc / 2)` bounds the speed-up that a quiet machine gives. Memory is the
most that all processes held together at a time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from cost import Cost, measure

OWN = (sys.executable, "-m", "qsm_nipype")


def main() -> int:
    """Run in turns, print the table. Returns 1 where memory exceeded what was allowed."""
    options, more = parser().parse_known_args()
    out = options.out.absolute()
    bids = out / "bids"
    if not bids.exists():
        size = ["--n", str(options.subjects), "--voxel-size", str(options.voxel_size)]
        subprocess.run([*OWN, "simulate", str(bids), *size, "--seed", "1"], check=True)
    extra = [word for word in more if word != "--"]
    print(f"{'':<12}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}")
    best: dict[str, Cost] = {}
    for _ in range(options.repeats):
        for name in ("Linear", "MultiProc"):
            cost = one(name, out, bids, options.mem, extra)
            best[name] = min(best.get(name, cost), cost, key=lambda c: c.wall)
    linear, multi = best["Linear"], best["MultiProc"]
    print(f"wall time: {linear.wall / multi.wall:.2f} times faster")
    print(f"bound by CPU time: {2 * linear.cpu / multi.cpu:.2f} times")
    kept = multi.peak_gb <= options.mem
    print(f"memory: {multi.peak_gb:.2f} of {options.mem:g} GB" + ("" if kept else "  EXCEEDED"))
    return int(not kept)


def parser() -> argparse.ArgumentParser:
    """How many heads of which size."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--subjects", type=int, default=8)
    made.add_argument("--voxel-size", type=float, default=2.5, help="mm")
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--mem", type=float, default=4.0, help="GB, as --mem")
    return made


def one(name: str, out: Path, bids: Path, memory: float, extra: list[str]) -> Cost:
    """Run under a plugin from nothing and print its row."""
    for folder in (out / name, out / f"{name}-work"):
        shutil.rmtree(folder, ignore_errors=True)
    places = [str(bids), str(out / name), "participant", "-w", str(out / f"{name}-work")]
    bounds = ["--nprocs", "2", "--omp-nthreads", "1", "--mem", str(memory)]
    cost = measure([*OWN, *places, *bounds, "--skip-bids-validation", "--plugin", name, *extra])
    if cost.code:
        raise SystemExit(f"{name} failed:\n{cost.output}")
    print(f"{name:<12}{cost.wall:>8.1f}{cost.cpu:>8.1f}{cost.peak_gb:>9.2f}", flush=True)
    return cost


if __name__ == "__main__":
    raise SystemExit(main())
