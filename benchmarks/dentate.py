"""Dentate nuclei of unseen simulated heads: Dice, surface distance, volumes, time and memory.

    python benchmarks/dentate.py OUT
    python benchmarks/dentate.py OUT --heads procedural:901 colin:902:snr100:tilted:pathology
    python benchmarks/dentate.py OUT --chi MAP --mask MASK --labels TISSUE_DSEG

Each head's raw phase goes through the pipeline's default steps; the maps are kept in OUT, so that
another model is compared quickly. Truth are the labels of the simulation, folded walls 2 mm thick.
Everything printed was measured in this run, on simulated data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from qsm_nipype import reconstruct
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads
from qsm_nipype.volume import Volume, canonical, load, save

HEADS = (
    "procedural:911",
    "colin:912",
    "procedural:913:snr100:pathology",
    "colin:914:snr40:pathology",
    "procedural:915:tilted",
    "colin:916:snr100",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the maps that are missing, segment, print the table."""
    options = parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    limit_threads(options.threads)
    if options.chi:
        cases = [("given", (options.chi, options.mask, options.labels))]
    else:
        cases = [(head, prepared(head, options)) for head in options.heads]
    print(f"\n{'head':<33}{'Dice L':>8}{'Dice R':>8}{'HD95 L':>8}{'HD95 R':>8}", end="")
    print(f"{'mm³ L':>8}{'true':>7}{'mm³ R':>8}{'true':>7}{'Δχ L':>8}{'Δχ R':>8}", end="")
    print(f"{'wall s':>8}{'CPU s':>7}{'GB':>6}  status")
    rows = []
    for name, paths in cases:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a fresh process: own memory
            done = pool.apply(segmented, (*paths[:2], options.dentate_model, options.threads))
            pool.close()
            pool.join()  # else it is killed before it tidies up
        rows.append(score(name, done, paths))
    if len(rows) > 2:
        found = np.array([r["volume"] for r in rows]).T.ravel()
        true = np.array([r["true"] for r in rows]).T.ravel()
        mean = np.nanmean([r["dice"] for r in rows], axis=0)
        least = min(min(r["dice"]) for r in rows)
        print(f"mean Dice {mean[0]:.3f} / {mean[1]:.3f}, least {least:.3f}")
        print(f"volumes: r = {np.corrcoef(found, true)[0, 1]:.3f}, ", end="")
        print(f"mean error {100 * np.mean(found / true - 1):+.1f} %")


def parser() -> argparse.ArgumentParser:
    """Which heads, which model."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument(
        "--heads", nargs="+", default=HEADS, metavar="ANATOMY:SEED[:snrN][:tilted][:pathology]"
    )
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--dentate-model", help="nnU-Net v2 folder or zip")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--chi", type=Path, help="a map (ppm) instead of heads")
    made.add_argument("--mask", type=Path, help="its mask")
    made.add_argument("--labels", type=Path, help="its tissue labels")
    return made


def prepared(head: str, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """χ, its mask and the tissue labels of a head, as files in OUT."""
    stem = f"{head.replace(':', '-')}-{options.voxel_size:g}mm"
    paths = tuple(options.out / f"{stem}_{kind}.nii" for kind in ("chi", "mask", "labels"))
    if not all(path.exists() for path in paths):
        scan = simulated(head, options.voxel_size)
        like = Volume(scan.head.labels, scan.affine)
        for path, data in zip(paths, (*reconstructed(scan), scan.head.labels), strict=True):
            save(path, data, like)
    return paths  # type: ignore[return-value]


def simulated(head: str, voxel_size: float) -> Scan:
    """The scan that ANATOMY:SEED[:snrN][:tilted][:pathology] describes; SNR 60 by default."""
    anatomy, seed, *more = head.split(":")
    shape = tuple(2 * round(n / voxel_size / 2) for n in (180, 220, 180))
    snr = [float(word[3:]) for word in more if word.startswith("snr")]
    angles = (15.0, 5.0, 0.0) if "tilted" in more else (0.0, 0.0, 0.0)
    return simulate_subject(
        int(seed),
        shape=shape,  # type: ignore[arg-type]
        voxel_size=voxel_size,
        protocol=Protocol(snr=snr[0] if snr else 60.0, angles=angles),
        anatomy=anatomy,
        pathology="pathology" in more,
    )


def reconstructed(scan: Scan) -> tuple[torch.Tensor, torch.Tensor]:
    """χ (ppm, mean zero) and its mask from raw phase, by the pipeline's default steps."""
    maps = reconstruct(
        scan.phase,
        scan.magnitude,
        echo_times=scan.protocol.echo_times,
        b0=scan.protocol.b0,
        voxel_size=scan.head.voxel_size,
        b0_dir=scan.head.b0_dir,
    )
    return maps.chi, maps.mask_chi


