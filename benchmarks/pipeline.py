"""The whole command on a simulated head: accuracy of each step, and its wall time, CPU and memory.

python benchmarks/pipeline.py OUT --voxel-size 1 --b0 3 [--snr 40] [--seed 11] [--anatomy colin]
    [-- --inversion rts]

Everything printed was measured in this run, on simulated data. Scores by the package qsm-ci.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from qsm_ci.qsm_eval import nrmse_challenge

from qsm_nipype import cli
from qsm_nipype.evaluation import score_chi
from qsm_nipype.interfaces.volume import load


def main() -> int:
    """Simulate, run, print the tables."""
    options, more = parser().parse_known_args()
    bids, out = options.out / "bids", options.out / "derivatives"
    simulation = ["--voxel-size", options.voxel_size, "--b0", options.b0, "--snr", options.snr]
    simulation += ["--seed", options.seed, "--anatomy", options.anatomy]
    if not bids.exists():
        cli.main(["simulate", str(bids), *map(str, simulation)])
    started = time.perf_counter()
    places = [str(bids), str(out), "participant", "-w", str(options.out / "work")]
    code = cli.main([*places, "--skip-bids-validation", *(m for m in more if m != "--")])
    wall = time.perf_counter() - started
    if code == 0:
        print_accuracy(bids, out)
        print_cost(options.out / "work", wall)
    return code


def parser() -> argparse.ArgumentParser:
    """Size, field strength and noise of the head."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--b0", type=float, default=3.0, help="tesla")
    made.add_argument("--snr", type=float, default=100.0, help="of white matter in echo 1")
    made.add_argument("--anatomy", default="procedural", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=11, help="which head")
    return made


def print_accuracy(bids: Path, out: Path) -> None:
    """NRMSE of the fields, and the scores of χ, each inside the pipeline's own mask."""
    truth = bids / "derivatives" / "truth" / "sub-01" / "anat"
    anat = out / "sub-01" / "anat"

    def volume(folder: Path, name: str) -> np.ndarray:
        return load(folder / f"sub-01_{name}.nii.gz").data.astype(float)

    brain = volume(truth, "desc-brain_mask") > 0.5
    mask, inside = (volume(anat, f"desc-{k}_mask") > 0.5 for k in ("brain", "chi"))
    dice = 2 * (mask & brain).sum() / (mask.sum() + brain.sum())
    print("\naccuracy on this simulated head")
    print(
        f"  brain mask: Dice {dice:.3f}; χ in {100 * (inside & brain).sum() / brain.sum():.1f} %"
    )
    for name, where in (("total", mask & brain), ("local", inside & brain)):
        field, true = (volume(f, f"desc-{name}_fieldmap") for f in (anat, truth))
        print(f"  {name} field: NRMSE {nrmse_challenge(field, true, where)[0]:.2f} %")
    labels = volume(truth, "desc-tissue_dseg")
    for path in sorted(anat.glob("*Chimap.nii.gz")):
        chi = load(path).data
        scores = score_chi(chi, volume(truth, "Chimap"), inside & brain, labels)
        row = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
        print(f"  {path.name.removesuffix('.nii.gz')}: {row}")


def print_cost(work: Path, wall: float) -> None:
    """What each node took, and what is left for Nipype."""
    print(f"\n{'step':<34}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}")
    total = 0.0
    timings = sorted(work.rglob("timing.json"), key=lambda p: p.stat().st_mtime)
    for path in timings:
        cost = json.loads(path.read_text())
        name = ".".join(path.parts[-3:-1])
        print(f"{name:<34}{cost['wall_s']:>9.2f}{cost['cpu_s']:>9.2f}{cost['peak_gb']:>9.2f}")
        total += cost["wall_s"]
    print(f"{'sum of the steps':<34}{total:>9.2f}")
    print(f"{'whole command':<34}{wall:>9.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
