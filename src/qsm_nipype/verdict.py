"""One traffic light for a map, from what was found about it.

Nodes report sentences under `notes`, `warnings` and `errors`, and numbers that may be judged. All
of them become findings here, and the findings become a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qsm_nipype.record import Finding, Judgement, Light, Number, Severity, Verdict

#: The lists of a node's record, and the severity of their sentences.
LISTS: dict[str, Severity] = {"notes": "note", "warnings": "warning", "errors": "error"}
#: Severities, the gravest first, and the light of a map whose gravest finding is such.
LIGHTS: dict[Severity, Light] = {"error": "red", "warning": "yellow", "note": "green"}
#: What a light says.
WORDS: dict[Light, str] = {
    "red": "do not use this map",
    "yellow": "look before you trust this map",
    "green": "nothing was found against this map",
}
#: The step of findings that follow from numbers.
OF_NUMBERS = "quality"
_SEVERITIES: dict[Judgement, Severity] = {"unusual": "warning", "bad": "error"}


def judge(findings: Iterable[Finding]) -> Verdict:
    """Red for any error, else yellow for any warning, else green; with the sentences that say so.

    Errors stand before warnings; notes are no reasons.
    """
    found = list(findings)
    reasons = {s: [f.text for f in found if f.severity == s] for s in ("error", "warning")}
    light: Light = "red" if reasons["error"] else "yellow" if reasons["warning"] else "green"
    return Verdict(light, (*reasons["error"], *reasons["warning"]))


def reported(report: Mapping[str, Any], step: str = "") -> list[Finding]:
    """The findings in what a node of `step` reported."""
    return [
        Finding(severity, text, step)
        for name, severity in LISTS.items()
        for text in report.get(name, [])
    ]


def of_numbers(numbers: Mapping[str, Number]) -> list[Finding]:
    """A warning for each number that was judged unusual, an error for each that is bad."""
    return [
        Finding(_SEVERITIES[number.judgement], sentence(name, number), OF_NUMBERS)
        for name, number in numbers.items()
        if number.judgement in _SEVERITIES
    ]


def sentence(name: str, number: Number) -> str:
    """What the number `name` measures, its value, what is usual, and what that means."""
    what = number.description or name.replace("_", " ")
    value = number.value if isinstance(number.value, str) else _digits(number.value)
    text = f"{what}: {value} {number.unit}".strip()
    if number.usual:
        text += f", usual is {usual_range(number)}"
    return f"{text}: {number.reason}" if number.reason else text


def usual_range(number: Number) -> str:
    """`1 to 10`, `at most 10`, `at least 1`; empty where nothing is usual."""
    low, high = (*number.usual, None, None)[:2]
    if low is None:
        return "" if high is None else f"at most {_digits(high)}"
    return f"at least {_digits(low)}" if high is None else f"{_digits(low)} to {_digits(high)}"


def _digits(value: float) -> str:
    """Three digits, more where they stand before the point, never a power of ten."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def distinct(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """`findings` without repeated sentences; of a repeated one the gravest is kept, in place."""
    order = list(LIGHTS)
    kept: dict[str, Finding] = {}
    for finding in findings:
        other = kept.get(finding.text)
        if other is None or order.index(finding.severity) < order.index(other.severity):
            kept[finding.text] = finding
    return tuple(kept.values())


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """How many findings have a severity."""
    return sum(finding.severity == severity for finding in findings)
