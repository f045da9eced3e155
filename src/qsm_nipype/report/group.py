"""The overview of a whole data set: quality measures of all acquisitions, outliers marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from qsm_nipype.report.page import (
    HEADLINES,
    format_number,
    load_templates,
    make_anchor,
    title_of,
    without_folders,
)
from qsm_nipype.report.stored import entities_of

#: columns of `run.group` that are no measures
IDENTIFIERS = ("participant_id", "session_id", "run", "acquisition")
STATES = ("status", "error")
FAILED = ("failed", "lost")
#: modified z-score (Iglewicz and Hoaglin) beyond which a value is marked
OUTLYING_SCORE = 3.5
MISSING = ("", "n/a", "nan", "None")


@dataclass(frozen=True)
class Dot:
    """A point of a strip plot: place in the plot, what to say of it, whether it stands out."""

    x: float
    y: float
    text: str
    row: int
    outlier: bool


@dataclass(frozen=True)
class Metric:
    """A quality measure over all acquisitions and its strip plot."""

    name: str
    label: str
    unit: str
    description: str
    middle: str
    low: str
    high: str
    dots: tuple[Dot, ...]
    middle_x: float

    @property
    def outliers(self) -> int:
        """How many acquisitions stand out."""
        return sum(dot.outlier for dot in self.dots)


@dataclass(frozen=True)
class Cell:
    """A value of the table; `sort` is what it is ordered by."""

    text: str
    sort: str
    outlier: bool = False


@dataclass(frozen=True)
class Row:
    """One acquisition of the table; `page` is the subject's report, `anchor` its place there."""

    name: str
    page: str
    anchor: str
    state: str
    error: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class GroupReport:
    """The overview page."""

    version: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]

    @property
    def failed(self) -> int:
        """How many rows are of a run that failed."""
        return sum(row.state == "failed" for row in self.rows)

    @property
    def flagged(self) -> int:
        """How many acquisitions have at least one outlying measure."""
        return sum(any(c.outlier for c in row.cells) for row in self.rows)


def group_report(
    rows: Sequence[Mapping[str, Any]],
    *,
    version: str,
    dictionary: Mapping[str, Mapping[str, Any]] | None = None,
) -> GroupReport:
    """Arrange the rows of the participants' tables.

    A row has the columns of `run.group`: `participant_id`, `acquisition`, numbers, optionally
    session, run, status and error; text such as "n/a" counts as missing. `dictionary` is the data
    dictionary of the table (name → {LongName, Description, Units}).
    """
    words = dictionary or {}
    names = [name for name in _columns(rows) if _is_metric(name, rows)]
    values = {name: [_number(row.get(name)) for row in rows] for name in names}
    outlying = {name: find_outliers(column) for name, column in values.items()}
    labels = [str(row["acquisition"]) for row in rows]
    metrics = tuple(
        _metric(name, values[name], outlying[name], labels, words.get(name, {})) for name in names
    )
    table = tuple(
        Row(
            name=labels[i],
            page=f"{row['participant_id']}.html",
            anchor=_anchor(labels[i]),
            state=_state(row),
            error=_error(row),
            cells=tuple(_cell(values[n][i], outlying[n][i]) for n in names),
        )
        for i, row in enumerate(rows)
    )
    return GroupReport(version, metrics, table)


def group_html(report: GroupReport) -> str:
    """The overview as one HTML document."""
    return load_templates().get_template("group.html.j2").render(report=report)


def find_outliers(values: Sequence[float | None]) -> list[bool]:
    """Which values are far from the median in units of the median absolute deviation.

    With fewer than five values, or without any spread, nothing stands out.
    """
    known = [v for v in values if v is not None]
    if len(known) < 5:
        return [False] * len(values)
    centre = median(known)
    spread = median(abs(v - centre) for v in known)
    if spread <= 1e-12 * max(1.0, abs(centre)):
        return [False] * len(values)
    return [v is not None and 0.6745 * abs(v - centre) / spread > OUTLYING_SCORE for v in values]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of all columns, the known measures first."""
    seen = list(dict.fromkeys(name for row in rows for name in row))
    return [n for n in HEADLINES if n in seen] + [n for n in seen if n not in HEADLINES]


def _is_metric(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if name in IDENTIFIERS or name in STATES:
        return False
    present = [row[name] for row in rows if str(row.get(name, "")) not in MISSING]
    return bool(present) and all(_number(v) is not None for v in present)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _anchor(label: str) -> str:
    """The acquisition's place on its subject's page."""
    return make_anchor(title_of(entities_of(label)))


def _error(row: Mapping[str, Any]) -> str:
    error = str(row.get("error", ""))
    return "" if error in MISSING else without_folders(error)


def _state(row: Mapping[str, Any]) -> str:
    return "failed" if row.get("status") in FAILED or _error(row) else "ok"


def _cell(value: float | None, outlying: bool) -> Cell:
    if value is None:
        return Cell("n/a", "")
    return Cell(format_number(value), repr(value), outlying)


def _metric(
    name: str,
    values: Sequence[float | None],
    outlying: Sequence[bool],
    labels: Sequence[str],
    words: Mapping[str, Any],
) -> Metric:
    """Dots in a plot of width 100, apart from each other where they would lie together."""
    known = [v for v in values if v is not None]
    low, high = min(known), max(known)
    width = (high - low) or 1.0
    unit = str(words.get("Units") or "")
    dots: list[Dot] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        x = 50.0 if high == low else 100 * (value - low) / width
        near = sum(abs(dot.x - x) < 2.2 for dot in dots)
        y = (near + 1) // 2 * (1 if near % 2 else -1)
        text = f"{labels[i]}: {format_number(value)} {unit}".strip()
        dots.append(Dot(round(x, 2), float(max(-4, min(4, y))), text, i, outlying[i]))
    label = HEADLINES.get(name, (name.replace("_", " ").capitalize(), None))[0]
    centre = median(known)
    return Metric(
        name=name,
        label=str(words.get("LongName") or label),
        unit=unit,
        description=str(words.get("Description") or ""),
        middle=format_number(centre),
        low=format_number(low),
        high=format_number(high),
        dots=tuple(dots),
        middle_x=round(50.0 if high == low else 100 * (centre - low) / width, 2),
    )