def segmented(chi: Path, mask: Path, weights: str | None, threads: int) -> dict[str, Any]:
    """Labels in RAS+, with wall and CPU seconds and peak memory (GB) of the whole step."""
    limit_threads(threads)
    wall, cpu = time.perf_counter(), time.process_time()
    from qsm_nipype.models.dentate import segment
    from qsm_nipype.models.registry import read_nnunet

    volume, inside = canonical(load(chi))[0], canonical(load(mask))[0]
    found = segment(
        volume.data,
        inside.data > 0.5,
        volume.voxel_size,
        localiser=read_nnunet("cerebellum"),
        segmenter=read_nnunet("dentate", weights),
        mirrored=weights is None,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    spent = (time.perf_counter() - wall, time.process_time() - cpu, peak)
    return {"labels": found.labels, "status": found.status, "notes": found.notes, "cost": spent}


def truth_of(labels: np.ndarray) -> np.ndarray:
    """1 left, 2 right: the simulation's dentate label, parted at its middle (RAS+)."""
    nuclei = labels == lab.DENTATE
    middle = np.argwhere(nuclei)[:, 0].mean()
    right = np.arange(labels.shape[0])[:, None, None] > middle
    return np.where(nuclei, np.where(right, 2, 1), 0)


def score(name: str, done: dict[str, Any], paths: tuple[Path, ...]) -> dict[str, Any]:
    """Print a head's row and return its numbers."""
    chi, tissue = canonical(load(paths[0]))[0], canonical(load(paths[2]))[0]
    truth, labels = truth_of(tissue.data), done["labels"]
    size, row = chi.voxel_size, {"dice": [], "volume": [], "true": [], "distance": [], "chi": []}
    for side in (1, 2):
        a, b = labels == side, truth == side
        row["dice"].append(2 * (a & b).sum() / (a.sum() + b.sum()))
        row["volume"].append(a.sum() * np.prod(size))
        row["true"].append(b.sum() * np.prod(size))
        row["distance"].append(distance95(a, b, size) if a.any() else np.nan)
        row["chi"].append(chi.data[a].mean() - chi.data[b].mean() if a.any() else np.nan)
    (v, w), (t, u) = row["volume"], row["true"]
    wall, cpu, peak = done["cost"]
    print(f"{name:<33}{row['dice'][0]:>8.3f}{row['dice'][1]:>8.3f}", end="")
    print(f"{row['distance'][0]:>8.2f}{row['distance'][1]:>8.2f}", end="")
    print(f"{v:>8.0f}{t:>7.0f}{w:>8.0f}{u:>7.0f}", end="")
    print(f"{row['chi'][0]:>8.4f}{row['chi'][1]:>8.4f}", end="")
    print(f"{wall:>8.1f}{cpu:>7.1f}{peak:>6.2f}  {done['status']} {' '.join(done['notes'])}")
    return row


def distance95(a: np.ndarray, b: np.ndarray, size: Sequence[float]) -> float:
    """95th percentile of the distances (mm) between two surfaces, the larger of both ways."""
    surfaces = [m & ~binary_erosion(m) for m in (a, b)]
    far = [distance_transform_edt(~s, sampling=size) for s in surfaces]
    return float(
        max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95))
    )


if __name__ == "__main__":
    main()
