"""The overview of a whole data set: verdicts and quality measures, what needs a look first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from qsm_nipype.report.cards import HEADLINES, label_of
from qsm_nipype.report.outliers import LIMIT, outlying_measures
from qsm_nipype.report.stored import entities_of
from qsm_nipype.report.templating import load_templates
from qsm_nipype.report.words import format_number, make_anchor, title_of, without_folders
from qsm_nipype.verdict import LIGHTS

#: columns of `run.group` that are no measures
IDENTIFIERS = ("participant_id", "session_id", "run", "acquisition")
STATES = ("status", "error")
#: columns that say how good a map is, and the one of the measures that stand out
VERDICTS, OUTLIERS = ("verdict", "errors", "warnings"), "outliers"
#: columns of a reader's marks
RATED = ("rating", "comment")
FAILED = ("failed", "lost")
#: what may become of an acquisition, in the order of the table; the last: nobody knows
ORDER = ("failed", *LIGHTS.values(), "none")
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
    """One acquisition of the table; `page` is the subject's report, `anchor` its place there.

    `state` is one of `ORDER`, `reasons` sentences that say why it is not green; `outlying` maps
    the measures that stand out to their robust z, `far` are they in words. `thumb` is a small
    picture of the map, `rating` and `comment` what a reader found.
    """

    name: str
    page: str
    anchor: str
    state: str
    error: str
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...] = ()
    outlying: Mapping[str, float] = field(default_factory=dict)
    far: tuple[str, ...] = ()
    errors: str = ""
    warnings: str = ""
    thumb: str = ""
    rating: str = ""
    comment: str = ""

    @property
    def rank(self) -> int:
        """Its place among `ORDER`, for sorting."""
        return ORDER.index(self.state)

    @property
    def needs_a_look(self) -> bool:
        """Whether it is not green, or stands out."""
        return self.state not in ("green", "none") or bool(self.outlying)


@dataclass(frozen=True)
class GroupReport:
    """The overview page."""

    version: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]

    limit: float = LIMIT

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """How many acquisitions are of each state that there is."""
        numbers = {state: sum(row.state == state for row in self.rows) for state in ORDER[:-1]}
        return tuple((state, number) for state, number in numbers.items() if number)

    @property
    def flagged(self) -> int:
        """How many acquisitions have at least one outlying measure."""
        return sum(bool(row.outlying) for row in self.rows)


def group_report(
    rows: Sequence[Mapping[str, Any]],
    *,
    version: str,
    dictionary: Mapping[str, Mapping[str, Any]] | None = None,
    reasons: Mapping[str, Sequence[str]] | None = None,
    thumbs: Mapping[str, str] | None = None,
) -> GroupReport:
    """Arrange the rows of the participants' tables, what needs a look first.

    A row has the columns of `run.group`: `participant_id`, `acquisition`, numbers, optionally
    session, run, status, error and verdict; text such as "n/a" counts as missing. `dictionary` is
    the data dictionary of the table (name → {LongName, Description, Units}); `reasons` are the
    sentences behind a verdict, `thumbs` paths of small pictures, both by acquisition.
    """
    words = dictionary or {}
    names = [name for name in _columns(rows) if _is_metric(name, rows)]
    values = {name: [_number(row.get(name)) for row in rows] for name in names}
    far = outlying_measures(values, words) if names else [{} for _ in rows]
    table = [
        _row(row, {n: values[n][i] for n in names}, far[i], words, reasons or {})
        for i, row in enumerate(rows)
    ]
    table = [replace(row, thumb=(thumbs or {}).get(row.name, "")) for row in table]
    order = sorted(range(len(table)), key=lambda i: (table[i].rank, not far[i]))
    labels = [table[i].name for i in order]
    metrics = tuple(
        _metric(
            name,
            [values[name][i] for i in order],
            [name in far[i] for i in order],
            labels,
            words.get(name, {}),
        )
        for name in names
    )
    return GroupReport(version, metrics, tuple(table[i] for i in order))


def _row(
    row: Mapping[str, Any],
    values: Mapping[str, float | None],
    far: Mapping[str, float],
    words: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, Sequence[str]],
) -> Row:
    """An acquisition with its measures; `far` are those that stand out."""
    label, state = str(row["acquisition"]), _state(row)
    said = () if state == "failed" else reasons.get(label, ())
    return Row(
        name=label,
        page=f"{row['participant_id']}.html",
        anchor=_anchor(label),
        state=state,
        error=_error(row),
        cells=tuple(_cell(value, name in far) for name, value in values.items()),
        reasons=tuple(without_folders(reason) for reason in said),
        outlying=far,
        far=tuple(_far(name, values[name], z, words.get(name, {})) for name, z in far.items()),
        errors=_text(row, "errors"),
        warnings=_text(row, "warnings"),
        rating=_text(row, "rating"),
        comment=_text(row, "comment"),
    )


def _far(name: str, value: float | None, z: float, words: Mapping[str, Any]) -> str:
    """`Field noise 35 ppb (z +8.2)`."""
    amount = (
        f"{'n/a' if value is None else format_number(value)} {words.get('Units') or ''}".strip()
    )
    return f"{_label(name, words)} {amount} (z {z:+.1f})".replace("z -", "z −")


def _label(name: str, words: Mapping[str, Any]) -> str:
    return str(words.get("LongName") or label_of(name))


def _text(row: Mapping[str, Any], name: str) -> str:
    text = str(row.get(name, ""))
    return "" if text in MISSING else text


def group_html(report: GroupReport) -> str:
    """The overview as one HTML document."""
    return load_templates().get_template("group.html.j2").render(report=report)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of all columns, the known measures first."""
    seen = list(dict.fromkeys(name for row in rows for name in row))
    return [n for n in HEADLINES if n in seen] + [n for n in seen if n not in HEADLINES]


def _is_metric(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if name in (*IDENTIFIERS, *STATES, *VERDICTS, OUTLIERS, *RATED):
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
    """One of `ORDER`; numbers and verdict of a run that failed are those of an earlier one."""
    if row.get("status") in FAILED or _error(row):
        return "failed"
    light = str(row.get("verdict", ""))
    return light if light in ORDER else "none"


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
    crowd: dict[int, int] = {}
    for i, value in enumerate(values):
        if value is None:
            continue
        x = 50.0 if high == low else 100 * (value - low) / width
        near = sum(crowd.get(place, 0) for place in (int(x / 1.1) - 1, int(x / 1.1)))
        crowd[int(x / 1.1)] = crowd.get(int(x / 1.1), 0) + 1
        y = (near + 1) // 2 * (1 if near % 2 else -1)
        text = f"{labels[i]}: {format_number(value)} {unit}".strip()
        dots.append(Dot(round(x, 2), float(max(-4, min(4, y))), text, i, outlying[i]))
    centre = median(known)
    return Metric(
        name=name,
        label=_label(name, words),
        unit=unit,
        description=str(words.get("Description") or ""),
        middle=format_number(centre),
        low=format_number(low),
        high=format_number(high),
        dots=tuple(dots),
        middle_x=round(50.0 if high == low else 100 * (centre - low) / width, 2),
    )
