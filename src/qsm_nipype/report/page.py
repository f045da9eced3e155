"""The page of one subject: records → what the page says → HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from qsm_nipype.dataset.names import stem
from qsm_nipype.methods import STEPS
from qsm_nipype.ranges import limits
from qsm_nipype.record import (
    AcquisitionRecord,
    FailureRecord,
    Figure,
    Finding,
    Number,
    Scan,
    Step,
    Verdict,
    Viewer,
)
from qsm_nipype.report.decisions import Decision, describe_reading
from qsm_nipype.report.methods_text import MethodsText, write_methods
from qsm_nipype.verdict import LIGHTS, WORDS, judge, usual_range

#: field of `record.Scan` → its label, unit and factor, in the order of the page
SCAN_FACTS: dict[str, tuple[str, str, float]] = {
    "manufacturer": ("Scanner", "", 1.0),
    "model": ("Model", "", 1.0),
    "field_strength": ("Field strength", "T", 1.0),
    "sequence": ("Sequence", "", 1.0),
    "echo_times": ("Echo times", "ms", 1e3),
    "repetition_time": ("Repetition time", "ms", 1e3),
    "flip_angle": ("Flip angle", "°", 1.0),
    "voxel_size": ("Voxel size", "mm", 1.0),
    "shape": ("Matrix", "", 1.0),
    "b0_dir": ("B0 along voxel axes", "", 1.0),
    "orientation": ("Storage orientation", "", 1.0),
    "obliquity": ("Obliquity", "°", 1.0),
}
#: the key numbers in the order of the strip, with the labels of those that are not judged
HEADLINES: dict[str, str] = {
    "mask_volume": "",
    "mask_kept": "",
    "mask_reliable": "Mask after trimming",
    "field_noise": "Field noise, median",
    "residual": "",
    "unreliable_fraction": "",
    "regularization": "Regularisation λ",
    "reference": "Reference region",
    "chi_sd": "SD of χ",
    "chi_p01": "χ, 1st percentile",
    "chi_p99": "χ, 99th percentile",
    "r2star": "R2*, median",
}
#: what is done in a step
STEP_TITLES = {step: kind.title for step, kind in STEPS.items()}
#: keys of a step's record that are shown elsewhere or say nothing about the acquisition
NOT_OUTCOMES = (
    *("parameters", "notes", "warnings", "errors", "numbers", "method"),
    *("seconds", "cpu_seconds", "peak_gb"),
)
#: the folders of a path in a sentence: they may name persons and places
_FOLDERS = re.compile(r"(?<![\w:/.])~?/(?:(?:[^\s/'\":;.]+ )*[^\s/'\":;]+/)+")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Card:
    """One number of the strip; `hint` says what is usual, `tip` what it is and means.

    `mark` is empty, caution or bad; a `minor` one is folded away.
    """

    label: str
    value: str
    unit: str = ""
    hint: str = ""
    tip: str = ""
    mark: str = ""
    minor: bool = False


@dataclass(frozen=True)
class Section:
    """An entry of the navigation; `state` is failed, or the light of the map."""

    anchor: str
    title: str
    state: str = ""
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FindingRow:
    """A sentence about the acquisition; `step` is the step's title, or empty."""

    severity: str
    text: str
    step: str


@dataclass(frozen=True)
class StepRow:
    """One line of the table of steps."""

    step: str
    method: str
    parameters: tuple[tuple[str, str], ...]
    outcome: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AcquisitionReport:
    """What the page says about one acquisition.

    `findings` stand in the order of their gravity; an acquisition without a map has no `verdict`.
    """

    section: Section
    verdict: Verdict | None
    findings: tuple[FindingRow, ...]
    facts: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    cards: tuple[Card, ...]
    figures: tuple[Figure, ...]
    steps: tuple[StepRow, ...]
    runtimes: tuple[tuple[str, str, float], ...]
    total_time: str
    failure: FailureRecord | None
    maps: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    viewer: Viewer | None

    @property
    def state(self) -> str:
        """What became of it, in a word or two: failed, or what its light says."""
        return WORDS[self.verdict.light] if self.verdict else "failed"

    def of(self, severity: str) -> tuple[FindingRow, ...]:
        """The findings of one severity."""
        return tuple(row for row in self.findings if row.severity == severity)


