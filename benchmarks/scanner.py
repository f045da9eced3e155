"""Clean head, each effect of a real scanner alone, all of them: what each costs six chains.

    nice -n 10 python benchmarks/scanner.py OUT --anatomy colin --voxel-size 2
    python benchmarks/scanner.py OUT --anatomy colin --print       # the tables of what is done
    python benchmarks/scanner.py OUT --anatomy colin --cut 0 2 5 8 # local fields with cut masks

Every cell (one head, one scanner) is one JSON file in OUT, written when it is done; a run goes on
where another stopped. A cell holds for every chain the scores of `simulation.reader_scores` (error
in fixed brain voxels, what is bright beside the brain, by tissue, by depth, the nuclei's line,
streaks) beside those of the public package qsm-ci inside the map's own mask. The mask is the
pipeline's (`quality`, trimmed); χ is read off inside the mask that background removal leaves.
Simulated data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import front_end

from qsm_nipype import methods
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.cut import cut_field
from qsm_nipype.simulation.reader_scores import reader_scores
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.scores import score_chi
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

#: background removal and inversion; the first is what a user gets who chooses nothing
CHAINS = (
    (Settings.background, Settings.inversion[0]),
    ("lbv_tfi", "tv"),
    ("lbv_tfi", "medi"),
    ("vsharp", "tkd"),
    ("vsharp", "nltv"),
    ("pdf", "ilsqr"),
)
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
    torch.set_num_threads(options.threads)
    if options.cut:
        cuts(options)
        return
    if not options.print:
        for cell in options.cells or ["clean", "all", *EFFECTS]:
            path = place(options, cell)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                result = measured(options, cell)
                part = path.with_suffix(".part")
                part.write_text(json.dumps(result, indent=1))
                part.rename(path)
                print(f"{cell}: {result['seconds']:.0f} s", flush=True)
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
    made.add_argument("--default-only", action="store_true", help="no other chain")
    made.add_argument("--print", action="store_true", help="compute nothing")
    made.add_argument("--cut", nargs="+", type=int, help="layers of voxels to take from the mask")
    made.add_argument("--threads", type=int, default=2)
    return made


def place(options: argparse.Namespace, cell: str) -> Path:
    """The file of a cell."""
    less = "".join(f"-no-{e}" for e in options.without) if cell == "all" else ""
    head = f"{options.anatomy}-{options.seed}-{options.voxel_size:g}mm-{options.b0:g}T"
    return options.out / f"{head}-snr{options.snr:g}" / f"{cell}{less}.json"


def scan_of(options: argparse.Namespace, cell: str) -> Any:
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


# ---- one cell ---------------------------------------------------------------------------------


def measured(options: argparse.Namespace, cell: str) -> dict[str, Any]:
    """Scores of every chain on one scanner's echoes."""
    start = time.perf_counter()
    data = front_end(scan_of(options, cell))
    chains = CHAINS[:1] if options.default_only else CHAINS
    locals_: dict[str, Any] = {}
    scores = {}
    for background, inversion in chains:
        if background not in locals_:
            remove = resolve(methods.get("background", background).function)
            optional = accepted(remove, noise=data["noise"])
            locals_[background] = remove(
                data["field"], data["mask"], data["size"], data["b0_dir"], **optional
            )
        local = locals_[background]
        chi = inverted(data, inversion, local.field, local.mask)
        scores[f"{background} → {inversion}"] = score(data, chi, local.mask)
    return {"simulated": True, "seconds": time.perf_counter() - start, "chains": scores}


def inverted(data: Mapping[str, Any], name: str, field: Any, mask: Any) -> np.ndarray:
    """χ by one inversion with its own defaults."""
    invert = resolve(methods.get("inversion", name).function)
    known = {key: data[key] for key in ("noise", "magnitude", "b0", "echo_time")}
    found = invert(field, mask, data["size"], data["b0_dir"], **accepted(invert, **known))
    return found.chi.numpy()


def score(data: Mapping[str, Any], chi: np.ndarray, mask: Any) -> dict[str, float]:
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
    cells = {}
    for cell in ["clean", *EFFECTS, "all"]:
        path = place(options, cell)
        if path.exists():
            cells[cell] = json.loads(path.read_text())["chains"]
    if not cells:
        print("nothing is done yet")
        return
    names = list(next(iter(cells.values())))
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
        values = (f"{chains[names[0]].get(k, np.nan):.{d}f}" for k, _, d in COLUMNS)
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
            if cell in EFFECTS and name in chains
        }
        worst = sorted(rises, key=lambda c: -rises[c])[:3]
        print(f"{name}: " + ", ".join(f"{c} {rises[c]:+.1f}" for c in worst))


def cuts(options: argparse.Namespace) -> None:
    """Inversions of the true local field and 1 ppb of noise in masks cut by some layers."""
    scan = scan_of(options, "clean")
    truth = {"chi": scan.truth.chi, "brain": scan.brain, "labels": scan.head.labels}
    common = {
        **{name: torch.from_numpy(volume) for name, volume in truth.items()},
        "magnitude": torch.from_numpy(scan.magnitude).square().sum(-1).sqrt(),
        "size": scan.head.voxel_size, "b0_dir": scan.head.b0_dir, "b0": options.b0,
        "echo_time": float(np.mean(scan.protocol.echo_times)),
    }  # fmt: skip
    names = list(dict.fromkeys(inversion for _, inversion in CHAINS))
    print("NRMSE in the cut mask / in fixed brain voxels, %")
    print("| layers | brain kept % | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for layers in options.cut:
        field, mask = cut_field(scan, layers)
        noise = 1e-3 * np.random.default_rng(0).standard_normal(field.shape, dtype=np.float32)
        data = {**common, "noise": torch.full(field.shape, 1e-3)}
        inside = torch.from_numpy(mask)
        noisy = torch.from_numpy(np.where(mask, field + noise, 0))
        row = []
        for name in names:
            found = score(data, inverted(data, name, noisy, inside), inside)
            row.append(f"{found['nrmse']:.1f} / {found['fixed_nrmse']:.1f}")
        kept = 100 * mask.sum() / scan.brain.sum()
        print(f"| {layers} | {kept:.1f} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
