"""Which faults of a map its quality measures find: simulated heads, one fault at a time.

    nice -n 10 python benchmarks/quality.py OUT                # make what is missing (resumable)
    python benchmarks/quality.py OUT --print                   # the tables of what is made
    python benchmarks/quality.py OUT --print --ranges          # and the ranges of training heads

Every head (`person`) is scanned once, clean or by the realistic scanner. Good maps are those of
the presets' chains; a faulty map differs by one fault of `FAULTS` of a strength from 0 to 1, which
enters where it would arise: in the complex signal, in the mask, in the total field, in the local
field, in the inversion or in what is written. OUT/HEAD/CASE.pt keeps what the measures take, so
that changed measures and limits are judged again in seconds. Tables: area under the ROC curve
(share of pairs of a faulty and a good map in which the faulty one is the worse) and lights.

Heads below `TRAINING` served to set the limits of data/quality.yml, with strengths of 0.25 to
0.75. The others have other seeds and strengths from 0 to 1, some another anatomy, Colin27.
`--unseen 19` counts as unseen only those that were made and judged when the limits stood.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import raw
from quality_faults import COSTLY, FAULTS, Case, Draw, front, kept, mapped
from quality_tables import tables

from qsm_nipype import chain
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system import memory
from qsm_nipype.system.threads import limit_threads

#: heads that limits were set on; all below HEADS are made
TRAINING, HEADS = 8, 24
#: heads of Colin27's anatomy, the others are procedural
COLIN = (*range(12, 20), 21)
#: chains of a good map: background removal and inversion
CHAINS = (("ismv_tv", "whtv"), ("resharp", "nltv"), ("lbv_tfi", "tkd"), ("lbv", "rts"))


# ---- heads ------------------------------------------------------------------------------------


def person(number: int) -> dict[str, Any]:
    """A head, its scanner and its voxels."""
    rng = np.random.default_rng([24, number])
    voxel = float(rng.choice([3.0, 3.0, 3.0, 2.5]))
    b0 = float(rng.choice([3.0, 3.0, 3.0, 3.0, 1.5, 7.0]))
    effects = tuple(e for e in EFFECTS if e != "finer") if number % 2 else ()
    times = tuple(t * (3.0 / b0) ** 0.5 for t in (0.004, 0.012, 0.020, 0.028))
    protocol = Protocol(
        b0=b0,
        echo_times=times,
        snr=float(rng.choice([60.0, 120.0, 240.0])),
        angles=tuple(float(rng.normal(0, s)) for s in (8, 3, 3)),  # type: ignore[arg-type]
        effects=effects,
    )
    return {
        "seed": 100 + number,
        "voxel_size": voxel,
        "shape": tuple(2 * round(n / voxel / 2) for n in (180, 220, 180)),
        "protocol": protocol,
        "anatomy": "colin" if number in COLIN else "procedural",
    }


def scanned(number: int, *, pathology: bool = False) -> dict[str, Any]:
    """The scan of a head as plain tensors and numbers."""
    options = person(number)
    return raw(simulate_subject(options.pop("seed"), pathology=pathology, **options))


def patient(number: int) -> Case:
    """The default's map of a head with bleeds, calcifications and lesions, which are no fault."""
    return mapped(front(scanned(number, pathology=True)), *CHAINS[0])


# ---- making -----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, print the tables."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    memory.keep_freed()
    if options.print:
        names = {fault.__name__: words for words, fault in FAULTS.items()}
        tables(options.out, names, options.unseen, COLIN, ranges=options.ranges)
        return
    for number in options.heads:
        make(options.out / f"head-{number:02d}", number)


def parser() -> argparse.ArgumentParser:
    """Where, which heads."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path, help="folder of the cases")
    made.add_argument("--heads", type=int, nargs="+", default=range(HEADS))
    made.add_argument("--print", action="store_true", help="make nothing")
    made.add_argument("--unseen", type=int, default=TRAINING, help="first head of the tables")
    made.add_argument("--ranges", action="store_true", help="ranges of the training heads, too")
    made.add_argument("--threads", type=int, default=1)
    return made


def strengths(number: int, count: int) -> list[float]:
    """For a head: of the middle for training, of the whole for the others, the ends first."""
    rng = np.random.default_rng([25, number])
    if number < TRAINING:
        return [round(float(s), 3) for s in rng.uniform(0.25, 0.75, count)]
    ends = [rng.uniform(0, 0.25), rng.uniform(0.75, 1), *rng.uniform(0, 1, count)]
    return [round(float(s), 3) for s in ends[:count]]


def make(folder: Path, number: int) -> None:
    """The good and the faulty maps of a head that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    inversion = ("rts", "tkd", "rts", "whtv")[number % 4]
    wanted: dict[str, Callable[[Case, Case], Case]] = {}
    for background, by in CHAINS:
        name = f"good_{background}_{by}"
        wanted[name] = lambda case, _, background=background, by=by: mapped(case, background, by)
    wanted["patient_0"] = lambda _, __: patient(number)
    for place, (name, fault) in enumerate(FAULTS.items()):
        for turn, strength in enumerate(strengths(number, 2 if name in COSTLY else 3)):
            rng = np.random.default_rng([26, number, place, turn])
            wanted[f"{fault.__name__}_{strength:g}"] = (
                lambda case, good, fault=fault, rest=(strength, rng, inversion): fault(
                    case, Draw(*rest, good)
                )
            )
    missing = {n: w for n, w in wanted.items() if not (folder / f"{n}.pt").exists()}
    if not missing:
        return
    start = time.process_time()
    case = front(scanned(number))
    good = mapped(case, inversion=inversion)
    print(f"{folder.name}: scan in {time.process_time() - start:.0f} s of CPU", flush=True)
    for name, work in missing.items():
        start = time.process_time()
        try:
            result = kept(work(case, good))
        except chain.DataError as refused:
            result = {"refused": str(refused)}
        part = folder / f"{name}.part"
        torch.save(result, part)
        part.rename(folder / f"{name}.pt")
        print(f"  {name}: {time.process_time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
