"""The page of one subject: records → what the page says → HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from qsm_nipype.methods import STEPS
from qsm_nipype.record import (
    ACQUISITION_FIELDS,
    AcquisitionRecord,
    Decision,
    Failure,
    Figure,
    Number,
    Step,
)
from qsm_nipype.report.methods_text import MethodsText, write_methods

# the key numbers in the order of the strip: name → (label, usual range with its reason)
HEADLINES: dict[str, tuple[str, tuple[float, float, str] | None]] = {
    "mask_volume": ("Mask volume", (900, 2000, "usual is 900 to 2000 cm³ in an adult")),
    "mask_kept": ("Mask with χ", (75, 100, "much of the brain has no susceptibility")),
    "field_noise": ("Field noise, median", (0, 15, "usual is 1 to 10 ppb")),
    "residual": ("Fit residual, median", (0, 0.3, "above 0.3 the phase is unreliable")),
    "unreliable_fraction": ("Unreliable voxels", (0, 25, "more than a quarter is much")),
    "regularization": ("Regularisation λ", None),
    "reference": ("Reference region", None),
    "chi_sd": ("SD of χ", (0, 0.1, "streaks or a bad mask raise it")),
    "chi_p01": ("χ, 1st percentile", None),
    "chi_p99": ("χ, 99th percentile", None),
    "r2star": ("R2*, median", None),
}
STEP_TITLES = {step: kind.title for step, kind in STEPS.items()}
UNTOLD = ("parameters", "warnings", "decisions", "step", "method", "label")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Card:
    """One number of the strip. `caution` says why it is unusual, if it is; `tip` on hovering."""

    label: str
    value: str
    unit: str = ""
    hint: str = ""
    caution: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Section:
    """An entry of the navigation; `state` is ok, warning or failed."""

    anchor: str
    title: str
    state: str = ""
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StepRow:
    """One line of the table of steps."""

    step: str
    method: str
    parameters: tuple[tuple[str, str], ...]
    outcome: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AcquisitionReport:
    """What the page says about one acquisition."""

    section: Section
    facts: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    cards: tuple[Card, ...]
    warnings: tuple[str, ...]
    figures: tuple[Figure, ...]
    steps: tuple[StepRow, ...]
    runtimes: tuple[tuple[str, str, float], ...]
    total_time: str
    failure: Failure | None
    maps: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    viewer: Mapping[str, Any]


@dataclass(frozen=True)
class Methods:
    """A Methods paragraph and the acquisitions that it is about."""

    anchor: str
    title: str
    text: MethodsText


@dataclass(frozen=True)
class SubjectReport:
    """The whole page."""

    subject: str
    version: str
    acquisitions: tuple[AcquisitionReport, ...]
    methods: tuple[Methods, ...]

    @property
    def failed(self) -> int:
        """How many acquisitions ended early."""
        return sum(a.failure is not None for a in self.acquisitions)


def subject_report(
    records: Sequence[AcquisitionRecord], *, subject: str, version: str
) -> SubjectReport:
    """Arrange `records` of one subject for the page; figures' paths are relative to it."""
    anchors: set[str] = set()
    acquisitions = tuple(_acquisition(r, anchors) for r in records)
    return SubjectReport(subject, version, acquisitions, _methods(records, version))


def subject_html(report: SubjectReport) -> str:
    """The page as one HTML document that loads nothing but its own pictures."""
    return environment().get_template("subject.html.j2").render(report=report)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates, with every value escaped."""
    env = Environment(
        loader=PackageLoader("qsm_nipype.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["href"] = lambda path: quote(str(path))
    return env


def plain_number(value: float | str) -> str:
    """A number for people: three significant digits, powers of ten where they help."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "n/a"
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, power = f"{value:.2e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPTS)}".replace("-", "−")
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _acquisition(record: AcquisitionRecord, anchors: set[str]) -> AcquisitionReport:
    anchor = _anchor(record.label, anchors)
    state = "failed" if record.error else "warning" if record.warnings else "ok"
    parts = [
        ("quality", "Quality", _with_weights(record)),
        ("viewer", "Slice viewer", record.viewer),
        ("figures", "Figures", record.figures),
        ("acquisition", "Acquisition", record.acquisition or record.decisions),
        ("processing", "Processing", record.steps or record.runtimes),
    ]
    present = tuple((f"{anchor}-{key}", title) for key, title, content in parts if content)
    return AcquisitionReport(
        section=Section(anchor, record.label, state, present),
        facts=_facts(record.acquisition),
        decisions=record.decisions,
        cards=_cards(_with_weights(record)),
        warnings=record.warnings,
        figures=record.figures,
        steps=tuple(_step_row(s) for s in record.steps),
        runtimes=_bars(record.runtimes),
        total_time=duration(sum(record.runtimes.values())) if record.runtimes else "",
        failure=record.error,
        maps=tuple(record.maps.items()),
        sources=record.source_files,
        viewer=record.viewer,
    )


