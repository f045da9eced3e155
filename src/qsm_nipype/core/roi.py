"""Statistics of maps in regions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BRAIN = "brain"
_NOTHING = float("nan")
#: How names give the side; the first group is what they share with the other side's name.
_SIDES = (
    re.compile(r"^(?P<side>left|right|lh|rh|l|r)(?P<rest>[-_ .].+)$", re.I),
    re.compile(r"^(?P<rest>.+[-_ .])(?P<side>left|right|lh|rh|l|r)$", re.I),
    re.compile(r"^(?P<rest>.*[-_ .])(?P<side>left|right|lh|rh)(?P<tail>[-_ .].*)$", re.I),
)


@dataclass(frozen=True)
class Region:
    """A map in a region.

    `volume` (mm³) is that of the whole region, `voxels` and `coverage` (0 to 1) the part of it
    where the map is known; everything else is measured there, in the map's unit. `sd` is the
    standard deviation of the sample (n − 1). What cannot be known is NaN.
    """

    voxels: int = 0
    volume: float = 0.0
    coverage: float = 0.0
    mean: float = _NOTHING
    sd: float = _NOTHING
    median: float = _NOTHING
    p5: float = _NOTHING
    p25: float = _NOTHING
    p75: float = _NOTHING
    p95: float = _NOTHING
    minimum: float = _NOTHING
    maximum: float = _NOTHING


def region(
    values: np.ndarray,
    known: np.ndarray,
    voxel_volume: float,
    weights: np.ndarray | None = None,
) -> Region:
    """Statistics of the voxels `values` `(N,)` of one region, where `known` (N, bool).

    `weights` (N, 0 to 1) are shares of the voxels that lie in the region: the volume is their sum
    times `voxel_volume` (mm³), mean, SD and percentiles are weighted. Without, all are one.
    """
    share = np.ones(values.shape) if weights is None else np.asarray(weights, dtype=float)
    seen = known & np.isfinite(values) & (share > 0)
    volume = float(share.sum() * voxel_volume)
    x, w = np.asarray(values, dtype=float)[seen], share[seen]
    if not x.size:
        return Region(0, volume, 0.0)
    total = float(w.sum())
    mean = float((w * x).sum() / total)
    spread = float((w * (x - mean) ** 2).sum())
    freedom = total - float((w**2).sum()) / total  # n − 1 without weights
    low, quarter, middle, three, high = quantiles(x, w, (5, 25, 50, 75, 95))
    return Region(
        voxels=int(x.size),
        volume=volume,
        coverage=total / float(share.sum()),
        mean=mean,
        sd=(spread / freedom) ** 0.5 if freedom > 1e-9 else _NOTHING,
        median=middle,
        p5=low,
        p25=quarter,
        p75=three,
        p95=high,
        minimum=float(x.min()),
        maximum=float(x.max()),
    )


def quantiles(x: np.ndarray, weights: np.ndarray, percentiles: Sequence[float]) -> list[float]:
    """Weighted percentiles; with equal weights those of `np.percentile` (linear)."""
    order = np.argsort(x, kind="stable")
    sorted_x, w = x[order], weights[order]
    before = np.cumsum(w) - w
    span = before[-1] + 0.0
    if span <= 0:
        return [float(sorted_x[0])] * len(percentiles)
    return [float(np.interp(p / 100 * span, before, sorted_x)) for p in percentiles]


def statistics(
    labels: np.ndarray,
    names: Mapping[int, str],
    values: np.ndarray,
    known: np.ndarray,
    voxel_volume: float,
) -> Iterator[tuple[int, str, Region]]:
    """Index, name and statistics of each region of `labels` (X, Y, Z, integers; 0 is none).

    `values` (X, Y, Z) is the map, `known` (bool) where it was computed, `voxel_volume` in mm³.
    Regions that `names` lists and `labels` lacks come with volume 0, those that only `labels`
    has as "region 7".
    """
    flat = labels.ravel()
    places = np.flatnonzero(flat)
    order = places[np.argsort(flat[places], kind="stable")]
    found, starts = np.unique(flat[order], return_index=True)
    parts = (
        dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(found) else {}
    )
    for index in sorted({*names, *parts} - {0}):
        where = parts.get(index, np.empty(0, dtype=int))
        own = region(values.ravel()[where], known.ravel()[where], voxel_volume)
        yield index, names.get(index, f"region {index}"), own


def table(
    segmentations: Mapping[str, tuple[np.ndarray, Mapping[int, str]]],
    maps: Mapping[str, tuple[np.ndarray, np.ndarray, str]],
    voxel_volume: float,
) -> list[dict[str, Any]]:
    """One row for each region of each segmentation and each map; first the whole brain.

    `segmentations`: name → labels `(X, Y, Z)` and the names of their indices; `maps`: name →
    values, where they are known, unit. `difference` is a region's mean minus that of the same
    region of the other side (NaN without one), `asymmetry` 100·2(V − V')/(V + V') of the volumes.
    """
    rows = []
    for name, (values, known, unit) in maps.items():
        whole = known.ravel()
        own = region(values.ravel()[whole], whole[whole], voxel_volume)
        head = {"segmentation": BRAIN, "index": 0, "region": BRAIN, "map": name, "unit": unit}
        rows.append({**head, **asdict(own), "difference": _NOTHING, "asymmetry": _NOTHING})
    for segmentation, (labels, names) in segmentations.items():
        for name, (values, known, unit) in maps.items():
            found = list(statistics(labels, names, values, known, voxel_volume))
            by_name = {other.lower(): own for _, other, own in found}
            for index, called, own in found:
                head = {"segmentation": segmentation, "index": index, "region": called}
                pair = by_name.get(opposite(called))
                rows.append({**head, "map": name, "unit": unit, **asdict(own), **sides(own, pair)})
    return rows


def sides(own: Region, other: Region | None) -> dict[str, float]:
    """Difference of means, and asymmetry of volumes in per cent, of a region and its pair."""
    if other is None:
        return {"difference": _NOTHING, "asymmetry": _NOTHING}
    both = own.volume + other.volume
    share = 200 * (own.volume - other.volume) / both if both > 0 else _NOTHING
    return {"difference": own.mean - other.mean, "asymmetry": share}


_OPPOSITE = {"left": "right", "right": "left", "lh": "rh", "rh": "lh", "l": "r", "r": "l"}


def opposite(name: str) -> str:
    """Name of the same region of the other side, in lower case; "" where the name has no side."""
    for pattern in _SIDES:
        match = pattern.match(name)
        if match:
            start, end = match.span("side")
            return (name[:start] + _OPPOSITE[match["side"].lower()] + name[end:]).lower()
    return ""
