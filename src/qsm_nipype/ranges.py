"""Usual ranges of quality measures, and what a value outside them means.

The table is data/quality.yml: of each measure its label, unit, words, `usual` range and the range
`bad` beyond which a map must not be used (null: open), and a reason with a cure for a value above
and below. docs/quality.md says where the ranges come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from qsm_nipype.system import yaml_text

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Limits:
    """A measure's words and ranges; `high` and `low` are the reasons of values outside."""

    description: str
    usual: Range
    bad: Range = (None, None)
    unit: str = ""
    high: str = ""
    low: str = ""
    label: str = ""


@lru_cache(maxsize=1)
def limits() -> Mapping[str, Limits]:
    """The rows of data/quality.yml by the measure's name."""
    text = (resources.files("qsm_nipype.data") / "quality.yml").read_text(encoding="utf-8")
    found = {}
    for name, row in yaml_text.parse(text).items():
        ranges = {key: tuple(row[key]) for key in ("usual", "bad") if key in row}
        found[name] = Limits(**{**row, **ranges})
    return found


def judged(
    name: str, value: float, number: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The measure `name` as a number of the record: with its usual range, judgement and reason.

    `number` holds what is known of it already. A measure that the table does not have, or a value
    that is none, is given without judgement.
    """
    found: dict[str, Any] = {"value": float(value), "unit": "", "description": name, **number}
    known = limits().get(name)
    if known is None:
        return found
    found |= {"unit": known.unit, "description": known.description, "usual": list(known.usual)}
    if math.isnan(value):
        return found
    above, below = (excess(value, known, high=high) for high in (True, False))
    worst = max(above, below)
    found["judgement"] = "ok" if worst <= 0 else "unusual" if worst < 1 else "bad"
    if worst > 0:
        found["reason"] = known.high if above >= below else known.low
    return found


def judge_all(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`numbers` of a record, each judged that the table knows and that has a value."""
    return {
        name: judged(name, number["value"], number)
        if name in limits() and isinstance(number.get("value"), float)
        else dict(number)
        for name, number in numbers.items()
    }


def excess(value: float, known: Limits, *, high: bool) -> float:
    """How far `value` is beyond the usual range: 0 at its end, 1 where it is bad.

    Below 0 inside the range; −∞ where the range is open. Without an end of `bad` it stays below 1.
    """
    usual, bad = (known.usual[high], known.bad[high])
    if usual is None:
        return -math.inf
    sign = 1.0 if high else -1.0
    off = sign * (value - usual)
    if bad is None:
        width = abs(usual) if usual else 1.0
        return off / width if off <= 0 else min(off / width, 1.0) * 0.999
    return off / (sign * (bad - usual))


def worst(values: Mapping[str, float]) -> tuple[float, str]:
    """The largest `excess` of several measures, and whose it is: the score of a map."""
    scores = [
        (excess(value, known, high=high), name)
        for name, value in values.items()
        if (known := limits().get(name)) is not None and not math.isnan(value)
        for high in (True, False)
    ]
    return max(scores, default=(-math.inf, ""))
