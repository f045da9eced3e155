"""Deep grey nuclei of unseen simulated heads: Dice, surface distance, χ, volumes, time.

    python benchmarks/regions.py OUT --atlas FOLDER
    python benchmarks/regions.py OUT --atlas FOLDER --heads --fast 12

Each head's raw phase goes through the pipeline's default steps at 1 mm; the maps are kept in OUT,
so that another model is compared quickly. `--fast N` adds N neighbourhoods whose fields are made
and inverted directly. Shapes: formulas, AAL's (Colin27), CIT168's and, where the file is in
FOLDER, PD25's, which no training has seen. All that is printed was measured in this run, on
simulated data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from qsm_nipype import reconstruct
from qsm_nipype.core.deep_grey import KINDS, with_sides
from qsm_nipype.models import regions
from qsm_nipype.models.registry import read_nnunet
from qsm_nipype.simulation.colin import Sampled
from qsm_nipype.simulation.deep_grey import Shapes
from qsm_nipype.simulation.head import grid_affine
from qsm_nipype.simulation.scanner.acquire import acquire_realistic
from qsm_nipype.simulation.scanner.effects import chosen
from qsm_nipype.simulation.scanner.surroundings import with_surroundings
from qsm_nipype.simulation.signal import Protocol, acquire
from qsm_nipype.simulation.tissue import tissue_maps
from qsm_nipype.system.threads import limit_threads
from qsm_nipype.training.dentate_data import Case
from qsm_nipype.training.region_contrast import person_contrast
from qsm_nipype.training.region_data import Person, neighbourhood

#: Numbers of PD25's labels on the left → kind.
PD25 = {1: 6, 3: 7, 5: 8, 7: 1, 9: 2, 11: 3, 13: 4, 15: 5}
#: HEAD+SHAPES:SEED[:scanner]; "scanner" has the effects of a real one but half voxels.
HEADS = (
    "template+pd25:901",
    "colin+own:902",
    "template+pd25:903:scanner",
    "colin+own:904:scanner",
    "procedural+formulas:905:scanner",
)
#: Heads and shapes of `--fast`, in turn.
FAST = ("template+pd25", "colin+pd25", "colin+own", "procedural+formulas")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the maps that are missing, segment, print one table a head and one of all."""
    options = parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    limit_threads(options.threads)
    rows = []
    for head in options.heads:
        chi, mask, truth, brain = whole(head, options)
        start = time.perf_counter()
        found = regions.segment(
            chi,
            mask,
            (1.0, 1.0, 1.0),
            localiser=read_nnunet("regionsplace"),
            segmenter=read_nnunet("regions", options.regions_model),
            gains=gains_of(options),
        )
        spent = time.perf_counter() - start
        print(f"\n{head}: {found.status} in {spent:.1f} s {' '.join(found.warnings)}")
        rows += score(found.labels, truth, chi, brain)
    summary(rows, "heads through the whole chain")
    rows = []
    for number in range(options.fast):
        name = FAST[number % len(FAST)]
        case = near(name, 950 + number, options)
        middle = (np.array(case.chi.shape) - 1) / 2
        model = read_nnunet("regions", options.regions_model)
        kinds = regions.label_box(
            case.chi, middle, (1.0, 1.0, 1.0), model, "cpu", gains_of(options)
        )
        labels = regions.keep_nuclei(with_sides(kinds, (1, 1, 1)), (1, 1, 1))
        print(f"\n{name}:{950 + number}")
        rows += score(labels, with_sides(case.labels, (1, 1, 1)), case.chi, None)
    summary(rows, "neighbourhoods, inverted directly")


def parser() -> argparse.ArgumentParser:
    """Which heads, which model."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--atlas", type=Path, required=True, help="folder of CIT168 and PD25")
    made.add_argument("--heads", nargs="*", default=HEADS, metavar="HEAD+SHAPES:SEED[:scanner]")
    made.add_argument("--fast", type=int, default=0, metavar="N")
    made.add_argument("--regions-model", help="nnU-Net v2 folder or zip")
    made.add_argument("--threads", type=int, default=2)
    return made


def gains_of(options: argparse.Namespace) -> Sequence[float]:
    """Those of the shipped network; none for another."""
    return (1.0,) * len(KINDS) if options.regions_model else regions.GAINS


def person(name: str, seed: int, atlas: Path) -> Person:
    """The person of HEAD+SHAPES; PD25's shapes are painted like an atlas's."""
    head, source = name.split("+")
    if source == "pd25":
        return Person(seed, (head, "atlas"), atlas, load_pd25(atlas))
    return Person(seed, (head, source), atlas)


def load_pd25(folder: Path) -> Shapes:
    """The nuclei of PD25 (CC BY-NC-SA: for tests alone)."""
    image = nib.load(folder / "PD25_PD25-subcortical-1mm.nii.gz")
    data = np.pad(np.asarray(image.dataobj), 1)
    affine = np.asarray(image.affine).copy()
    affine[:3, 3] -= affine[:3, :3] @ np.ones(3)
    both = {kind: np.isin(data, (left, left + 1)) for left, kind in PD25.items()}
    return Shapes({k: Sampled(v.astype(np.float32), affine) for k, v in both.items()})


def whole(head: str, options: argparse.Namespace) -> tuple[np.ndarray, ...]:
    """χ through the default chain, its mask, the truth's labels, and the true χ; kept in OUT."""
    path = options.out / f"{head.replace(':', '-').replace('+', '-')}.npz"
    if not path.exists():
        name, seed, *more = head.split(":")
        effects = chosen("realistic", without=("finer",)) if "scanner" in more else ()
        protocol = Protocol(effects=effects, angles=(8.0, 3.0, 0.0), snr=60.0)
        shape, someone = (180, 220, 180), person(name, int(seed), options.atlas)
        rng = np.random.default_rng([int(seed), 3])
        body, kinds, points = someone.paint(shape, grid_affine(shape, 1.0, angles=protocol.angles))
        contrast, offset = person_contrast(kinds, points, body, rng)
        body = replace(body, chi_offset=offset)
        if effects:
            body = with_surroundings(body, rng)
        tissue = tissue_maps(body, rng, contrast=contrast)
        scan = (acquire_realistic if effects else acquire)(body, tissue, protocol, rng)
        maps = reconstruct(
            scan.phase,
            scan.magnitude,
            echo_times=protocol.echo_times,
            b0=protocol.b0,
            voxel_size=scan.head.voxel_size,
            b0_dir=scan.head.b0_dir,
        )
        kinds = np.where(kinds <= len(KINDS), kinds, 0)
        truth = scan.truth.chi - scan.truth.chi[maps.mask_chi.numpy() > 0.5].mean()
        np.savez_compressed(
            path,
            chi=maps.chi.numpy(),
            mask=maps.mask_chi.numpy() > 0.5,
            labels=with_sides(kinds, (1, 1, 1)),
            truth=truth.astype(np.float32),
        )
    with np.load(path) as data:
        return data["chi"], data["mask"], data["labels"], data["truth"]


