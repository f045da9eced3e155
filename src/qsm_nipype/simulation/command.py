"""`qsm-nipype simulate OUT`: heads with known susceptibility as a BIDS dataset."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qsm_nipype.errors import UsageError
from qsm_nipype.simulation.colin import load_colin
from qsm_nipype.simulation.dataset import (
    PHASES,
    forget_scans,
    write_description,
    write_participants,
    write_scan,
)
from qsm_nipype.simulation.heads import ANATOMIES
from qsm_nipype.simulation.scanner.effects import EFFECTS, SCANNERS, chosen
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.arguments import Parser

FIELD_OF_VIEW = (180.0, 220.0, 180.0)  # mm


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError for what cannot be simulated."""
    options = _parser().parse_args(argv)
    echo_times = _echo_times(options)
    _check(options)
    if options.anatomy == "colin":
        load_colin()  # before anything is written
    fresh = not (options.out.exists() and any(options.out.iterdir()))
    if not fresh:
        if not options.overwrite:
            raise UsageError(f"{options.out} is not empty; choose a new folder or add --overwrite")
        forget_scans(options.out)
    snr = options.snr if options.snr > 0 else None
    protocol = Protocol(
        b0=options.b0,
        echo_times=echo_times,
        repetition_time=max(Protocol().repetition_time, echo_times[-1] + 0.005),
        snr=snr,
        bipolar=options.bipolar,
        angles=tuple(options.angles),
        contrasts=tuple(options.contrasts),
        effects=chosen(options.scanner, options.effects, options.without),
    )
    with _all_or_nothing(options.out) if fresh else contextlib.nullcontext():
        _write(options, protocol)
    return 0


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """Leave an empty `folder` empty, and an absent one absent, when the block fails."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        for path in folder.iterdir() if folder.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if folder.exists() and not existed:
            folder.rmdir()
        raise


def _write(options: argparse.Namespace, protocol: Protocol) -> None:
    """Simulate the heads and write the dataset."""
    shape = tuple(2 * int(np.ceil(f / options.voxel_size / 2)) for f in FIELD_OF_VIEW)
    write_description(options.out)
    rows = {}
    for number in range(1, options.n + 1):
        seed = options.seed + number - 1
        scan = simulate_subject(
            seed,
            shape=shape,  # type: ignore[arg-type]
            voxel_size=options.voxel_size,
            protocol=protocol,
            anatomy=options.anatomy,
            pathology=options.pathology,
        )
        write_scan(options.out, f"{number:02d}", scan, phase=options.phase)
        rows[f"sub-{number:02d}"] = {"seed": seed, "anatomy": options.anatomy}
        print(f"sub-{number:02d}: seed {seed}, {options.anatomy} head, {shape}", flush=True)
    write_participants(options.out, rows)


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError for numbers that make no head."""
    if options.n < 1 or options.seed < 0:
        raise UsageError("--n must be at least 1 and --seed not negative")
    if not 0.4 <= options.voxel_size <= 12:
        raise UsageError("--voxel-size is in mm, 0.4 to 12")
    if not 0.1 <= options.b0 <= 20:
        raise UsageError("--b0 is in tesla, 0.1 to 20")
    if not options.snr >= 0:
        raise UsageError("--snr must not be negative; 0 means no noise")


def _echo_times(options: argparse.Namespace) -> tuple[float, ...]:
    times = tuple(options.echo_times) or Protocol().echo_times
    if any(b <= a for a, b in zip((0.0, *times), times, strict=False)):
        raise UsageError("--echo-times must be positive seconds in rising order, like 0.004 0.012")
    if times[-1] > 1:
        raise UsageError("--echo-times are in seconds; 4 ms is 0.004")
    return times


def _parser() -> argparse.ArgumentParser:
    default = Protocol()
    parser = Parser(prog="qsm-nipype simulate", description=__doc__)
    add = parser.add_argument
    add("out", type=Path, help="folder of the new BIDS dataset")
    add("--n", type=int, default=1, help="number of heads (default 1)")
    add("--seed", type=int, default=1, help="seed of the first head; the others follow")
    add("--anatomy", choices=sorted(ANATOMIES), default="procedural", help="which head")
    add("--voxel-size", type=float, default=1.0, help="isotropic voxel size in mm")
    add("--b0", type=float, default=default.b0, help="field strength in tesla")
    add("--echo-times", type=float, nargs="+", default=(), help="echo times in seconds")
    add("--snr", type=float, default=default.snr, help="of white matter, echo 1; 0: no noise")
    add("--angles", type=float, nargs=3, default=(0.0, 0.0, 0.0), metavar=("X", "Y", "Z"),
        help="degrees of the slab about x, y, z; above 2 mm add --effects finer")  # fmt: skip
    add("--bipolar", type=float, default=0.0, help="alternating readout phase in rad")
    add("--scanner", choices=sorted(SCANNERS), default="clean",
        help="realistic: with every effect of docs/simulation.md")  # fmt: skip
    add("--effects", nargs="+", choices=list(EFFECTS), default=(), help="only these effects")
    add("--without", nargs="+", choices=list(EFFECTS), default=(), help="all but these effects")
    add("--phase", choices=sorted(PHASES), default="rad",
        help="how phase is stored: rad (float), int16 or siemens, ge, philips")  # fmt: skip
    add("--pathology", action="store_true", help="add random bleeds, calcifications and lesions")
    add("--contrasts", nargs="+", choices=["T1w", "FLAIR"], default=(), help="further images")
    add("--overwrite", action="store_true", help="replace the simulated dataset in OUT")
    return parser