@dataclass(frozen=True)
class Methods:
    """A Methods paragraph and the acquisitions that it is about."""

    anchor: str
    title: str
    text: MethodsText


@dataclass(frozen=True)
class SubjectPage:
    """The whole page."""

    subject: str
    version: str
    acquisitions: tuple[AcquisitionReport, ...]
    methods: tuple[Methods, ...]

    @property
    def failed(self) -> int:
        """How many acquisitions ended early."""
        return sum(a.failure is not None for a in self.acquisitions)


def arrange_subject(
    records: Sequence[AcquisitionRecord], *, subject: str, version: str
) -> SubjectPage:
    """Arrange `records` of one subject for the page; figures' paths are relative to it."""
    anchors: set[str] = set()
    acquisitions = tuple(_acquisition(r, anchors) for r in records)
    return SubjectPage(subject, version, acquisitions, _methods(records, version))


def render_subject(report: SubjectPage) -> str:
    """The page as one HTML document that loads nothing but its own pictures."""
    return load_templates().get_template("subject.html.j2").render(report=report)


def title_of(entities: Mapping[str, str]) -> str:
    """The acquisition's name within its subject: "ses-1, run-2", or "Gradient echoes"."""
    own = stem({k: v for k, v in entities.items() if k != "sub"})
    return own.replace("_", ", ") or "Gradient echoes"


def label_of(name: str) -> str:
    """The label of a number: that of its range, of `HEADLINES`, or its name."""
    known = limits().get(name)
    label = known.label if known else HEADLINES.get(name, "")
    return label or name.replace("_", " ").capitalize()


def without_folders(text: str) -> str:
    """`text` with the files in it named without the folders in which they lie."""
    return _FOLDERS.sub("", text)


@lru_cache(maxsize=1)
def load_templates() -> Environment:
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


def format_number(value: float | str) -> str:
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


def format_duration(seconds: float) -> str:
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
    title = title_of(record.entities)
    anchor = _anchor(title, anchors)
    verdict = None if record.error else judge(record.findings)
    state = verdict.light if verdict else "failed"
    decisions = describe_reading(record.phase_reading) if record.phase_reading else ()
    facts, numbers = _facts(record.acquisition), _with_weights(record)
    parts: list[tuple[str, str, Any]] = [
        ("quality", "Quality", numbers),
        ("viewer", "Slice viewer", record.viewer),
        ("figures", "Figures", record.figures),
        ("acquisition", "Acquisition", facts or decisions),
        ("processing", "Processing", record.steps or record.runtimes),
    ]
    present = tuple((f"{anchor}-{key}", name) for key, name, content in parts if content)
    return AcquisitionReport(
        section=Section(anchor, title, state, present),
        verdict=verdict,
        findings=_findings(record.findings),
        facts=facts,
        decisions=decisions,
        cards=_cards(numbers),
        figures=record.figures,
        steps=tuple(_step_row(s) for s in record.steps),
        runtimes=_bars(record.runtimes),
        total_time=format_duration(sum(record.runtimes.values())) if record.runtimes else "",
        failure=_failure(record.error) if record.error else None,
        maps=tuple(record.maps.items()),
        sources=tuple(Path(file).name for file in record.source_files),
        viewer=record.viewer,
    )


def _findings(findings: Sequence[Finding]) -> tuple[FindingRow, ...]:
    """The findings, errors first, their files named without folders."""
    order = list(LIGHTS)
    return tuple(
        FindingRow(f.severity, without_folders(f.text), _step_title(f.step))
        for f in sorted(findings, key=lambda f: order.index(f.severity))
    )


def _failure(error: FailureRecord) -> FailureRecord:
    """The failure with its files named without folders."""
    message, crash = without_folders(error.message), Path(error.crashfile).name
    return FailureRecord(message, error.node, crash)


