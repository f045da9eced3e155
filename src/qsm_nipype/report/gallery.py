"""The pictures of one acquisition: which maps are drawn how, and what a reader looks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsm_nipype import methods
from qsm_nipype.report.figures import echoes, mosaic, png, three_planes
from qsm_nipype.report.lesions import draw_rims
from qsm_nipype.report.nuclei import draw_deep_grey, nuclei_names
from qsm_nipype.report.styles import MapStyle, style_of
from qsm_nipype.report.volumes import Layer, Overlay, Viewer, render_viewer

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
    "r2prime": ("r2prime", "mask", "As R2*, and dark where R2 explains the decay."),
    "paramagnetic": (
        "paramagnetic",
        "mask_chi",
        "Iron: deep nuclei, veins, cortex; white matter dark. What else is bright is R2′ that "
        "fields near air have made.",
    ),
    "diamagnetic": (
        "diamagnetic",
        "mask_chi",
        "Myelin and calcium bright: white matter stands out, nuclei with iron do not.",
    ),
}
#: what is shown around the dentate nuclei, mm
_MARGIN = 12.0
#: maps of the slice viewer, the first shown first
VIEWED = ("chi", "magnitude", "local_field", "total_field", "r2star", "agreement")
#: regions that it outlines: map → (title, names of the labels)
OUTLINED: dict[str, tuple[str, dict[int, str]]] = {
    "mask": ("Brain mask", {}),
    "dentate": ("Dentate nuclei", {1: "left dentate nucleus", 2: "right dentate nucleus"}),
    "deepgrey": ("Deep grey nuclei", {}),
    "lesions": ("Lesions", {}),
}


def chi_labels(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names of the susceptibility maps, `chi`, `chi_tkd` …, and the inversions that made them.

    The label is empty where there is one map only: nothing needs telling apart.
    """
    inversions = [step for step in steps if step["step"] == "inversion"]
    if len(inversions) < 2:
        return {"chi": ""}
    names = ["chi", *(f"chi_{step['method']}" for step in inversions[1:])]
    return {
        name: str(step.get("label") or step["method"])
        for name, step in zip(names, inversions, strict=True)
    }


def _shown(
    names: Sequence[str], maps: Mapping[str, np.ndarray], chis: Mapping[str, str]
) -> Iterator[tuple[str, str, MapStyle]]:
    """Map, entry of `PICTURES` and style of those of `names` that are in `maps`, χ once each."""
    for name in names:
        for own in chis if name == "chi" else (name,):
            if own in maps:
                style = style_of(PICTURES[name][0])
                label = chis.get(own)
                yield own, name, replace(style, label=f"χ: {label}") if label else style


def draw(
    maps: Mapping[str, np.ndarray], affine: np.ndarray, chis: Mapping[str, str]
) -> Iterator[tuple[str, str, str, bytes]]:
    """Name, title, caption and PNG of each picture that `maps` allows.

    `maps` holds volumes `(X, Y, Z)` by the names of `PICTURES` and their masks, those of
    susceptibility by the names in `chis` (see `chi_labels`).
    """
    for name, kind, style in _shown(tuple(PICTURES), maps, chis):
        _, mask, caption = PICTURES[kind]
        figure = three_planes(
            maps[name], affine, mask=maps.get(mask), style=style, count=3, title=style.label
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
    labels: np.ndarray,
    box: np.ndarray,
    chi: np.ndarray,
    affine: np.ndarray,
    *,
    style: MapStyle | None = None,
) -> tuple[str, str, str, bytes]:
    """The dentate nuclei (1 left, 2 right) on the map, inside the box that was searched.

    `style` is that of χ by default; of another image on its grid its own.
    """
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
        style=style or style_of("chi"),
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


#: What to look for in susceptibility-weighted images and in their projections.
_WEIGHTED = {
    "swi": "Veins, iron and bleeds dark (calcium and myelin, where the method is diamagnetic).",
    "minip": "Veins should run on through the slices; blotches near the sinuses are lost signal.",
}


def draw_weighted(
    maps: Mapping[str, np.ndarray], affine: np.ndarray
) -> Iterator[tuple[str, str, str, bytes]]:
    """The images `swi_METHOD` and projections `minip_METHOD` of `maps`, axial."""
    for name in [n for n in maps if n.startswith(("swi_", "minip_"))]:
        kind, method = name.split("_", 1)
        title = f"{style_of(kind).label}: {methods.get('swi', method).label}"
        figure = mosaic(maps[name], affine, mask=maps["mask"], style=kind, count=8, title=title)
        yield name.replace("-", ""), title, _WEIGHTED[kind], png(figure)


