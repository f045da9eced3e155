"""How a command starts, and what `status` and `group` take, by the number of participants.

    nice -n 10 python benchmarks/scale.py OUT                     # 1, 10, 100, 1000 participants
    nice -n 10 python benchmarks/scale.py OUT --results 10000     # status and group

Datasets of so many participants, each with four echoes of magnitude and phase (images of zeros
that share their bytes, a sidecar each): a dry run of all of them, and of one of them, as each task
of an array has it. `--first` also starts a run on all, until its first node starts, and takes the
memory of its main process then. `--results` writes what `group` and `status` read of so many
participants (a table of 40 measures, a state, manifest and page of each) and times both.

Seconds of processor and of the clock, memory of the process at its peak. Images of zeros are
refused by the first node: nothing is computed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from qsm_nipype.execution import state
from qsm_nipype.system import manifest

ECHOES = 4
SHAPE = (64, 64, 40)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--participants", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--results", type=int, help="participants of status and group")
    parser.add_argument("--first", action="store_true", help="start a run, until its first node")
    options = parser.parse_args(argv)
    if options.results:
        print_results(options.out / f"results-{options.results}", options.results)
        return
    print("| participants | all: CPU s | wall s | GB | one: CPU s | wall s | GB |")
    print("|---|---|---|---|---|---|---|")
    for count in options.participants:
        bids = make_dataset(options.out / f"bids-{count}", count)
        line = command(bids, options.out) + ["--dry-run"]
        last = ["--participant-label", f"{count:05d}"]
        cells = [*timed(line), *timed(line + last)]
        print(f"| {count} | " + " | ".join(f"{v:.2f}" for v in cells) + " |", flush=True)
    if options.first:
        print("| participants | first node after s | GB of the main process |\n|---|---|---|")
        for count in options.participants:
            seconds, gigabytes = first_node(options.out / f"bids-{count}", options.out, count)
            print(f"| {count} | {seconds:.1f} | {gigabytes:.2f} |", flush=True)


def command(bids: Path, out: Path, name: str = "out") -> list[str]:
    """A participant run on a dataset."""
    places = [str(bids), str(out / name), "participant", "-w", str(out / f"{name}-work")]
    program = [sys.executable, "-m", "qsm_nipype", *places, "--skip-bids-validation"]
    return [*program, "--mem", "30", "--nprocs", "2"]


def timed(line: Sequence[str]) -> tuple[float, float, float]:
    """CPU seconds, seconds of the clock and peak memory (GB) of a command that ends."""
    started = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    return used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024**2


def first_node(bids: Path, out: Path, count: int) -> tuple[float, float]:
    """Seconds until a run starts its first node, and memory (GB) of its main process then."""
    name = f"run-{count}"
    log = out / name / "logs" / "run.log"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(
        command(bids, out, name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    seconds = time.monotonic() - started
    memory = psutil.Process(process.pid).memory_info().rss / 1024**3
    process.terminate()
    process.wait()
    return seconds, memory


def make_dataset(root: Path, count: int) -> Path:
    """A dataset of `count` participants, if it is not there yet."""
    if root.exists():
        return root
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.diag([3.0, 3, 3, 1]))
    image.header.set_data_shape(SHAPE)
    original = root / ".zeros"
    with original.open("wb") as stream:
        image.header.write_to(stream)
        stream.truncate(352 + 2 * int(np.prod(SHAPE)))
    for number in range(1, count + 1):
        sub = f"sub-{number:05d}"
        folder = root / sub / "anat"
        folder.mkdir(parents=True)
        for echo in range(1, ECHOES + 1):
            for part in ("mag", "phase"):
                name = f"{sub}_echo-{echo}_part-{part}_MEGRE"
                os.link(original, folder / f"{name}.nii")
                sidecar = {"EchoTime": 0.005 * echo, "MagneticFieldStrength": 3}
                (folder / f"{name}.json").write_text(json.dumps(sidecar))
    return root


def print_results(out: Path, count: int) -> None:
    """What `status`, `status --verify` and `group` take."""
    if not out.exists():
        make_results(out, count)
    program = [sys.executable, "-m", "qsm_nipype"]
    print("| participants | command | CPU s | wall s | GB |\n|---|---|---|---|---|")
    for words in (["status", str(out)], ["status", str(out), "--verify"],
                  [str(out), str(out), "group"]):  # fmt: skip
        cells = " | ".join(f"{value:.2f}" for value in timed([*program, *words]))
        name = " ".join(word for word in words if word != str(out))
        print(f"| {count} | {name} | {cells} |", flush=True)


def make_results(out: Path, count: int) -> None:
    """Tables, states, manifests and pages of `count` participants, as a run leaves them."""
    rng = random.Random(1)
    for number in range(1, count + 1):
        sub = f"sub-{number:05d}"
        anat = out / sub / "anat"
        anat.mkdir(parents=True)
        names = [f"measure_{n:02d}" for n in range(40)]
        values = [f"{rng.gauss(10, 1):.6g}" for _ in names]
        head = ["participant_id", "acquisition", "verdict", "errors", "warnings"]
        row = [sub, sub, "green", "0", "0"]
        text = "\t".join([*head, *names]) + "\n" + "\t".join([*row, *values]) + "\n"
        (anat / f"{sub}_desc-qc_metrics.tsv").write_text(text)
        words = {name: {"Description": name, "Units": "1"} for name in names}
        (anat / f"{sub}_desc-qc_metrics.json").write_text(json.dumps(words))
        manifest.remember(out / manifest.FOLDER / f"{sub}.json", out, anat.iterdir())
        (out / f"{sub}.html").write_text("<html></html>\n")
        verdict = {"acquisition": sub, "light": "green", "errors": [], "warnings": [], "notes": []}
        state.write(out, sub, "done", verdicts=[verdict], settings="x")


if __name__ == "__main__":
    main()
