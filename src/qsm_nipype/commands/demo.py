"""`qsm-nipype demo OUT`: simulate a small head, process it as a user would, score the result."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qsm_nipype.errors import UsageError
from qsm_nipype.plan import LARGEST_VOXEL
from qsm_nipype.simulation.scores import DESCRIPTIONS, score_chi
from qsm_nipype.system.arguments import Parser

_PARTICIPANT = "01"


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code of the participant run."""
    options, more = _parser().parse_known_args(argv)
    if not 0 < options.voxel_size <= LARGEST_VOXEL:
        raise UsageError(
            f"--voxel-size {options.voxel_size:g}: give an edge above 0, of at most "
            f"{LARGEST_VOXEL:g} mm; larger voxels cannot show susceptibility"
        )
    bids_dir, out_dir = options.out / "bids", options.out / "derivatives"
    from qsm_nipype import cli

    command = [
        *(str(bids_dir), str(out_dir), "participant"),
        *("--work-dir", str(options.out / "work"), "--skip-bids-validation"),
        *more,
    ]
    cli.parse(command)  # what is misspelt is said before anything is simulated
    started = time.monotonic()
    _simulate(bids_dir, options)
    code = cli.main(command)
    if code == 0 and "--dry-run" not in more and "--boilerplate-only" not in more:
        _show_scores(bids_dir, out_dir)
        print(f"report: {out_dir / f'sub-{_PARTICIPANT}.html'}")
        print(f"took {time.monotonic() - started:.0f} s")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype demo",
        description="Simulate a small head as BIDS, map its susceptibility, compare with truth."
        " Further options go to the participant run (--inversion rts …).",
    )
    parser.add_argument("out", type=Path, help="folder for data, results and intermediate files")
    parser.add_argument("--seed", type=int, default=1, help="which head (default 1)")
    parser.add_argument("--voxel-size", type=float, default=2.0, help="in mm (default 2)")
    return parser


def _simulate(bids_dir: Path, options: argparse.Namespace) -> None:
    """Make the dataset, unless a demo of the same seed and size made it before."""
    wanted = f"{options.seed} {options.voxel_size}"
    stamp = bids_dir / "code" / "demo.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if bids_dir.exists() and not stamp.exists():
        raise UsageError(f"{bids_dir} exists and is not a finished demo; choose another folder")
    from qsm_nipype.simulation.command import main as simulate
    from qsm_nipype.simulation.dataset import write_description

    print("simulating a head …", flush=True)
    size = ["--voxel-size", str(options.voxel_size), "--seed", str(options.seed)]
    write_description(bids_dir)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text("unfinished")
    simulate([str(bids_dir), *size, "--overwrite"])
    stamp.write_text(wanted)


def _show_scores(bids_dir: Path, out_dir: Path) -> None:
    """Print the scores of χ against the simulated truth, and show both on the page.

    Scored are the voxels of the brain that have a susceptibility, as everywhere in docs/.
    """
    from qsm_nipype.report.truth import add_truth, draw_truth
    from qsm_nipype.volume import load

    name = f"sub-{_PARTICIPANT}"
    truth = bids_dir / "derivatives" / "truth" / name / "anat"
    result = out_dir / name / "anat"
    mask = load(result / f"{name}_desc-chi_mask.nii.gz").data > 0.5
    brain = load(truth / f"{name}_desc-brain_mask.nii.gz").data > 0.5
    chi, true = load(result / f"{name}_Chimap.nii.gz"), load(truth / f"{name}_Chimap.nii.gz")
    inside = mask & brain
    labels = load(truth / f"{name}_desc-tissue_dseg.nii.gz").data
    scores = score_chi(chi.data, true.data, inside, labels)
    kept = 100 * inside.sum() / brain.sum()
    print("\nsusceptibility against the simulated truth (scorer: qsm-ci)")
    for key, value in scores.items():
        print(f"  {key:<16} {value:8.3f}   {DESCRIPTIONS[key]}")
    print(f"  {'brain kept':<16} {kept:8.1f}   % of the brain that has a susceptibility")
    where = describe_error(chi.data, true.data, inside, min(chi.voxel_size))
    print(where)
    caption = (
        f"NRMSE {scores['nrmse']:.0f} % in {kept:.0f} % of the brain: the error over the truth, "
        f"both without their mean. {where}"
    )
    add_truth(out_dir, _PARTICIPANT, draw_truth(chi.data, true.data, mask, chi.affine), caption)


def describe_error(chi: np.ndarray, truth: np.ndarray, inside: np.ndarray, edge: float) -> str:
    """Where the error of a map lies, and why coarse voxels have more of it.

    `chi` and `truth` (X, Y, Z) in ppm, `inside` the voxels that were scored, `edge` in mm.
    """
    from scipy.ndimage import binary_erosion

    rim = inside & ~binary_erosion(inside, np.ones((3, 3, 3)))
    squares = np.where(inside, (chi - chi[inside].mean() - truth + truth[inside].mean()) ** 2, 0)
    share = 100 * squares[rim].sum() / max(squares.sum(), 1e-30)
    text = (
        f"{share:.0f} % of the squared error lies in the outermost layer of voxels, "
        f"{100 * rim.sum() / max(inside.sum(), 1):.0f} % of them."
    )
    if edge > 1.2:
        text += (
            f" Voxels of {edge:g} mm blur veins and borders and have a thicker rim: the README's "
            "figure is for 1 mm (--voxel-size 1)."
        )
    return text
