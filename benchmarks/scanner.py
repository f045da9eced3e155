"""Clean head, each effect of a real scanner alone, all of them: what each costs six chains.

    nice -n 10 python benchmarks/scanner.py OUT --anatomy colin --voxel-size 2
    python benchmarks/scanner.py OUT --anatomy colin --print       # the tables of what is done
    python benchmarks/scanner.py OUT --anatomy colin --tag NAME    # again, with other defaults
    python benchmarks/scanner.py OUT --anatomy colin --cut 0 2 5 8 # local fields with cut masks

OUT/HEAD holds the scan of every cell (one scanner), which no reconstruction changes, and
OUT/HEAD/TAG one JSON file for each cell, written after every chain: a run goes on where another
stopped, and adds the chains of `--chains` that a cell lacks. Results stay what they were when the
code changes; another TAG measures again, from the same scans. Delete OUT/HEAD after a change of
the simulator.

A cell holds for every chain the scores of `simulation.reader_scores` (error in fixed brain voxels,
what is bright beside the brain, by tissue, by depth, the nuclei's line, streaks) beside those of
the public package qsm-ci inside the map's own mask. The mask is the pipeline's, trimmed; χ is read
off inside the mask that background removal leaves. Simulated data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import acquired, front_end, raw
from torch import Tensor

from qsm_nipype import chain
from qsm_nipype.commands.stage import REGION_MARGIN
from qsm_nipype.core.background import LocalField
from qsm_nipype.core.morphology import dilate
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.cut import cut_field
from qsm_nipype.simulation.reader_scores import reader_scores
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.scores import score_chi
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads

#: background removal and inversion; the first is what a user gets who chooses nothing
CHAINS = tuple(
    dict.fromkeys(
        (
            (Settings.background, Settings.inversion[0]),
            ("lbv_tfi", "tv"),
            ("lbv_tfi", "medi"),
            ("vsharp", "tkd"),
            ("vsharp", "nltv"),
            ("pdf", "ilsqr"),
        )
    )
)
NAMES = tuple(f"{background} → {inversion}" for background, inversion in CHAINS)
#: the columns of the default chain's table: key, title, digits
COLUMNS = (
    ("fixed_nrmse", "fixed %", 1), ("nrmse", "own %", 1), ("xsim", "XSIM", 3),
    ("kept", "kept %", 1),
    ("outside.ml", "beside mL", 0), ("outside.ml_strong", "> 0.3 mL", 1),
    ("outside.sd_ppb", "SD ppb", 0), ("nuclei.slope", "slope", 2), ("nuclei.intercept", "icpt", 3),
    ("streaks", "streaks", 2), ("tissue.cortex", "cortex", 0), ("tissue.white", "white", 0),
    ("tissue.veins", "veins", 0), ("tissue.csf", "CSF", 0), ("depth.0-3", "< 3 mm", 0),
    ("depth.3-6", "3–6", 0), ("depth.6-12", "6–12", 0), ("depth.12-", "> 12", 0),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Compute what is missing, print the tables."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    if options.cut:
        cuts(options)
        return
    if not options.print:
        for cell in options.cells or ["clean", "all", *EFFECTS]:
            measure(options, cell)
    tables(options)


def parser() -> argparse.ArgumentParser:
    """Which head, which scanners."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path, help="folder of the cells")
    made.add_argument("--anatomy", default="colin", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=5)
    made.add_argument("--voxel-size", type=float, default=2.0, help="mm")
    made.add_argument("--b0", type=float, default=3.0, help="tesla")
    made.add_argument("--snr", type=float, default=60.0, help="of white matter in echo 1")
    made.add_argument("--cells", nargs="+", choices=["clean", "all", *EFFECTS])
    made.add_argument("--without", nargs="+", choices=list(EFFECTS), default=(), help='of "all"')
    made.add_argument(
        "--chains",
        nargs="+",
        type=int,
        default=range(len(CHAINS)),
        metavar="N",
        help="which of " + ", ".join(f"{n}: {c}" for n, c in enumerate(NAMES)),
    )
    made.add_argument(
        "--default-only",
        dest="chains",
        action="store_const",
        const=[0],
        help="the same as --chains 0",
    )
    made.add_argument("--tag", default="default", help="name of the defaults measured")
    made.add_argument("--print", action="store_true", help="compute nothing")
    made.add_argument("--cut", nargs="+", type=int, help="layers of voxels to take from the mask")
    made.add_argument("--threads", type=int, default=2)
    return made  # fmt: skip


