"""The whole command on a simulated head: accuracy of each step, and its wall time, CPU and memory.

python benchmarks/pipeline.py OUT --voxel-size 1 --b0 3 [--snr 40] [--seed 11] [--anatomy colin]
    [--scanner qsm-forward] [-- --inversion rts]

Everything printed was measured in this run, on simulated data. Scores by the package qsm-ci. With
`--scanner qsm-forward` the anatomy and its tissue maps are ours, but field, shim, phase offset,
signal and noise are made by that public package (without fat), so that the reconstruction does not
only invert this package's own forward model. (Its kernel rings at air where B0 is tilted against
the voxels, so the head is upright.)
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from qsm_ci.qsm_eval import nrmse_challenge

from qsm_nipype import cli
from qsm_nipype.simulation.command import FIELD_OF_VIEW
from qsm_nipype.simulation.labels import WHITE_MATTER
from qsm_nipype.simulation.scores import score_chi
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.volume import load


def main() -> int:
    """Simulate, run, print the tables."""
    options, more = parser().parse_known_args()
    bids, out = options.out / "bids", options.out / "derivatives"
    simulation = ["--voxel-size", options.voxel_size, "--b0", options.b0, "--snr", options.snr]
    simulation += ["--seed", options.seed, "--anatomy", options.anatomy]
    if not bids.exists():
        cli.main(["simulate", str(bids), *map(str, simulation)])
        if options.scanner == "qsm-forward":
            scan_elsewhere(bids, options)
    started = time.perf_counter()
    places = [str(bids), str(out), "participant", "-w", str(options.out / "work")]
    code = cli.main([*places, "--skip-bids-validation", *(m for m in more if m != "--")])
    wall = time.perf_counter() - started
    if code == 0:
        print_accuracy(bids, out, same_shim=options.scanner == "own")
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
    made.add_argument("--scanner", default="own", choices=("own", "qsm-forward"))
    return made


def scan_elsewhere(bids: Path, options: argparse.Namespace) -> None:
    """Replace the echoes in `bids` by those that qsm-forward makes of the same tissue maps."""
    from qsm_forward.qsm_forward import ReconParams, TissueParams, generate_bids

    shape = tuple(2 * int(np.ceil(f / options.voxel_size / 2)) for f in FIELD_OF_VIEW)
    head = {"shape": shape, "voxel_size": options.voxel_size, "anatomy": options.anatomy}
    protocol = Protocol(b0=options.b0, snr=None)
    scan = simulate_subject(options.seed, protocol=protocol, **head)
    maps = options.out / "maps"
    maps.mkdir()
    volumes = {"chi": scan.tissue.chi, "M0": scan.tissue.m0, "R1": scan.tissue.r1}
    volumes |= {"R2star": scan.tissue.r2star, "mask": scan.brain, "seg": scan.head.labels}
    for name, data in volumes.items():
        image = nib.Nifti1Image(np.asarray(data, np.float32), scan.affine)
        nib.save(image, maps / f"{name}.nii")
    files = {name: f"{name}.nii" for name in volumes}
    white = scan.head.labels == WHITE_MATTER
    first = scan.magnitude[..., 0]
    recon = ReconParams(
        subject="01",
        TR=protocol.repetition_time,
        TEs=np.array(protocol.echo_times),
        flip_angle=protocol.flip_angle,
        B0=options.b0,
        B0_dir=np.array([0.0, 0.0, 1.0]),
        voxel_size=np.full(3, options.voxel_size),
        peak_snr=options.snr * float(first.max() / first[white].mean()),
        random_seed=options.seed,
    )
    shutil.rmtree(bids / "sub-01")
    generate_bids(TissueParams(root_dir=str(maps), **files), recon, str(bids))


def print_accuracy(bids: Path, out: Path, *, same_shim: bool) -> None:
    """NRMSE of the fields, and the scores of χ, each inside the pipeline's own mask.

    Without the `same_shim` the true total field is not that of the scan.
    """
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
    fields = {"total": mask & brain} if same_shim else {}
    for name, where in (fields | {"local": inside & brain}).items():
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
    reports = [p for p in work.rglob("*.json") if p.name[0] not in "_."]
    for path in sorted(reports, key=lambda p: p.stat().st_mtime):
        cost = json.loads(path.read_text())
        if "cpu_seconds" not in cost:
            continue
        name = ".".join(path.parts[-3:-1])
        print(
            f"{name:<34}{cost['seconds']:>9.2f}{cost['cpu_seconds']:>9.2f}{cost['peak_gb']:>9.2f}"
        )
        total += cost["seconds"]
    print(f"{'sum of the steps':<34}{total:>9.2f}")
    print(f"{'whole command':<34}{wall:>9.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
