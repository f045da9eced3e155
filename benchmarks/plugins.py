"""The same head under every plugin, and in the container: are the maps the same bytes?

python benchmarks/plugins.py OUT [--voxel-size 4] [--threads 1] [--plugins Linear MultiProc …]
    [--image localhost/qsm-nipype:test] [--sif qsm-nipype.sif]

Simulates one head, runs the whole command on it once for each plugin, each time from nothing, and
prints SHA-256 of the data of χ and of all maps together. SLURM and SLURMGraph run on the cluster
of SLURM_CONF, else on a private one (tests/slurm_up.sh; as root, needs slurm-wlm and munge).
`--image` runs the command in podman without network on a read-only root, `--sif` in Apptainer
($APPTAINER, or from PATH). Exit code 1 when a map differs.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from cost import measure

PLUGINS = ("Linear", "MultiProc", "SLURM", "SLURMGraph")
SLURM_UP = Path(__file__).resolve().parents[1] / "tests" / "slurm_up.sh"
OWN = (sys.executable, "-m", "qsm_nipype")


def main() -> int:
    """Simulate, run each way, print the table."""
    options = parser().parse_args()
    out = options.out.absolute()
    bids = out / "bids"
    if not bids.exists():
        size = ["--voxel-size", str(options.voxel_size), "--seed", str(options.seed)]
        subprocess.run([*OWN, "simulate", str(bids), *size], check=True)
    rows = []
    print(f"{'':<12}{'χ':<18}{'all maps':<18}{'maps':>5}{'wall s':>8}{'CPU s':>8}")
    with slurm(out / "slurm", options.plugins) as environment:
        for name, command in ways(options, out, bids).items():
            rows.append(one(name, command, out, environment))
    same = len({row[:2] for row in rows}) == 1
    print("all the same" if same else "THEY DIFFER")
    return 0 if same else 1


def parser() -> argparse.ArgumentParser:
    """Size of the head and what to compare."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--voxel-size", type=float, default=4.0, help="mm")
    made.add_argument("--seed", type=int, default=1, help="which head")
    made.add_argument("--threads", type=int, default=1, help="of a step")
    made.add_argument("--plugins", nargs="*", default=PLUGINS, choices=PLUGINS)
    made.add_argument("--image", help="image for podman")
    made.add_argument("--sif", type=Path, help="image for Apptainer")
    return made


def ways(options: argparse.Namespace, out: Path, bids: Path) -> dict[str, list[str]]:
    """Name and command of each run; results go to `out`/NAME, intermediate ones to NAME-work."""
    steps = ["--skip-bids-validation", "--nprocs", "2", "--mem", "6"]
    steps += ["--omp-nthreads", str(options.threads)]
    found = {}
    for name in options.plugins:
        places = [str(bids), str(out / name), "participant", "-w", str(out / f"{name}-work")]
        found[name] = [*OWN, *places, *steps, "--plugin", name]
    inside = ["/data", "/out", "participant", "-w", "/work", *steps]
    if options.image:
        closed = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "-u", "1000:1000"]
        binds = [f"-v{bids}:/data:ro", f"-v{out}/podman:/out", f"-v{out}/podman-work:/work"]
        found["podman"] = ["podman", "run", *closed, *binds, options.image, *inside]
    if options.sif:
        program = os.environ.get("APPTAINER", "apptainer")
        binds = f"{bids}:/data:ro,{out}/apptainer:/out,{out}/apptainer-work:/work"
        drop = ["--drop-caps", "CAP_SYS_RESOURCE"] if os.getuid() == 0 else []
        closed = [*drop, "--containall", "--net", "--network", "none", "--bind", binds]
        found["apptainer"] = [program, "run", *closed, str(options.sif), *inside]
    return found


def one(
    name: str, command: list[str], out: Path, environment: Mapping[str, str]
) -> tuple[str, str]:
    """Run one way from nothing and print its row; the fingerprints of χ and of all maps."""
    for folder in (out / name, out / f"{name}-work"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    cost = measure(command, environment)
    if cost.code:
        raise SystemExit(f"{name} failed:\n{cost.output}")
    elsewhere = name.startswith(("SLURM", "podman"))  # in processes that we do not see
    shown = "-" if elsewhere else f"{cost.cpu:.1f}"
    maps = {path.name: data_digest(path) for path in sorted((out / name).rglob("*.nii.gz"))}
    chi = next(digest for file, digest in maps.items() if file.endswith("_Chimap.nii.gz"))
    every = hashlib.sha256(repr(maps).encode()).hexdigest()[:16]
    print(f"{name:<12}{chi:<18}{every:<18}{len(maps):>5}{cost.wall:>8.1f}{shown:>8}", flush=True)
    return chi, every


def data_digest(path: Path) -> str:
    """SHA-256 of a NIfTI file's contents without compression, 16 digits of it."""
    return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()[:16]


@contextlib.contextmanager
def slurm(folder: Path, plugins: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The environment of the runs, with a private SLURM where one is needed."""
    wanted = any(name.startswith("SLURM") for name in plugins)
    if not wanted or "SLURM_CONF" in os.environ:
        yield dict(os.environ)
        return
    subprocess.run([SLURM_UP, folder], check=True, timeout=60)
    try:
        yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run([SLURM_UP, "--stop", folder], check=True, timeout=60)


if __name__ == "__main__":
    raise SystemExit(main())