def near(name: str, seed: int, options: argparse.Namespace) -> Case:
    """The neighbourhood of a person, kept in OUT."""
    path = options.out / f"near-{name.replace('+', '-')}-{seed}.npz"
    if not path.exists():
        np.savez_compressed(path, **vars(neighbourhood(person(name, seed, options.atlas))))
    with np.load(path) as data:
        return Case(data["chi"], data["labels"], float(data["voxel_size"]))


def score(
    labels: np.ndarray, truth: np.ndarray, chi: np.ndarray, true_chi: np.ndarray | None
) -> list[dict[str, float]]:
    """Print the kinds of a head, and return a row for each nucleus (1 mm voxels)."""
    true_chi = chi if true_chi is None else true_chi
    rows = []
    for kind, name in enumerate(KINDS):
        for side in (1, 2):
            a, b = labels == 2 * kind + side, truth == 2 * kind + side
            if not b.any():
                continue
            row = {"kind": kind, "volume": float(a.sum()), "true": float(b.sum())}
            row["dice"] = 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())
            row["hd95"] = distance95(a, b) if a.any() else np.nan
            row["same_map"] = 1e3 * float(chi[a].mean() - chi[b].mean()) if a.any() else np.nan
            row["chi"] = 1e3 * float(chi[a].mean()) if a.any() else np.nan
            row["true_chi"] = 1e3 * float(true_chi[b].mean())
            rows.append(row)
        own = [r for r in rows if r["kind"] == kind]
        text = " ".join(f"{r['dice']:.3f}" for r in own)
        print(f"  {name:<20}Dice {text}", end="  ")
        print(" ".join(f"χ {r['chi']:.0f} ({r['true_chi']:.0f})" for r in own))
    return rows


def summary(rows: list[dict[str, float]], title: str) -> None:
    """One line for each kind."""
    if not rows:
        return
    print(
        f"\n{title}\n{'nucleus':<22}{'Dice':>7}{'least':>7}{'HD95':>7}{'Δχ same map':>13}", end=""
    )
    print(f"{'|Δχ| median':>13}{'of it %':>9}{'r volume':>10}{'volume %':>10}")
    for kind, name in enumerate(KINDS):
        own = [r for r in rows if r["kind"] == kind]
        if not own:
            continue
        get = {key: np.array([r[key] for r in own]) for key in own[0]}
        away = get["chi"] - get["true_chi"]
        share = 100 * np.abs(away) / np.maximum(np.abs(get["true_chi"]), 1)
        print(f"{name:<22}{get['dice'].mean():>7.3f}{get['dice'].min():>7.3f}", end="")
        print(f"{np.nanmedian(get['hd95']):>7.2f}", end="")
        print(f"{np.nanmedian(np.abs(get['same_map'])):>13.1f}", end="")
        print(f"{np.nanmedian(np.abs(away)):>13.1f}{np.nanmedian(share):>9.1f}", end="")
        r = np.corrcoef(get["volume"], get["true"])[0, 1] if len(own) > 2 else np.nan
        print(f"{r:>10.3f}{100 * np.mean(get['volume'] / get['true'] - 1):>+10.1f}")


def distance95(a: np.ndarray, b: np.ndarray) -> float:
    """95th percentile of the distances (mm) between two surfaces, the larger of both ways."""
    where = np.argwhere(a | b)
    ends = zip(where.min(0), where.max(0), strict=True)
    box = tuple(slice(max(low - 2, 0), high + 3) for low, high in ends)
    surfaces = [m[box] & ~binary_erosion(m[box]) for m in (a, b)]
    far = [distance_transform_edt(~s) for s in surfaces]
    return float(
        max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95))
    )


if __name__ == "__main__":
    main()
