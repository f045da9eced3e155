"""Which acquisitions of a group have a measure far from that of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Robust z beyond which a value stands out: of 190 good participants with twenty measures, whose
#: tails are as heavy as those of Student's t with 8 degrees of freedom, it names one in two groups
#: (`benchmarks/group.py`).
LIMIT = 5.0
#: Fewest values, and fewest different ones, of a measure in which any can stand out; below `MANY`
#: their spread is known so badly that scores shrink, by a fifth of it for each that is missing.
FEWEST, MANY = 6, 10
#: Spread that is never of interest, by unit and as a share of the median: a smaller one would let
#: the last digits of a measure that hardly varies stand out.
FLOORS = {"%": 0.5, "ppm": 0.001, "ppb": 0.1, "rad": 0.005, "1/s": 0.2}
_FLOOR_SHARE = 0.01
#: Quantiles of the normal distribution: of half the absolute deviations, and of nine tenths.
_Z_HALF, _Z_TAIL, _TAIL = 0.6745, 1.2816, 0.9


def robust_scores(values: Sequence[float | None], unit: str = "") -> list[float]:
    """How far each value lies from the median, in robust standard deviations of its side.

    The spread of a side is the largest of the median absolute deviation of all values, that of
    the side, and its ninth decile, each as a standard deviation: skewed and heavy tails widen it,
    a few faults do not. Measures of one sign that are skewed away from 0 are judged by their
    logarithms, shares (`unit` "%") by log-odds. 0 for None, and where there are too few values
    (`FEWEST`).
    """
    known = np.array([v for v in values if v is not None], float)
    if known.size < FEWEST or np.unique(known).size < FEWEST:
        return [0.0] * len(values)
    floor = FLOORS.get(unit, 0.0)
    if unit != "%":
        floor = max(floor, _FLOOR_SHARE * abs(float(np.median(known))), 1e-12)
    shown, floor = _symmetric(known, floor, unit)
    shrunk = 1 + 0.2 * max(0, MANY - known.size)
    scores = iter((_scores(shown, floor) / shrunk).tolist())
    return [0.0 if v is None else next(scores) for v in values]


def outlying_measures(
    columns: Mapping[str, Sequence[float | None]], words: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, float]]:
    """For each row of the `columns` (measure → values) the measures that stand out, with z.

    `words` is the data dictionary of the columns, for their units.
    """
    rows: list[dict[str, float]] = [{} for _ in next(iter(columns.values()), ())]
    for name, values in columns.items():
        unit = str(words.get(name, {}).get("Units") or "")
        for row, score in zip(rows, robust_scores(values, unit), strict=True):
            if abs(score) > LIMIT:
                row[name] = score
    return rows


def _scores(x: np.ndarray, floor: float) -> np.ndarray:
    apart = x - np.median(x)
    common = float(np.median(np.abs(apart))) / _Z_HALF
    sides = []
    for side in (apart, -apart):
        beyond = side[side >= 0]
        tail = float(np.quantile(side, _TAIL, method="lower")) / _Z_TAIL
        sides.append(max(common, float(np.median(beyond)) / _Z_HALF, tail, floor))
    return np.where(apart > 0, apart / sides[0], apart / sides[1])


def _symmetric(x: np.ndarray, floor: float, unit: str) -> tuple[np.ndarray, float]:
    """`x` on the scale on which its distribution is the most symmetric; `floor` there.

    Shares (%) by log-odds, else the logarithm where `x` is of one sign and skewed away from 0.
    What hardly varies stays as it is.
    """
    middle = float(np.median(x))
    if np.median(np.abs(x - middle)) < floor:
        return x, floor
    if unit == "%" and x.min() >= 0 and x.max() <= 100:
        part, rest = x + floor, 100 - x + floor
        return np.log(part / rest), floor * (1 / (middle + floor) + 1 / (100 - middle + floor))
    if x.min() < 0 < x.max() or _skewness(np.abs(x)) <= 0:
        return x, floor
    sign = 1.0 if x.max() > 0 else -1.0
    return sign * np.log(np.abs(x) + floor), math.log1p(floor / (abs(middle) + floor))


def _skewness(x: np.ndarray) -> float:
    """How much farther the upper than the lower deciles lie from the median, from −1 to 1."""
    shares = np.arange(0.05, 0.35, 0.05)
    low, high = np.quantile(x, shares), np.quantile(x, 1 - shares)
    width = np.maximum(high - low, 1e-300)
    return float(np.mean((low + high - 2 * np.median(x)) / width))
