"""The picture of an acquisition's lesions with a paramagnetic rim."""

from __future__ import annotations

import csv
import io

import numpy as np
from matplotlib.figure import Figure

from qsm_nipype.report.display import PLANES, Upright, upright
from qsm_nipype.report.figures import png
from qsm_nipype.report.layout import GROUND, INK, OUTLINE

#: edge of a thumbnail in mm; how many lesions are drawn at most, and side by side
EDGE, LARGEST_COUNT, PER_ROW = 30.0, 12, 2
WINDOW = (-0.1, 0.15)  # ppm, of χ


def draw_rims(
    chi: np.ndarray, flair: np.ndarray, instances: np.ndarray, table: str, affine: np.ndarray
) -> tuple[bytes, str]:
    """PNG and caption: χ and FLAIR of each rim lesion in three planes, the likeliest first.

    `table` is the text of `*_desc-lesions_dseg.tsv`; volumes `(X, Y, Z)` share `affine`.
    """
    rows = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
    rims = sorted((r for r in rows if r["rim"] == "1"), key=lambda r: -float(r["rim_probability"]))
    judged = sum(r["rim"] != "n/a" for r in rows)
    caption = f"{len(rims)} of {judged} classified lesions have a paramagnetic rim"
    caption += f" ({len(rows)} lesions in all). " if len(rows) != judged else ". "
    if not rims:
        figure = Figure(figsize=(10.4, 0.9), dpi=110, facecolor=GROUND)
        figure.text(0.5, 0.5, caption.strip(), color=INK, size=10, ha="center", va="center")
        return png(figure), caption.strip()
    shown = rims[:LARGEST_COUNT]
    if len(rims) > len(shown):
        caption += f"The {len(shown)} likeliest are drawn. "
    caption += "Susceptibility (−0.1 to 0.15 ppm) and FLAIR in three planes; lesion outlined."
    volumes = [upright(np.asarray(v), affine) for v in (chi, flair, instances)]
    height = -(-len(shown) // PER_ROW)
    figure = Figure(figsize=(10.4, 0.98 * height), dpi=110, facecolor=GROUND)
    top = float(np.percentile(flair[flair > 0], 99.5)) if (flair > 0).any() else 1.0
    for place, row in enumerate(shown):
        _draw_one(figure, volumes, row, (place, height), top)
    return png(figure), caption


def _draw_one(
    figure: Figure,
    volumes: list[Upright],
    row: dict[str, str],
    place: tuple[int, int],
    top: float,
) -> None:
    """Six thumbnails of one lesion with its label and probability."""
    number, height = place
    column, line = number % PER_ROW, number // PER_ROW
    body = volumes[2].data == int(row["index"])
    if not body.any():
        return
    center = np.round(np.argwhere(body).mean(0)).astype(int)
    width = 1 / (6 * PER_ROW)
    for kind, (low, high) in enumerate((WINDOW, (0.0, top))):
        for axis, plane in enumerate(PLANES):
            left = column / PER_ROW + (3 * kind + axis) * width
            box = (left + 0.001, 1 - (line + 0.98) / height, width - 0.002, 0.84 / height)
            axes = figure.add_axes(box)
            picture = _thumbnail(volumes[kind], plane, center)
            outline = _thumbnail(Upright(body, volumes[2].affine), plane, center) > 0.5
            tall, wide = volumes[kind].pixel_size(plane)[::-1]
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=tall / wide)
            if outline.any() and kind == 1:
                axes.contour(outline.astype(float), [0.5], colors=OUTLINE, linewidths=0.7)
            axes.set_axis_off()
    text = f"{row['index']}: {float(row['rim_probability']):.2f}, {row['volume_mm3']} mm³"
    figure.text(
        column / PER_ROW + 0.004, 1 - (line + 0.01) / height, text, color=INK, size=7, va="top"
    )


def _thumbnail(volume: Upright, plane: str, center: np.ndarray) -> np.ndarray:
    """A square of `EDGE` mm of one plane through `center` (voxel), zero outside the volume."""
    half = [max(1, round(EDGE / 2 / s)) for s in volume.voxel_size]
    cube = np.zeros([2 * h + 1 for h in half], np.float32)
    low = [max(c - h, 0) for c, h in zip(center, half, strict=True)]
    high = [min(c + h + 1, n) for c, h, n in zip(center, half, volume.data.shape[:3], strict=True)]
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(
        slice(a - c + h, b - c + h) for a, b, c, h in zip(low, high, center, half, strict=True)
    )
    cube[target] = volume.data[source]
    middle = half[("sagittal", "coronal", "axial").index(plane)]
    return Upright(cube, volume.affine).slice(plane, middle)
