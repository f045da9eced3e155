"""A measured local field, every inversion: a page of pictures, and numbers that need no truth.

    nice -n 10 python benchmarks/invivo.py OUT --data ../shared/data/invivo_2016
    python benchmarks/invivo.py OUT --methods whtv tv tkd

`--data` holds `localfield.nii.gz` (ppm, B0 along its third axis) and `mask.nii.gz`. Each map is
kept in OUT, so that a run goes on where another stopped (another OUT for other defaults);
`page.png` shows the field and each method (axial through the nuclei, coronal, sagittal, −0.15 to
0.15 ppm; the second axis of that data leads backwards, whatever its header says), `numbers.md`
the table. No truth is used. The data may not be passed on: keep OUT outside the repository.

Streaks: power at the cone D(k) = 0 over that of its neighbourhood; below 1 it was emptied. Noise:
1.48 × median deviation from the 3 × 3 × 3 median. Agreement: correlation with, and slope on, the
voxel-wise median of all methods. Nuclei: the largest bright parts of that median within 35 mm of
the brain's middle, as `x, y, z` in voxels (pallidum with putamen first).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy import ndimage

from qsm_nipype import methods
from qsm_nipype.commands.stage import REGION_MARGIN
from qsm_nipype.core.morphology import dilate
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.simulation.reader_scores import streaks
from qsm_nipype.system.threads import limit_threads
from qsm_nipype.volume import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt

B0, ECHO_TIME = 3.0, 0.025
#: ppm from black to grey, methods beside each other on the page
RANGE, COLUMNS = 0.15, 2


def main(argv: Sequence[str] | None = None) -> None:
    """Invert, draw, print."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    volume = load(options.data / "localfield.nii.gz")
    mask = load(options.data / "mask.nii.gz").data > 0.5
    edges = tuple(float(v) for v in np.linalg.norm(volume.affine[:3, :3], axis=0))
    maps = {}
    for name in options.methods or methods.names("inversion"):
        method = methods.get("inversion", name)
        if method.from_total_field or (method.network is not None and not options.networks):
            continue
        path = options.out / f"{name}.npy"
        if not path.exists():
            start = time.perf_counter()
            chi = inverted(name, np.where(mask, volume.data, 0), mask, edges)
            np.save(path, chi.astype(np.float32))
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        maps[name] = np.load(path)
    middle = np.median(np.stack(list(maps.values())), axis=0)
    places = bright_parts(middle, mask, edges)
    text = table(maps, middle, mask, edges, places)
    (options.out / "numbers.md").write_text(text)
    print(text)
    field = np.where(mask, volume.data, 0)
    page(maps, field, mask, places, not options.forwards, options.out / "page.png")


def parser() -> argparse.ArgumentParser:
    """Where, and which methods."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--data", type=Path, default=Path("../shared/data/invivo_2016"))
    made.add_argument("--methods", nargs="+", choices=methods.names("inversion"))
    made.add_argument("--networks", action="store_true", help="also methods with weights")
    made.add_argument("--forwards", action="store_true", help="the second axis leads to the front")
    made.add_argument("--threads", type=int, default=2)
    return made


def inverted(name: str, field: np.ndarray, mask: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """χ with the method's automatic settings, without mean in the mask."""
    invert = resolve(methods.get("inversion", name).function)
    inside = torch.from_numpy(mask)
    region = dilate(inside, edges, REGION_MARGIN)
    known = {"b0": B0, "echo_time": ECHO_TIME, "region": region}
    found = invert(
        torch.from_numpy(field.astype(np.float32)), inside, edges,
        (0.0, 0.0, 1.0), **accepted(invert, **known),
    )  # fmt: skip
    chi = found.chi.numpy()
    return np.where(mask, chi - chi[mask].mean(), 0)


def bright_parts(
    chi: np.ndarray, mask: np.ndarray, edges: Sequence[float], count: int = 6
) -> list[np.ndarray]:
    """The largest parts above 0.06 ppm in the middle of the brain: pallidum, putamen, nigra …"""
    smooth = ndimage.gaussian_filter(chi, 0.7)
    middle = np.array(ndimage.center_of_mass(mask))
    at = (np.indices(mask.shape).T - middle).T * np.reshape(edges, (3, 1, 1, 1))
    near = (np.linalg.norm(at, axis=0) < 35) & mask
    found, _ = ndimage.label((smooth > 0.06) & near)
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    return [found == n for n in np.argsort(-sizes)[:count] if sizes[n] > 50]


def table(
    maps: Mapping[str, np.ndarray],
    middle: np.ndarray,
    mask: np.ndarray,
    edges: Sequence[float],
    places: Sequence[np.ndarray],
) -> str:
    """Markdown: one row for each method."""
    where = [tuple(int(c) for c in ndimage.center_of_mass(p)) for p in places]
    titles = ["method", "SD ppb", "noise ppb", "streaks", "r", "slope"]
    titles += [f"({x}, {y}, {z}) ppb" for x, y, z in where]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name, chi in {**maps, "median": middle}.items():
        fine = (chi - ndimage.median_filter(chi, 3))[ndimage.binary_erosion(mask, iterations=2)]
        noise = 1.4826 * np.median(np.abs(fine))
        a, b = middle[mask], chi[mask]
        values = [f"{1000 * b.std():.0f}", f"{1000 * noise:.1f}"]
        values += [f"{streaks(chi, mask, edges, (0.0, 0.0, 1.0)):.2f}"]
        values += [f"{np.corrcoef(a, b)[0, 1]:.3f}", f"{np.polyfit(a, b, 1)[0]:.2f}"]
        values += [f"{1000 * chi[p].mean():.0f}" for p in places]
        lines.append("| " + " | ".join([name, *values]) + " |")
    return "\n".join(lines) + "\n"


def page(
    maps: Mapping[str, np.ndarray],
    field: np.ndarray,
    mask: np.ndarray,
    places: Sequence[np.ndarray],
    backwards: bool,
    path: Path,
) -> None:
    """Three cuts of the field and of each method, cropped to the mask, the front up or left."""
    centre = ndimage.center_of_mass(places[0] if places else mask)
    middle = ndimage.center_of_mass(mask)
    x, y, z = round(middle[0]) + 6, round(middle[1]), round(centre[2])
    around = [(max(s.start - 2, 0), s.stop + 2) for s in ndimage.find_objects(mask.astype(int))[0]]
    sides = [slice(a, b) for a, b in around]
    shown = {"local field (±0.05 ppm)": 3 * field, **maps}
    rows = -(-len(shown) // COLUMNS)
    figure, axes = plt.subplots(
        rows, 3 * COLUMNS, figsize=(5.4 * COLUMNS, 2.1 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, (name, volume) in enumerate(shown.items()):
        row, first = number // COLUMNS, 3 * (number % COLUMNS)
        cuts = volume[sides[0], sides[1], z], volume[sides[0], y, sides[2]]
        ahead = -1 if backwards else 1
        axial, sagittal = cuts[0][:, ::ahead], volume[x, sides[1], sides[2]][::-ahead]
        for offset, cut in enumerate((axial, cuts[1], sagittal)):
            axes[row, first + offset].imshow(np.rot90(cut), cmap="gray", vmin=-RANGE, vmax=RANGE)
        axes[row, first].set_title(name, fontsize=9, loc="left", pad=2)
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