def head_folder(options: argparse.Namespace) -> Path:
    """Where the scans of one head lie."""
    head = f"{options.anatomy}-{options.seed}-{options.voxel_size:g}mm-{options.b0:g}T"
    return options.out / f"{head}-snr{options.snr:g}"


def file_name(options: argparse.Namespace, cell: str) -> str:
    """The name of a cell's files, without suffix."""
    return cell + "".join(f"-no-{e}" for e in options.without if cell == "all")


def place(options: argparse.Namespace, cell: str) -> Path:
    """The file of a cell's scores."""
    return head_folder(options) / options.tag / f"{file_name(options, cell)}.json"


def scan_of(options: argparse.Namespace, cell: str) -> Scan:
    """The head of `options`, seen by the scanner of `cell`."""
    named = {"clean": (), "all": tuple(e for e in EFFECTS if e not in options.without)}
    protocol = Protocol(b0=options.b0, snr=options.snr, effects=named.get(cell, (cell,)))
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    return simulate_subject(
        options.seed,
        shape=shape,  # type: ignore[arg-type]
        voxel_size=options.voxel_size,
        protocol=protocol,
        anatomy=options.anatomy,
    )


def scanned(options: argparse.Namespace, cell: str) -> dict[str, Any]:
    """`chains.raw` of the cell's scan, simulated once."""
    path = head_folder(options) / f"{file_name(options, cell)}.pt"
    if path.exists():
        return dict(torch.load(path, weights_only=True))
    found = raw(scan_of(options, cell))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(found, part)
    part.rename(path)
    return found


# ---- one cell ---------------------------------------------------------------------------------


def measure(options: argparse.Namespace, cell: str) -> None:
    """Score the chains that a cell lacks, one at a time."""
    path = place(options, cell)
    result = {"simulated": True, "commit": commit(), "chains": {}}
    if path.exists():
        result = json.loads(path.read_text())
    missing = [n for n in options.chains if NAMES[n] not in result["chains"]]
    if not missing:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    data = front_end(scanned(options, cell))
    print(f"{cell}: scan and field in {time.process_time() - start:.0f} s of CPU", flush=True)
    removed: dict[str, LocalField] = {}
    for number in missing:
        start = time.process_time()
        background, inversion = CHAINS[number]
        if background not in removed:
            removed[background] = chain.remove_background(
                data["field"], data["mask"], acquired(data),
                field_noise=data["noise"], method=background,
            )  # fmt: skip
        local = removed[background]
        chi = inverted(data, inversion, local.field, local.mask, data["mask"])
        scores = {**score(data, chi, local.mask), "seconds": time.process_time() - start}
        result["chains"][NAMES[number]] = scores
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1))
        part.rename(path)
        print(f"  {NAMES[number]}: {scores['seconds']:.0f} s", flush=True)


def commit() -> str:
    """The commit that is measured."""
    here = Path(__file__).parent
    call = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()


def inverted(
    data: Mapping[str, Any], name: str, field: Tensor, mask: Tensor, region: Tensor
) -> np.ndarray:
    """χ by one inversion with its own defaults."""
    known = {"field_noise": data["noise"], "magnitude": data["magnitude"], "region": region}
    return chain.invert(field, mask, acquired(data), method=name, **known).chi.numpy()


