"""The pictures of one acquisition: which maps are drawn how, and what a reader looks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from qsm_nipype.report.figures import echoes, mosaic, png, three_planes
from qsm_nipype.report.sprites import Layer, Viewer, render_viewer
from qsm_nipype.report.styles import style_of

#: name → (style, mask that is drawn and cut by, what to look for), in the order of the page
PICTURES: dict[str, tuple[str, str, str]] = {
    "magnitude": (
        "magnitude",
        "mask",
        "The outline is the brain mask: it should hold the brain, no skull and no holes.",
    ),
    "residual": (
        "residual",
        "mask",
        "Bright voxels do not follow one field over the echoes: flow, noise, or a wrong wrap.",
    ),
    "total_field": (
        "total_field",
        "mask",
        "Should be smooth without jumps; steep only near the sinuses and ear canals.",
    ),
    "local_field": (
        "local_field",
        "mask_chi",
        "Dipole patterns around veins and nuclei; broad shading is background left over.",
    ),
    "chi": (
        "chi",
        "mask_chi",
        "Deep nuclei and veins bright; streaks or shading near edges call for caution.",
    ),
    "agreement": ("disagreement", "mask_chi", "Where the inversions disagree."),
    "r2star": ("r2star", "mask", "Iron-rich nuclei bright; signal loss near sinuses brighter."),
}
#: what is shown around the dentate nuclei, mm
_MARGIN = 12.0
#: maps of the slice viewer, the first shown first
VIEWED = ("chi", "magnitude", "local_field", "total_field", "r2star")


def draw(
    maps: Mapping[str, np.ndarray], affine: np.ndarray
) -> Iterator[tuple[str, str, str, bytes]]:
    """Name, title, caption and PNG of each picture that `maps` allows.

    `maps` holds volumes `(X, Y, Z)` by the names of `PICTURES` and their masks.
    """
    for name, (style_name, mask, caption) in PICTURES.items():
        if name in maps:
            style = style_of(style_name)
            figure = three_planes(
                maps[name], affine, mask=maps.get(mask), style=style, title=style.label
            )
            yield name, f"{style.label} ({style.window_text})", caption, png(figure)


def draw_phase(
    wrapped: np.ndarray,
    unwrapped: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    echo_times: Sequence[float],
) -> tuple[str, str, str, bytes]:
    """The phase of the echoes as measured and unwrapped; arguments as for `figures.echoes`."""
    figure = echoes(wrapped, affine, unwrapped=unwrapped, mask=mask, echo_times=echo_times)
    caption = "Above as measured, below unwrapped: no jump of 2π may be left inside the brain."
    return "phase", "Phase of the echoes", caption, png(figure)


def draw_dentate(
    labels: np.ndarray, box: np.ndarray, chi: np.ndarray, affine: np.ndarray
) -> tuple[str, str, str, bytes]:
    """The dentate nuclei (1 left, 2 right) on the map, inside the box that was searched."""
    shown = np.zeros(labels.shape, dtype=bool)
    where = np.argwhere(labels > 0 if labels.any() else box > 0.5)
    if len(where):
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        upwards = np.abs(affine[2, :3]) / steps > 0.7
        margin = np.ceil(np.where(upwards, 2.0, _MARGIN) / steps).astype(int)
        low, high = np.maximum(where.min(0) - margin, 0), where.max(0) + margin + 1
        shown[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    figure = mosaic(
        labels,
        affine,
        mask=shown if shown.any() else None,
        background=chi,
        style=style_of("chi"),
        count=10,
        title="Dentate nuclei",
        outlines=True,
    )
    caption = (
        "Outlines (left blue, right pink) should follow the bright folded bands and no vein."
        if labels.any()
        else "No dentate nucleus was found; see the warnings."
    )
    return "dentate", "Dentate nuclei", caption, png(figure)


def viewer(maps: Mapping[str, np.ndarray], affine: np.ndarray) -> Viewer:
    """Sheets of the slice viewer from those of `maps` that it shows."""
    layers = []
    for name in VIEWED:
        if name in maps:
            style = style_of(PICTURES[name][0])
            layers.append(Layer(name.replace("_", "-"), maps[name], style))
    return render_viewer(layers, affine, maps["mask"])
