"""The page's table of nuclei: what was measured, and what was published for this age."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from qsm_nipype.record import AcquisitionRecord
from qsm_nipype.report.figures import mosaic, png
from qsm_nipype.report.styles import style_of

#: What is shown around the nuclei, mm.
_MARGIN = 14.0
_PARTS = ("external pallidum", "internal pallidum")


@dataclass(frozen=True)
class NucleusRow:
    """One nucleus of both sides: means of χ (ppb), volumes (mm³), their asymmetry (%), iron."""

    name: str
    left: str
    right: str
    left_volume: str
    right_volume: str
    asymmetry: str
    iron: str
    expected: str


@dataclass(frozen=True)
class NucleiTable:
    """The rows, the age in words, and where the published values come from."""

    rows: tuple[NucleusRow, ...]
    age: str
    source: str


@lru_cache(maxsize=1)
def published() -> Mapping[str, Any]:
    """The content of data/nuclei.yml."""
    text = (resources.files("qsm_nipype.data") / "nuclei.yml").read_text(encoding="utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found


@lru_cache(maxsize=1)
def nuclei_names() -> Mapping[int, str]:
    """Number → name of the deep grey nuclei, as data/derivatives.yml has them."""
    text = (resources.files("qsm_nipype.data") / "derivatives.yml").read_text(encoding="utf-8")
    found: Mapping[int, str] = yaml.safe_load(text)["deepgrey"]["labels"]
    return found


def iron_at(kind: str, age: float | None) -> tuple[float, float | None] | None:
    """Published iron (mg/100 g) of a kind of nucleus at an `age` (years), and its SD if given.

    None where nothing was published for it, or no curve can be read without an age or before 30.
    """
    row = published()["iron"].get(kind)
    if row is None:
        return None
    if "final" in row:
        if age is None:
            return None
        return row["final"] * (1 - math.exp(-row["rate"] * age)) + row["birth"], None
    return None if age is not None and age < 30 else (row["mean"], row["sd"])


def nuclei_table(record: AcquisitionRecord) -> NucleiTable | None:
    """The table of a record whose deep grey nuclei were found; None without them."""
    steps = [s for s in record.steps if s.step == "segmentation" and s.method == "deepgrey"]
    found = {row["name"]: row for s in steps for row in s.record.get("nuclei", [])}
    if not found:
        return None
    found |= _whole_pallidum(found)
    kinds = dict.fromkeys(name.split(" ", 1)[1] for name in found)
    rows = tuple(_row(kind, found, record.age) for kind in sorted(kinds, key=_place))
    age = "not known" if record.age is None else f"{record.age:.3g} years"
    return NucleiTable(rows, age, " ".join(published()["source"].split()))


_ORDER = ("caudate nucleus", "putamen", "pallidum", *_PARTS, "thalamus", "red nucleus")


def _place(kind: str) -> tuple[int, str]:
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind)


def _whole_pallidum(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Volume and mean of both parts together, of each side that has both."""
    whole = {}
    for side in ("left", "right"):
        parts = [found[f"{side} {p}"] for p in _PARTS if f"{side} {p}" in found]
        if len(parts) == len(_PARTS):
            volume = sum(p["volume"] for p in parts)
            mean = sum(p["volume"] * p["mean"] for p in parts) / volume
            whole[f"{side} pallidum"] = {"volume": volume, "mean": mean}
    return whole


def _row(kind: str, found: Mapping[str, Mapping[str, Any]], age: float | None) -> NucleusRow:
    left, right = (found.get(f"{side} {kind}") for side in ("left", "right"))
    asymmetry = "n/a"
    if left and right:
        share = 200 * (left["volume"] - right["volume"]) / (left["volume"] + right["volume"])
        asymmetry = _signed(share, 0)
    iron = iron_at(kind, age)
    expected = "n/a" if iron is None else _signed(published()["ppb_per_iron"] * iron[0], 0)
    means = [_signed(1e3 * side["mean"], 0) if side else "n/a" for side in (left, right)]
    volumes = [f"{side['volume']:.0f}" if side else "n/a" for side in (left, right)]
    return NucleusRow(
        name=kind.capitalize(),
        left=means[0],
        right=means[1],
        left_volume=volumes[0],
        right_volume=volumes[1],
        asymmetry=asymmetry,
        iron="n/a" if iron is None else _with_sd(*iron),
        expected=expected,
    )


def _with_sd(value: float, sd: float | None) -> str:
    return f"{value:.1f}" + ("" if sd is None else f" ± {sd:.1f}")


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def draw_deep_grey(
    labels: np.ndarray, chi: np.ndarray, affine: np.ndarray
) -> tuple[str, str, str, bytes]:
    """Name, title, caption and PNG of the nuclei's outlines on χ, slices through all of them."""
    shown = np.zeros(labels.shape, dtype=bool)
    where = np.argwhere(labels > 0)
    if len(where):
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        upwards = np.abs(affine[2, :3]) / steps > 0.7
        margin = np.ceil(np.where(upwards, 1.0, _MARGIN) / steps).astype(int)
        low, high = np.maximum(where.min(0) - margin, 0), where.max(0) + margin + 1
        shown[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    figure = mosaic(
        _as_kinds(labels),
        affine,
        mask=shown if shown.any() else None,
        background=chi,
        style=style_of("chi"),
        count=14,
        title="Deep grey nuclei",
        outlines=True,
    )
    caption = (
        "Outlines of caudate nucleus, putamen, pallidum (two parts), thalamus, red nucleus, "
        "substantia nigra and subthalamic nucleus; they should follow the edges on χ."
        if labels.any()
        else "No deep grey nuclei were found; see the warnings."
    )
    return "deepgrey", "Deep grey nuclei", caption, png(figure)


def _as_kinds(labels: np.ndarray) -> np.ndarray:
    """One number for both sides, so that a nucleus has one colour."""
    return (labels.astype(np.int32) + 1) // 2
