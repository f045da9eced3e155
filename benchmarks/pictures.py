"""The same slices of one simulated head by every method: the pictures of the documentation.

    nice -n 10 python benchmarks/pictures.py docs/pictures --anatomy colin

Writes `masks.jpg`, `background.jpg` and `inversion.jpg`. Every panel has the NRMSE against the
truth inside its own mask; a row of errors lies below each row of maps. From raw phase, with the
pipeline's own steps before the one that is shown. Simulated data, with all effects of the scanner.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from chains import acquired, front_end, parser, raw
from matplotlib.figure import Figure
from torch import Tensor

from qsm_nipype import chain, methods
from qsm_nipype.core.background import LocalField
from qsm_nipype.models.registry import shipped
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.threads import limit_threads

#: Masks shown: by themselves, and the default.
MASKS = ("magnitude", "brain", "quality", Settings.mask)
#: Panels in a row; widths in inches.
COLUMNS, PANEL = 5, 1.7

#: Title, map, error (or None) of one panel.
Panel = tuple[str, np.ndarray, np.ndarray | None]


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate one head, make every map, draw."""
    made = parser()
    made.description, made.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    made.add_argument("out", type=Path, help="folder of the pictures")
    made.add_argument("--only", nargs="+", default=["masks", "background", "inversion"])
    made.set_defaults(voxel_size=1.5, seed=41)
    options = made.parse_args(argv)
    limit_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    scan = simulate_subject(
        options.seed,
        shape=shape,  # type: ignore[arg-type]
        voxel_size=options.voxel_size,
        anatomy=options.anatomy,
        protocol=Protocol(b0=options.b0, snr=options.snr[0], effects=tuple(EFFECTS)),
    )
    whole = raw(scan)
    if "masks" in options.only:
        draw(options.out / "masks.jpg", masks(whole), window=1.0, errors=False, cut=side)
    if options.only == ["masks"]:
        return
    data = front_end(whole)
    names = methods.names("background") if "background" in options.only else [Settings.background]
    removed = {name: remove(data, name) for name in names}
    if "background" in options.only:
        draw(options.out / "background.jpg", fields(data, removed), window=0.05)
    if "inversion" in options.only:
        draw(options.out / "inversion.jpg", maps(data, removed[Settings.background]), window=0.12)


def remove(data: dict[str, Any], name: str) -> LocalField:
    """The local field by one method."""
    case = data["field"], data["mask"], acquired(data)
    return chain.remove_background(*case, field_noise=data["noise"], method=name)


def masks(whole: dict[str, Any]) -> list[Panel]:
    """The magnitude, with each mask bright in it."""
    given = acquired(whole)
    _, unwrapped, _ = chain.map_field(whole["phase"], whole["magnitude"], given)
    image = whole["magnitude"][..., 0]
    grey = (image / image[whole["brain"]].quantile(0.98)).numpy()
    panels: list[Panel] = [("the brain (truth)", shaded(grey, whole["brain"]), None)]
    for method in MASKS:
        mask = chain.make_mask(whole["magnitude"], unwrapped.quality, given, method=method)
        both = float((mask & whole["brain"]).sum())
        dice = 2 * both / float(mask.sum() + whole["brain"].sum())
        panels.append((f"{method}, Dice {dice:.2f}", shaded(grey, mask), None))
    return panels


def shaded(grey: np.ndarray, mask: Tensor) -> np.ndarray:
    """An image that is dim outside the mask, between −1 and 1."""
    return 2 * np.clip(grey, 0, 1) * np.where(mask.numpy(), 1.0, 0.3) - 1


def fields(data: dict[str, Any], removed: dict[str, LocalField]) -> list[Panel]:
    """The true local field and that of every background method."""
    truth = data["local"] * data["mask"]
    panels: list[Panel] = [("truth", truth.numpy(), None)]
    for name, found in removed.items():
        panels.append(panel(name, found.field, truth, found.mask))
    return panels


def maps(data: dict[str, Any], local: LocalField) -> list[Panel]:
    """True χ and that of every inversion for which there are weights."""
    mask = local.mask
    inside = mask & data["brain"]
    truth = centred(data["chi"], inside)
    panels: list[Panel] = [("truth", (truth * mask).numpy(), None)]
    for name in methods.names("inversion"):
        method = methods.get("inversion", name)
        if method.network is not None and not shipped(method.network):
            continue
        total = method.from_total_field
        solution = chain.invert(
            data["field"] if total else local.field,
            data["mask"] if total else mask,
            acquired(data),
            region=data["mask"],
            field_noise=data["noise"],
            magnitude=data["magnitude"],
            method=name,
        )
        panels.append(panel(name, centred(solution.chi, inside), truth, inside))
        print(panels[-1][0], flush=True)
    return panels


def centred(chi: Tensor, inside: Tensor) -> Tensor:
    """χ relative to its mean."""
    return chi - chi[inside].mean()


def panel(name: str, found: Tensor, truth: Tensor, mask: Tensor) -> Panel:
    """A map, its error, and the error in % of the truth inside `mask`."""
    wrong = (found - truth) * mask
    share = float(100 * wrong[mask].norm() / (truth[mask] - truth[mask].mean()).norm())
    return f"{name}, {share:.0f} %", (found * mask).numpy(), wrong.numpy()


def above(image: np.ndarray) -> np.ndarray:
    """The axial slice through the nuclei, front up."""
    return np.rot90(image[:, :, int(0.48 * image.shape[2])])


def side(image: np.ndarray) -> np.ndarray:
    """A sagittal slice beside the middle, where orbit and skull base are seen."""
    return np.rot90(image[int(0.6 * image.shape[0])])


def draw(
    path: Path,
    panels: Sequence[Panel],
    *,
    window: float,
    errors: bool = True,
    cut: Callable[[np.ndarray], np.ndarray] = above,
) -> None:
    """One slice of every map in rows of `COLUMNS`, errors below, as JPEG."""
    rows = -(-len(panels) // COLUMNS)
    each = 2 if errors else 1
    shown = [cut(image) for _, image, _ in panels]
    height = PANEL * shown[0].shape[0] / shown[0].shape[1]
    figure = Figure((COLUMNS * PANEL, rows * each * (height + 0.2)), facecolor="white")
    axes = figure.subplots(rows * each, COLUMNS, squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for number, (title, image, wrong) in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        axes[each * row, column].set_title(title, fontsize=8, pad=2)
        limits = {"cmap": "gray", "vmin": -window, "vmax": window}
        axes[each * row, column].imshow(cut(image), **limits)
        if wrong is not None:
            axes[each * row + 1, column].imshow(cut(wrong), **limits)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, wspace=0.02, hspace=0.12)
    figure.savefig(path, dpi=130, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
