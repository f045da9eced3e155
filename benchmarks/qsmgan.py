"""The QSMGAN beside other inversions, on simulated heads that its training has not seen.

    python benchmarks/qsmgan.py table --head procedural --seed 31 --unet OUT/unet/best.pt
    python benchmarks/qsmgan.py bleeds --head colin --seed 33
    python benchmarks/qsmgan.py wrong-mask --picture wrong-mask.png

`table`: NRMSE, XSIM, HFEN (scorer qsm-ci), PSNR (peak: the truth's range in the mask), SSIM
(scikit-image, same range) and the slope of the deep grey nuclei at every noise level. `bleeds`:
how much of each microbleed's susceptibility against its surroundings is found. `wrong-mask`: what
each method changes inside the brain when the mask has holes and reaches beyond the brain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inversion import brain, methods, noisy_field, scores
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.models.qsmgan import load_network, qsmgan
from qsm_nipype.models.registry import read_weights
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.pathology import microbleeds
from qsm_nipype.simulation.tissue import random_contrast, tissue_maps
from qsm_nipype.system.threads import limit_threads

OTHERS = ("TKD", "Tikhonov", "ILSQR", "MEDI", "TV", "NonlinearTV")


def inversions(args: Any) -> dict[str, Any]:
    """Name → function of field, mask, voxel size, direction and optional noise map."""
    found: dict[str, Any] = {}
    for name in args.methods:
        invert = resolve(methods()[name])
        found[name] = lambda *case, f=invert, **more: f(
            *case, **accepted(f, b0=3.0, echo_time=0.02, **more)
        )
    networks = {"U-Net": args.unet, "QSMGAN": args.weights}
    for name, path in networks.items():
        if name == "U-Net" and path is None:
            continue
        generator = load_network(read_weights("qsmgan", path))
        found[name] = lambda *case, g=generator, **more: qsmgan(*case, generator=g, **more)
        if args.alone:
            found[f"{name}, network alone"] = lambda *case, g=generator, **more: qsmgan(
                *case, generator=g, consistency=float("inf"), **more
            )
    return found


def table(args: Any) -> None:
    """Print one row for each method and noise level."""
    data = brain(args.head, args.seed, args.voxel_size, 1.0)
    chi, mask = torch.from_numpy(data["chi"]), torch.from_numpy(data["mask"])
    size = [args.voxel_size] * 3
    print("| method | σ ppb | NRMSE % | XSIM | HFEN % | PSNR dB | SSIM | slope | wall s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for sigma in args.sigma:
        field = noisy_field(chi, mask, args, sigma / 1000)
        for name, invert in inversions(args).items():
            start = time.perf_counter()
            found = invert(field, mask, size, args.b0_dir).chi
            wall = time.perf_counter() - start
            row = scores(found, data) | pictures(found.numpy(), data["chi"], data["mask"])
            print(
                f"| {name} | {sigma:g} | {row['NRMSE']:.1f} | {row['XSIM']:.3f} "
                f"| {row['HFEN']:.1f} | {row['PSNR']:.1f} | {row['SSIM']:.3f} "
                f"| {row['slope']:.3f} | {wall:.1f} |",
                flush=True,
            )


def pictures(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (dB) and SSIM in the mask; the truth's range in the mask is the peak."""
    span = float(np.ptp(truth[mask]))
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    _, local = structural_similarity(truth[box], found[box], data_range=span, full=True)
    psnr = peak_signal_noise_ratio(truth[mask], found[mask], data_range=span)
    return {"PSNR": float(psnr), "SSIM": float(local[mask[box]].mean())}


def bleeds(args: Any) -> None:
    """Print the share of the bleeds' susceptibility that each method finds."""
    shape = tuple(round(n / args.voxel_size) for n in (176, 220, 187))
    head = heads.ANATOMIES[args.head](args.seed, shape, args.voxel_size)
    rng = np.random.default_rng(args.seed)
    head, findings = microbleeds(head, rng, count=args.count)
    chi = tissue_maps(head, rng, contrast=random_contrast(rng)).chi
    mask = head.brain & ~np.isin(head.labels, lab.AIR_LABELS)
    chi = torch.from_numpy(np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32))
    inside = torch.from_numpy(mask)
    print("| method | σ ppb | bleeds | right sign | share found: median (lowest) | all together |")
    print("|---|---|---|---|---|---|")
    for sigma in args.sigma:
        field = noisy_field(chi, inside, args, sigma / 1000)
        for name, invert in inversions(args).items():
            found = invert(field, inside, [args.voxel_size] * 3, args.b0_dir).chi.numpy()
            pairs = [
                [contrast(x, head.instances == f.number, mask) for x in (found, chi.numpy())]
                for f in findings
            ]
            got, true = np.array(pairs).T
            share = got / true
            print(
                f"| {name} | {sigma:g} | {share.size} | {np.count_nonzero(share > 0)} "
                f"| {np.median(share):.2f} ({share.min():.2f}) "
                f"| {got @ true / (true @ true):.2f} |",
                flush=True,
            )


