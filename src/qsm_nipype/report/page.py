"""The page of one subject: records → what the page says → HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsm_nipype.record import (
    AcquisitionRecord,
    FailureRecord,
    Figure,
    Finding,
    Verdict,
    Viewer,
)
from qsm_nipype.report.cards import Card, make_cards
from qsm_nipype.report.decisions import Decision, describe_reading
from qsm_nipype.report.methods_text import MethodsText, write_methods
from qsm_nipype.report.nuclei import NucleiTable, nuclei_table
from qsm_nipype.report.processing import StepRow, scan_facts, step_row, step_title, time_bars
from qsm_nipype.report.templating import load_templates
from qsm_nipype.report.volumes import LIBRARY
from qsm_nipype.report.words import format_duration, make_anchor, title_of, without_folders
from qsm_nipype.verdict import LIGHTS, WORDS, judge

#: figures that stand before everything else: susceptibility, and a demo's truth
_LEADING = ("chi", "truth")


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
class AcquisitionReport:
    """What the page says about one acquisition.

    `findings` stand in the order of their gravity; an acquisition without a map has no `verdict`.
    `leading` are the figures of χ, `figures` the others; `took` is how long the whole run was.
    """

    section: Section
    verdict: Verdict | None
    findings: tuple[FindingRow, ...]
    facts: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    cards: tuple[Card, ...]
    leading: tuple[Figure, ...]
    figures: tuple[Figure, ...]
    steps: tuple[StepRow, ...]
    runtimes: tuple[tuple[str, str, float], ...]
    failure: FailureRecord | None
    maps: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    viewer: Viewer | None
    nuclei: NucleiTable | None = None

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
    """The whole page; `took` says how long the run was, from its start to the page."""

    subject: str
    version: str
    acquisitions: tuple[AcquisitionReport, ...]
    methods: tuple[Methods, ...]
    took: str = ""

    @property
    def library(self) -> str:
        """The script that the slice viewer draws with, relative to the page."""
        return f"sub-{self.subject}/figures/{LIBRARY}"

    @property
    def failed(self) -> int:
        """How many acquisitions ended early."""
        return sum(a.failure is not None for a in self.acquisitions)


def arrange_subject(
    records: Sequence[AcquisitionRecord],
    *,
    subject: str,
    version: str,
    seconds: float | None = None,
) -> SubjectPage:
    """Arrange `records` of one subject for the page; figures' paths are relative to it.

    `seconds` is how long the run took, where it is known.
    """
    anchors: set[str] = set()
    acquisitions = tuple(_acquisition(r, anchors) for r in records)
    took = "" if seconds is None else format_duration(seconds)
    return SubjectPage(subject, version, acquisitions, _methods(records, version), took)


def render_subject(report: SubjectPage) -> str:
    """The page as one HTML document that loads nothing but its own pictures and maps."""
    return load_templates().get_template("subject.html.j2").render(report=report)


def _acquisition(record: AcquisitionRecord, anchors: set[str]) -> AcquisitionReport:
    title = title_of(record.entities)
    anchor = _anchor(title, anchors)
    verdict = None if record.error else judge(record.findings)
    state = verdict.light if verdict else "failed"
    decisions = describe_reading(record.phase_reading) if record.phase_reading else ()
    facts, nuclei = scan_facts(record.acquisition), nuclei_table(record)
    leading = tuple(f for f in record.figures if f.name.split("_")[0] in _LEADING)
    figures = tuple(f for f in record.figures if f not in leading)
    parts: list[tuple[str, str, Any]] = [
        ("chi", "Susceptibility", leading),
        ("viewer", "Slices", record.viewer),
        ("nuclei", "Deep grey nuclei", nuclei),
        ("quality", "Quality", record.numbers),
        ("figures", "Pictures", figures),
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
        cards=make_cards(record.numbers),
        leading=leading,
        figures=figures,
        steps=tuple(step_row(s) for s in record.steps),
        runtimes=time_bars(record.runtimes),
        failure=_failure(record.error) if record.error else None,
        maps=tuple(record.maps.items()),
        sources=tuple(Path(file).name for file in record.source_files),
        viewer=record.viewer,
        nuclei=nuclei,
    )


def _findings(findings: Sequence[Finding]) -> tuple[FindingRow, ...]:
    """The findings, errors first, their files named without folders."""
    order = list(LIGHTS)
    return tuple(
        FindingRow(f.severity, without_folders(f.text), step_title(f.step))
        for f in sorted(findings, key=lambda f: order.index(f.severity))
    )


def _failure(error: FailureRecord) -> FailureRecord:
    """The failure with its files named without folders."""
    message, crash = without_folders(error.message), Path(error.crashfile).name
    return FailureRecord(message, _place(error.node), crash)


def _place(node: str) -> str:
    """`graph.sub_01.inversion_wf.whtv` as "inversion (whtv)"."""
    *_, part, name = ("", *node.split("."))
    return f"{part.removesuffix('_wf').replace('_', ' ')} ({name})" if "_wf" in part else name


def _anchor(title: str, taken: set[str]) -> str:
    """A name for links, unlike all taken ones."""
    base = make_anchor(title)
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


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