def anchor_of(label: str) -> str:
    """The place of an acquisition in its subject's page, by its `AcquisitionRecord.label`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "acquisition"


def _anchor(label: str, taken: set[str]) -> str:
    """A name for links, unlike all taken ones."""
    base = anchor_of(label)
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


def _facts(acquisition: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Label and text of every allowed field, the scanner's name in one line."""
    rows = dict(acquisition)
    if "manufacturer" in rows and "model" in rows:
        maker, model = str(rows["manufacturer"]), str(rows.pop("model"))
        rows["manufacturer"] = (
            model if model.lower().startswith(maker.lower()) else (f"{maker} {model}")
        )
    facts = []
    for name, (label, unit, factor) in ACQUISITION_FIELDS.items():
        if name in rows:
            text = _quantity(name, rows[name], factor)
            facts.append((label, f"{text} {unit}".strip() if unit != "°" else f"{text}°"))
    return tuple(facts)


def _quantity(name: str, value: Any, factor: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return plain_number(value * factor)
    if isinstance(value, (list, tuple)):
        texts = [_quantity(name, v, factor) for v in value]
        if name == "b0_dir":
            return f"({', '.join(texts)})"
        return (" × " if name in ("voxel_size", "shape") else ", ").join(texts)
    return str(value)


def _with_weights(record: AcquisitionRecord) -> tuple[Number, ...]:
    """The numbers and, if it is not among them, the weight that each inversion used."""
    if any(n.name.startswith("regularization") for n in record.numbers):
        return record.numbers
    steps = [s for s in record.steps if s.step == "inversion"]
    weights = [
        Number(
            name="regularization" if len(steps) == 1 else f"regularization_{step.method}",
            value=float(step.parameters["regularization"]),
            description=f"weight of {step.label}",
            label=f"λ of {step.label}",
        )
        for step in steps
        if isinstance(step.parameters.get("regularization"), (int, float))
    ]
    return (*record.numbers, *weights)


def _cards(numbers: Sequence[Number]) -> tuple[Card, ...]:
    """Known numbers first and in their order, then the others."""
    found = {n.name: n for n in numbers}
    order = [n for n in HEADLINES if n in found] + [n for n in found if n not in HEADLINES]
    return tuple(_card(found[name]) for name in order)


def _card(number: Number) -> Card:
    label, usual = HEADLINES.get(number.name, (number.name.replace("_", " ").capitalize(), None))
    value, unit = number.value, number.unit
    caution = ""
    if usual and isinstance(value, float) and not usual[0] <= value <= usual[1]:
        caution = usual[2]
    if isinstance(value, float) and number.name.endswith("fraction") and not unit:
        value, unit = 100 * value, "%"
    text = plain_number(value)
    if number.sd is not None:
        text += f" ± {plain_number(number.sd)}"
    plain = number.name in HEADLINES and number.name != "reference"
    hint = "" if plain else number.description
    return Card(number.label or label, text, unit, hint, caution, number.description)


def _step_row(step: Step) -> StepRow:
    return StepRow(
        step=_step_title(step.step),
        method=step.label or step.method,
        parameters=_pairs(step.parameters),
        outcome=_pairs({k: v for k, v in step.record.items() if k not in UNTOLD}),
    )


def _step_title(name: str) -> str:
    return STEP_TITLES.get(name, name.replace("_", " "))


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and short values; files, nested data and unset values are left out."""
    return tuple(
        (str(name).replace("_", " "), _quantity(name, value, 1.0))
        for name, value in values.items()
        if _short(value)
    )


def _short(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) < 80 and "/" not in value
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= 8 and all(_short(v) for v in value)
    return isinstance(value, (bool, int, float))


def _bars(runtimes: Mapping[str, float]) -> tuple[tuple[str, str, float], ...]:
    """Step, time in words and its share of the longest one in percent."""
    longest = max(runtimes.values(), default=0.0) or 1.0
    return tuple(
        (_step_title(name), duration(s), round(100 * s / longest, 1))
        for name, s in runtimes.items()
    )


def _methods(records: Sequence[AcquisitionRecord], version: str) -> tuple[Methods, ...]:
    """One paragraph for all acquisitions that were processed alike."""
    groups: dict[str, tuple[MethodsText, list[str]]] = {}
    for record in records:
        if record.steps:
            text = write_methods(record.steps, version=version)
            groups.setdefault(text.paragraph, (text, []))[1].append(record.label)
    one = len(groups) == 1
    return tuple(
        Methods(f"methods-{i}", "All acquisitions" if one else "; ".join(labels), text)
        for i, (text, labels) in enumerate(groups.values(), 1)
    )