def contrast(chi: np.ndarray, bleed: np.ndarray, mask: np.ndarray) -> float:
    """Mean χ (ppm) of the bleed against that 3 to 6 voxels around it."""
    near = ndimage.binary_dilation(bleed, iterations=3)
    far = ndimage.binary_dilation(near, iterations=3) & ~near & mask
    return float(chi[bleed].mean() - chi[far].mean())


def wrong_mask(args: Any) -> None:
    """Print the change that a wrong mask makes away from its faults, and draw it."""
    data = brain(args.head, args.seed, args.voxel_size, 1.0)
    chi, right = torch.from_numpy(data["chi"]), torch.from_numpy(data["mask"])
    field = dipole_field(chi, [args.voxel_size] * 3, args.b0_dir)
    generator = torch.Generator().manual_seed(1)
    field += 0.002 * torch.randn(field.shape, generator=generator)
    wrong, faulty = spoiled(data["mask"])
    calm = data["mask"] & ~ndimage.binary_dilation(faulty, iterations=5)
    case = ([args.voxel_size] * 3, args.b0_dir)
    maps = []
    print("| method | change by the wrong mask, % of χ (RMS) | NRMSE %, right mask | wrong mask |")
    print("|---|---|---|---|")
    for name, invert in inversions(args).items():
        one, two = (
            invert(torch.where(m, field, 0), m, *case).chi.numpy()
            for m in (right, torch.from_numpy(wrong))
        )
        errors = [error(x, data["chi"], calm) for x in (one, two)]
        change = np.std((two - one)[calm]) / np.std(data["chi"][calm])
        print(f"| {name} | {100 * change:.1f} | {errors[0]:.1f} | {errors[1]:.1f} |", flush=True)
        maps.append((name, two, np.where(calm, two - one, 0)))
    if args.picture:
        draw(args.picture, maps, data["chi"], wrong)


def spoiled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask with two holes, a flat cut and a rim of 3 voxels too many, and where it differs."""
    wrong = ndimage.binary_dilation(mask, iterations=3)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    x, y, z = ((s.start + s.stop) // 2 for s in box)
    for at in ((x - 25, y + 10, z + 10), (x + 20, y - 30, z)):
        wrong[tuple(slice(c - 5, c + 6) for c in at)] = False
    wrong[:, :, : box[2].start + 12] = False
    return wrong, wrong != mask


def error(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """NRMSE (%) where asked, without the means."""
    a, b = (x[where] - x[where].mean() for x in (found, truth))
    return float(100 * np.linalg.norm(a - b) / np.linalg.norm(b))


def draw(
    path: Path, maps: Sequence[tuple[str, Tensor, Tensor]], truth: np.ndarray, mask: np.ndarray
) -> None:
    """Sagittal slices: χ with the wrong mask above, its change below (±0.1 and ±0.05 ppm)."""
    from matplotlib.figure import Figure

    figure = Figure((2.6 * (len(maps) + 1), 5.6))
    axes = figure.subplots(2, len(maps) + 1)
    x = int(np.argmax(mask.sum((1, 2)))) - 25
    rows = [("truth", truth, mask * 1.0), *maps]
    for column, (name, chi, change) in zip(axes.T, rows, strict=True):
        limits = (0.1, 1.0 if name == "truth" else 0.05)
        for axis, volume, limit in zip(column, (chi, change), limits, strict=True):
            axis.imshow(volume[x].T, cmap="gray", vmin=-limit, vmax=limit, origin="lower")
            axis.axis("off")
        column[0].set_title(name, fontsize=10)
    axes[1, 0].set_title("wrong mask", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=["table", "bleeds", "wrong-mask"])
    parser.add_argument("--head", choices=["procedural", "colin"], default="procedural")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.5, 2.0, 5.0], help="ppb")
    parser.add_argument("--methods", nargs="*", choices=sorted(methods()), default=OTHERS)
    parser.add_argument("--weights", help="of the QSMGAN (the shipped ones)")
    parser.add_argument("--unet", help="weights of the U-Net before its refinement")
    parser.add_argument("--alone", action="store_true", help="networks without consistency too")
    parser.add_argument("--count", type=int, default=20, help="microbleeds")
    parser.add_argument("--b0-dir", nargs=3, type=float, default=[0.0, 0.0, 1.0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="PNG of the wrong mask's effect")
    args = parser.parse_args(argv)
    limit_threads(args.threads)
    {"table": table, "bleeds": bleeds, "wrong-mask": wrong_mask}[args.experiment](args)


if __name__ == "__main__":
    main()