#: what pictures show, by name; `planes` are all others
_SEEN = {
    "phase": "Central axial slice of each echo's phase, as measured above, unwrapped below",
    "dentate": "Axial slices of χ through the cerebellum, both dentate nuclei outlined",
    "deepgrey": "Axial slices of χ through the basal ganglia and midbrain, nuclei outlined",
    "rims": "Each lesion with a rim in χ and FLAIR, three planes, outlined",
    "weighted": "Eight axial slices",
    "veins": "Ten axial slices of χ, the veins outlined",
    "bleeds": "Ten axial slices of χ, the candidates outlined",
    "planes": "Three axial, three coronal and three sagittal slices through the brain",
}


#: What to look for in veins and in candidates for bleeds.
_OUTLINED = {
    "veins": ("Veins", "Outlines run along veins, from slice to slice, and around nothing else."),
    "bleeds": (
        "Candidates for bleeds and calcifications",
        "Numbered in the table beside the image: look at each, in the magnitude too. Bright are "
        "bleeds, dark calcifications; veins that end, and rests beside air, look like either.",
    ),
}


def draw_outlined(
    maps: Mapping[str, np.ndarray], affine: np.ndarray
) -> Iterator[tuple[str, str, str, bytes]]:
    """Veins and candidates for bleeds outlined on χ, those of `maps` that there are."""
    for name, (title, caption) in _OUTLINED.items():
        if name not in maps:
            continue
        labels = maps[name].astype(np.int32)
        figure = mosaic(
            labels if labels.any() else maps["chi"] * 0,
            affine,
            mask=maps["mask_chi"],
            background=maps["chi"],
            style=style_of("chi"),
            count=10,
            title=title,
            outlines=True,
        )
        yield name, title, caption if labels.any() else "None was found.", png(figure)


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its file's `desc-` is the name without underscores."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def alt(self) -> str:
        """What there is to see, for those who do not see it."""
        kind = self.name.split("_")[0].split("swi")[0].split("minip")[0]
        return _SEEN.get(kind or "weighted", _SEEN["planes"])


def draw_acquisition(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    chis: Mapping[str, str],
    echo_times: Sequence[float],
    lesions_table: str | None = None,
) -> list[Picture]:
    """Every picture that `maps` allows, in the order of the page.

    Beside what `draw` knows, `maps` may hold raw_phase and unwrapped (echoes last, rad), dentate
    and dentate_box, deepgrey, lesions and flair (with the text of the lesions' table), and what
    `draw_weighted` and `draw_outlined` take; `chis` as for `draw`.
    """
    drawn: list[tuple[str, str, str, bytes]] = [
        *draw(maps, affine, chis),
        *draw_weighted(maps, affine),
        *draw_outlined(maps, affine),
    ]
    if "raw_phase" in maps:
        phase = draw_phase(maps["raw_phase"], maps["unwrapped"], maps["mask"], affine, echo_times)
        drawn.insert(0, phase)
    if "dentate" in maps:
        drawn.append(draw_dentate(maps["dentate"], maps["dentate_box"], maps["chi"], affine))
    if "deepgrey" in maps:
        drawn.append(draw_deep_grey(maps["deepgrey"], maps["chi"], affine))
    if "lesions" in maps and lesions_table is not None:
        image, caption = draw_rims(
            maps["chi"], maps["flair"], maps["lesions"].astype(np.int32), lesions_table, affine
        )
        drawn.append(("rims", "Lesions with a paramagnetic rim", caption, image))
    return [Picture(*entry) for entry in drawn]


def viewer(maps: Mapping[str, np.ndarray], affine: np.ndarray, chis: Mapping[str, str]) -> Viewer:
    """Volumes of the viewer from those of `maps` that it shows; arguments as for `draw`."""
    layers = [
        Layer(
            name.replace("_", "-"),
            maps[name],
            style,
            mask=maps.get(PICTURES[kind][1]),
            over=kind == "agreement",
        )
        for name, kind, style in _shown(VIEWED, maps, chis)
    ]
    overlays = [
        Overlay(name, title, maps[name], nuclei_names() if name == "deepgrey" else names)
        for name, (title, names) in OUTLINED.items()
        if name in maps and np.any(maps[name])
    ]
    return render_viewer(layers, overlays, affine, maps["mask"])