def make_anchor(title: str) -> str:
    """The place of an acquisition in its subject's page, by its `title_of`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "acquisition"


def _anchor(title: str, taken: set[str]) -> str:
    """A name for links, unlike all taken ones."""
    base = make_anchor(title)
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


def _facts(scan: Scan) -> tuple[tuple[str, str], ...]:
    """Label and text of every field that is set, the scanner's name in one line."""
    stated = {part.name: getattr(scan, part.name) for part in fields(scan)}
    rows = {name: value for name, value in stated.items() if value not in (None, "", ())}
    if "manufacturer" in rows and "model" in rows:
        maker, model = str(rows["manufacturer"]), str(rows.pop("model"))
        same = model.lower().startswith(maker.lower())
        rows["manufacturer"] = model if same else f"{maker} {model}"
    facts = []
    for name, (label, unit, factor) in SCAN_FACTS.items():
        if name in rows:
            text = _quantity(name, rows[name], factor)
            facts.append((label, f"{text} {unit}".strip() if unit != "°" else f"{text}°"))
    return tuple(facts)


def _quantity(name: str, value: Any, factor: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return format_number(value * factor)
    if isinstance(value, (list, tuple)):
        texts = [_quantity(name, v, factor) for v in value]
        if name == "b0_dir":
            return f"({', '.join(texts)})"
        return (" × " if name in ("voxel_size", "shape") else ", ").join(texts)
    return str(value)


def _with_weights(record: AcquisitionRecord) -> dict[str, tuple[str, Number]]:
    """The numbers with their labels and the weight that each inversion used."""
    found = {name: (label_of(name), number) for name, number in record.numbers.items()}
    steps = [s for s in record.steps if s.step == "inversion"]
    for step in steps:
        weight = step.parameters.get("regularization")
        if isinstance(weight, (int, float)):
            name = "regularization" if len(steps) == 1 else f"regularization_{step.method}"
            label = step.label or step.method
            number = Number(float(weight), description=f"weight of {label}")
            found[name] = (f"λ of {label}", number)
    return found


def _cards(numbers: Mapping[str, tuple[str, Number]]) -> tuple[Card, ...]:
    """Bad numbers first, then unusual ones, then known ones in their order, then the others."""
    order = [n for n in HEADLINES if n in numbers] + [n for n in numbers if n not in HEADLINES]
    order.sort(key=lambda name: ("bad", "unusual").index(j)
               if (j := numbers[name][1].judgement) in ("bad", "unusual") else 2)  # fmt: skip
    return tuple(_card(name, *numbers[name]) for name in order)


def _card(name: str, label: str, number: Number) -> Card:
    """A number with what is usual; why it is unusual stands in the verdict, and on hovering."""
    text = format_number(number.value)
    if number.sd is not None:
        text += f" ± {format_number(number.sd)}"
    mark = {"bad": "bad", "unusual": "caution"}.get(number.judgement, "")
    usual = usual_range(number).replace("-", "−")
    hint = f"usual: {usual}" if usual else ""
    if not hint and (name not in HEADLINES or name == "reference"):
        hint = number.description
    tip = ": ".join(part for part in (number.description, number.reason if mark else "") if part)
    minor = not mark and number.judgement == "ok" and name not in HEADLINES
    return Card(label, text, number.unit, hint, tip, mark, minor)


def _step_row(step: Step) -> StepRow:
    return StepRow(
        step=_step_title(step.step),
        method=step.label or step.method,
        parameters=_pairs(step.parameters),
        outcome=_pairs({k: v for k, v in step.record.items() if k not in NOT_OUTCOMES}),
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
        (_step_title(name), format_duration(s), round(100 * s / longest, 1))
        for name, s in runtimes.items()
    )


def _methods(records: Sequence[AcquisitionRecord], version: str) -> tuple[Methods, ...]:
    """One paragraph for all acquisitions that were processed alike."""
    groups: dict[str, tuple[MethodsText, list[str]]] = {}
    for record in records:
        if record.steps:
            text = write_methods(record.steps, version=version)
            groups.setdefault(text.paragraph, (text, []))[1].append(title_of(record.entities))
    one = len(groups) == 1
    return tuple(
        Methods(f"methods-{i}", "All acquisitions" if one else "; ".join(titles), text)
        for i, (text, titles) in enumerate(groups.values(), 1)
    )
