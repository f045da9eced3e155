"""Kill the main process at random moments of a real run, go on, and compare the maps' bytes.

python benchmarks/kills.py OUT [--kills 20] [--voxel-size 4] [--seed 8] [-- --inversion tkd]

Simulates a head and runs the whole command on it once undisturbed. Then, `--kills` times and each
time from nothing: SIGKILL to the main process at a random moment of that run's length, and the
same command again. A run that had ended before its moment came does not count: it is the new
length, and another moment is drawn. Prints the moment, how many nodes had finished, after how many
seconds the last of its processes was gone (a fork server that is still importing ends when it has
imported), how many nodes had finished then (as many: workers end with their master), how long the
rest took and whether every map is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

OWN = (sys.executable, "-m", "qsm_nipype")
GRACE = 60.0  # s in which all processes must have ended after their master


def main() -> int:
    """Run, kill, go on, print the table. Returns 1 where a map differs or a process is left."""
    options, more = parser().parse_known_args()
    out = options.out.absolute()
    bids = out / "bids"
    if not bids.exists():
        size = ["--voxel-size", str(options.voxel_size), "--seed", "1"]
        subprocess.run([*OWN, "simulate", str(bids), *size], check=True)
    command = [*OWN, str(bids), str(out / "out"), "participant", "-w", str(out / "work")]
    command += ["--skip-bids-validation", "--nprocs", "2", "--omp-nthreads", "1", "--mem", "6"]
    command += [word for word in more if word != "--"]
    run(command, out)  # compiles what is not compiled yet
    clean(out)
    length = run(command, out)
    expected, total = maps(out), finished(out)
    print(f"undisturbed: {length:.1f} s, {total} nodes, {len(expected)} maps")
    print(
        f"{'kill':>4}{'at s':>8}{'nodes done':>12}{'gone s':>8}{'then':>6}{'rest s':>8}  identical"
    )
    moments, wrong = random.Random(options.seed), 0
    for number in range(1, options.kills + 1):
        while True:
            clean(out)
            moment = moments.uniform(0.2, length)
            taken, done, gone = kill_after(moment, command, out)
            if taken >= moment:
                break
            length = taken
        then = finished(out)
        rest = run(command, out)
        same = maps(out) == expected
        wrong += not same or gone >= GRACE or then > done
        print(
            f"{number:>4}{moment:>8.1f}{done:>9}/{total:<2}{gone:>8.1f}{then:>6}{rest:>8.1f}"
            f"  {'yes' if same else 'NO'}",
            flush=True,
        )
    return int(wrong > 0)


def parser() -> argparse.ArgumentParser:
    """How many kills, of what, and the seed of their moments."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--kills", type=int, default=20)
    made.add_argument("--voxel-size", type=float, default=4.0, help="mm")
    made.add_argument("--seed", type=int, default=8)
    return made


def clean(out: Path) -> None:
    """Forget all results, final and intermediate; what numba compiled stays."""
    for name in ("out", "work"):
        shutil.rmtree(out / name, ignore_errors=True)


def run(command: list[str], out: Path) -> float:
    """Run to the end; its wall time (s). Raises SystemExit when it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the run in {out} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def kill_after(seconds: float, command: list[str], out: Path) -> tuple[float, int, float]:
    """SIGKILL to the main process after so long, if it still runs then.

    How long it ran (less than `seconds`: it was not killed), nodes done, and seconds until all of
    its processes were gone.
    """
    quiet, started = subprocess.DEVNULL, time.perf_counter()
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        process.wait(timeout=seconds)
        return min(seconds - 1e-3, time.perf_counter() - started), finished(out), 0.0
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    if process.wait() != -signal.SIGKILL:  # it ended in between
        return seconds - 1e-3, finished(out), 0.0
    killed, done = time.perf_counter(), finished(out)
    psutil.wait_procs(family, timeout=GRACE)
    return seconds, done, time.perf_counter() - killed


def finished(out: Path) -> int:
    """Nodes whose result is complete."""
    return len(list((out / "work").glob("qsm_nipype_*/**/result_*.pklz")))


def maps(out: Path) -> dict[str, str]:
    """SHA-256 of every map that was written."""
    files = sorted((out / "out").rglob("*.nii.gz"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    raise SystemExit(main())
