"""How an acquisition was made and processed, as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from qsm_nipype.methods import STEPS
from qsm_nipype.record import Scan, Step
from qsm_nipype.report.words import format_duration, format_number

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
#: what is done in a step
STEP_TITLES = {step: kind.title for step, kind in STEPS.items()}
#: what a step reports that a reader can use: key of its record → words and unit
OUTCOMES: dict[str, tuple[str, str]] = {
    "status": ("result:", ""),
    "region": ("region:", ""),
    "kind": ("region:", ""),
    "subtracted": ("subtracted", "ppm"),
    "sd": ("SD", "ppm"),
    "voxels": ("of", "voxels"),
    "repaired_voxels": ("repaired", "voxels"),
    "iterations": ("after", "iterations"),
    "converged": ("converged:", ""),
    "lesions": ("lesions:", ""),
    "rims": ("with a rim:", ""),
}
#: units of parameters that have one, those of one step by `step.parameter`
PARAMETER_UNITS = {
    **dict.fromkeys(("erosion", "smoothing", "radius"), "mm"),
    **{"noise": "ppm", "longest": "s", "reference.erosion": "voxels"},
}
#: names of parameters that papers call otherwise
PARAMETER_NAMES = {"regularization": "λ"}


@dataclass(frozen=True)
class StepRow:
    """One line of the table of steps."""

    step: str
    method: str
    parameters: tuple[tuple[str, str], ...]
    outcome: tuple[tuple[str, str], ...]


def scan_facts(scan: Scan) -> tuple[tuple[str, str], ...]:
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


def step_row(step: Step) -> StepRow:
    """A step with its parameters and what a reader can use of its outcome."""
    outcome = [
        (words, f"{_quantity(key, step.record[key], 1.0)} {unit}".strip())
        for key, (words, unit) in OUTCOMES.items()
        if key in step.record and _short(step.record[key])
    ]
    return StepRow(
        step=step_title(step.step),
        method=step.label or step.method,
        parameters=_parameters(step),
        outcome=tuple(outcome),
    )


def step_title(name: str) -> str:
    """What is done in a step."""
    return STEP_TITLES.get(name, name.replace("_", " "))


def time_bars(runtimes: Mapping[str, float]) -> tuple[tuple[str, str, float], ...]:
    """Step, time in words and its share of the longest one in percent."""
    longest = max(runtimes.values(), default=0.0) or 1.0
    return tuple(
        (step_title(name), format_duration(s), round(100 * s / longest, 1))
        for name, s in runtimes.items()
    )


def _parameters(step: Step) -> tuple[tuple[str, str], ...]:
    """Names and short values; files, nested data and unset values are left out."""
    rows = []
    for name, value in step.parameters.items():
        if _short(value):
            unit = PARAMETER_UNITS.get(f"{step.step}.{name}", PARAMETER_UNITS.get(name, ""))
            words = PARAMETER_NAMES.get(name, name.replace("_", " "))
            rows.append((words, f"{_quantity(name, value, 1.0)} {unit}".strip()))
    return tuple(rows)


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


def _short(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) < 80 and "/" not in value
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= 8 and all(_short(v) for v in value)
    return isinstance(value, (bool, int, float))