def score(data: Mapping[str, Any], chi: np.ndarray, mask: Tensor) -> dict[str, float]:
    """The reader's scores and the public scorer's, the latter in the map's own mask."""
    truth, brain, labels = (data[k].numpy() for k in ("chi", "brain", "labels"))
    inside = mask.numpy()
    reader = reader_scores(
        chi, truth, inside, brain, labels, voxel_size=data["size"], b0_dir=data["b0_dir"]
    )
    return {**reader, **score_chi(chi, truth, inside & brain, labels)}


# ---- tables -----------------------------------------------------------------------------------


def tables(options: argparse.Namespace) -> None:
    """Error of every chain by effect; every score of the default chain."""
    cells, commits = {}, []
    for cell in ["clean", *EFFECTS, "all"]:
        path = place(options, cell)
        if path.exists():
            result = json.loads(path.read_text())
            cells[cell] = result["chains"]
            commits.append(result["commit"])
    if not cells:
        print("nothing is done yet")
        return
    names = list(dict.fromkeys(name for chains in cells.values() for name in chains))
    print(f"\n{head_folder(options).name}, {options.tag}: {', '.join(dict.fromkeys(commits))}")
    print("\nNRMSE in fixed brain voxels / in the map's own mask, %")
    print("| scanner | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for cell, chains in cells.items():
        pairs = (chains.get(n) for n in names)
        row = [f"{p['fixed_nrmse']:.1f} / {p['nrmse']:.1f}" if p else "" for p in pairs]
        print(f"| {cell} | " + " | ".join(row) + " |")
    print(f"\n{names[0]} (errors of tissues in ppb, of depths in %)")
    print("| scanner | " + " | ".join(t for _, t, _ in COLUMNS) + " |")
    print("|" + "---|" * (len(COLUMNS) + 1))
    for cell, chains in cells.items():
        found = chains.get(names[0], {})
        values = (f"{found.get(k, np.nan):.{d}f}" for k, _, d in COLUMNS)
        print(f"| {cell} | " + " | ".join(values) + " |")
    costliest(cells, names)


def costliest(cells: Mapping[str, Any], names: Sequence[str]) -> None:
    """The three effects that raise the error in fixed voxels most, for each chain."""
    if "clean" not in cells:
        return
    print()
    for name in names:
        rises = {
            cell: chains[name]["fixed_nrmse"] - cells["clean"][name]["fixed_nrmse"]
            for cell, chains in cells.items()
            if cell in EFFECTS and name in chains and name in cells["clean"]
        }
        worst = sorted(rises, key=lambda c: -rises[c])[:3]
        print(f"{name}: " + ", ".join(f"{c} {rises[c]:+.1f}" for c in worst))


def cuts(options: argparse.Namespace) -> None:
    """Inversions of the true local field and 1 ppb of noise in masks cut by some layers.

    Sources may lie `REGION_MARGIN` around the cut mask, as in `stage dipole`.
    """
    scan = scan_of(options, "clean")
    data = raw(scan)
    data["noise"] = torch.full(scan.brain.shape, 1e-3)
    drawn = np.random.default_rng(0).standard_normal(scan.brain.shape, dtype=np.float32)
    names = list(dict.fromkeys(inversion for _, inversion in CHAINS))
    print(f"{head_folder(options).name}, {commit()}: NRMSE in the cut mask / in fixed voxels, %")
    print("| layers | brain kept % | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for layers in options.cut:
        field, mask = cut_field(scan, layers)
        noisy = torch.from_numpy(np.where(mask, field + np.float32(1e-3) * drawn, 0))
        inside, row = torch.from_numpy(mask), []
        region = dilate(inside, data["size"], REGION_MARGIN)
        for name in names:
            found = score(data, inverted(data, name, noisy, inside, region), inside)
            row.append(f"{found['nrmse']:.1f} / {found['fixed_nrmse']:.1f}")
        kept = 100 * mask.sum() / scan.brain.sum()
        print(f"| {layers} | {kept:.1f} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
