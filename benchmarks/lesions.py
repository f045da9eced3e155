"""Rim classification of whole simulated heads through the whole pipeline, and its time.

    python benchmarks/lesions.py OUT --heads 5

Each head is one that the training never saw, painted by another routine
(`simulation.pathology.ms_lesions`) than the training's lesions. It goes as a BIDS dataset with
FLAIR and lesion mask through `qsm-nipype … -d lesions=`; then every lesion of the table is
compared with the findings that were put in. Simulated data.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from qsm_nipype import cli
from qsm_nipype.simulation import heads
from qsm_nipype.simulation.dataset import write_description, write_scan
from qsm_nipype.simulation.pathology import ms_lesions
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads
from qsm_nipype.training import rim_scores as scores


def simulate(bids: Path, subject: str, seed: int, voxel_size: float) -> None:
    """One head with lesions as sub-SUBJECT, and which of its findings have a rim."""
    shape = tuple(2 * int(np.ceil(f / voxel_size / 2)) for f in (180.0, 220.0, 180.0))
    head = heads.procedural(seed, shape, voxel_size)
    head, findings = ms_lesions(head, np.random.default_rng(seed), count=30, rim_fraction=0.2)
    protocol = Protocol(contrasts=("FLAIR",))
    scan = simulate_subject(seed, voxel_size=voxel_size, protocol=protocol, head=head)
    write_scan(bids, subject, scan)
    np.save(bids.parent / f"sub-{subject}_instances.npy", head.instances)
    rims = {f.number: f.rim for f in findings}
    (bids.parent / f"sub-{subject}_rims.json").write_text(json.dumps(rims))


def compare(out: Path, subject: str) -> list[tuple[bool, float, bool]]:
    """Truth, probability and decision of every classified lesion of a subject."""
    anat = out / "derivatives" / f"sub-{subject}" / "anat"
    stem = anat / f"sub-{subject}_desc-lesions_dseg"
    labels = np.asanyarray(nib.load(f"{stem}.nii.gz").dataobj)
    truth = np.load(out / f"sub-{subject}_instances.npy")
    rims = {
        int(k): v for k, v in json.loads((out / f"sub-{subject}_rims.json").read_text()).items()
    }
    found = []
    with open(f"{stem}.tsv", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if row["rim"] == "n/a":
                continue
            inside = truth[labels == int(row["index"])]
            number = int(np.bincount(inside).argmax()) if inside.any() else 0
            found.append(
                (rims.get(number, 0) > 0, float(row["rim_probability"]), row["rim"] == "1")
            )
    return found


def time_fifty() -> tuple[float, float]:
    """Wall and CPU seconds for 50 lesions in a 1 mm head, registration not included."""
    from qsm_nipype.core.lesions import find_instances
    from qsm_nipype.models.registry import read_weights
    from qsm_nipype.models.rim import load_network
    from qsm_nipype.models.rim_table import classify

    rng = np.random.default_rng(0)
    shape = (180, 220, 180)
    chi = rng.normal(0, 0.02, shape).astype(np.float32)
    mask = np.zeros(shape, bool)
    for n in range(50):
        x, y, z = 30 + 25 * (n % 5), 30 + 30 * (n // 5 % 5), 50 + 60 * (n // 25)
        grid = np.indices((21, 21, 21)) - 10
        ball = (grid**2).sum(0) <= rng.uniform(2, 8) ** 2
        mask[x : x + 21, y : y + 21, z : z + 21] |= ball
    start = time.perf_counter(), time.process_time()
    instances = find_instances(mask, (1, 1, 1))
    classifier = load_network(read_weights("rim"))
    found = classify(chi, 1 + chi, np.ones(shape, bool), instances, np.eye(4), classifier,
                     min_volume=10.0)  # fmt: skip
    assert len(found.rows) == 50
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Simulate, process, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--voxel-size", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    limit_threads(options.threads)
    wall, cpu = time_fifty()
    print(f"50 lesions: {wall:.1f} s wall, {cpu:.1f} s CPU, {options.threads} threads", flush=True)
    if not options.heads:
        return
    bids = options.out / "bids"
    write_description(bids)
    subjects = [f"{n + 1:02d}" for n in range(options.heads)]
    for n, subject in enumerate(subjects):
        if not (options.out / f"sub-{subject}_rims.json").exists():
            simulate(bids, subject, options.seed + n, options.voxel_size)
    cli.main([
        str(bids), str(options.out / "derivatives"), "participant", "--skip-bids-validation",
        "-w", str(options.out / "work"), "--nprocs", str(options.threads),
        "-d", f"lesions={bids / 'derivatives' / 'truth'}",
    ])  # fmt: skip
    rows, counts = [], []
    for subject in subjects:
        found = compare(options.out, subject)
        rows += found
        counts.append((sum(t for t, _, _ in found), sum(p for _, _, p in found)))
        print(f"sub-{subject}: {len(found)} classified, {counts[-1][0]} with rim, "
              f"{counts[-1][1]} found", flush=True)  # fmt: skip
    labels, chance, decided = (np.array(c) for c in zip(*rows, strict=True))
    sensitivity, specificity = scores.sensitivity(labels, decided)
    print(f"lesions {labels.size}, with rim {labels.sum()}: "
          f"PR AUC {scores.average_precision(labels, chance):.3f}, "
          f"ROC AUC {scores.roc_auc(labels, chance):.3f}, "
          f"sensitivity {sensitivity:.2f}, specificity {specificity:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
