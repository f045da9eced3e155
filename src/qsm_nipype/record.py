"""What a run tells the report: one JSON record per acquisition.

Every part may be missing; a part of the wrong kind counts as missing. `AcquisitionRecord` names
the parts. Only fields of the allow-list `ACQUISITION_FIELDS` are taken from `acquisition`, so
that names, dates and serial numbers of a sidecar never reach a page that gets passed around.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# field of the record → its label, unit and factor; what is not here is not shown
ACQUISITION_FIELDS: dict[str, tuple[str, str, float]] = {
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
    "bipolar": ("Bipolar read-out", "", 1.0),
    "coils": ("Uncombined coils", "", 1.0),
}
#: entities of an acquisition in BIDS order
ENTITIES = ("sub", "ses", "sample", "task", "acq", "ce", "rec", "dir", "run", "flip", "inv", "mt")


@dataclass(frozen=True)
class Number:
    """One quality measure: `value` in `unit`, with its spread where it has one."""

    name: str
    value: float | str
    unit: str = ""
    description: str = ""
    label: str = ""
    sd: float | None = None


@dataclass(frozen=True)
class Step:
    """One processing step as it was run: the method's registry key and its parameters."""

    step: str
    method: str
    label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What was decided on reading the phase, and why."""

    what: str
    why: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of the page; `path` is relative to the page."""

    name: str
    path: str
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Failure:
    """Why an acquisition ended early."""

    message: str
    node: str = ""
    crashfile: str = ""


@dataclass(frozen=True)
class AcquisitionRecord:
    """One acquisition of one subject. See the module's docstring and docs/report.md."""

    entities: Mapping[str, str] = field(default_factory=dict)
    source_files: tuple[str, ...] = ()
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    steps: tuple[Step, ...] = ()
    numbers: tuple[Number, ...] = ()
    warnings: tuple[str, ...] = ()
    runtimes: Mapping[str, float] = field(default_factory=dict)
    error: Failure | None = None
    maps: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    viewer: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(
        cls, source: str | Path | Mapping[str, Any] | AcquisitionRecord
    ) -> AcquisitionRecord:
        """Read a record from a file or a dictionary.

        A file that cannot be read becomes a record that says so: the page of the other
        acquisitions must still appear.
        """
        if isinstance(source, AcquisitionRecord):
            return source
        content: Any = source
        if isinstance(source, (str, Path)):
            try:
                content = json.loads(Path(source).read_text(encoding="utf-8"))
            except (OSError, ValueError) as exc:
                kind = type(exc).__name__
                message = f"{Path(source).name}: this record could not be read ({kind})"
                return cls(error=Failure(message))
        parts = _mapping(content)
        phase = _mapping(parts.get("phase_reading"))
        return cls(
            entities=_entities(_mapping(parts.get("entities"))),
            source_files=tuple(Path(str(f)).name for f in _list(parts.get("source_files"))),
            acquisition=_allowed(_mapping(parts.get("acquisition"))),
            decisions=(*(_decision(d) for d in _list(phase.get("decisions"))), *_reading(phase)),
            steps=tuple(_step(s) for s in _list(parts.get("steps")) if isinstance(s, Mapping)),
            numbers=_numbers(_mapping(parts.get("numbers"))),
            warnings=_warnings(phase.get("warnings"), parts.get("warnings")),
            runtimes=_runtimes(_mapping(parts.get("runtimes"))),
            error=_failure(parts.get("error")),
            maps={str(k): str(v) for k, v in _mapping(parts.get("maps")).items()},
            figures=tuple(_figure(f) for f in _list(parts.get("figures")) if _has_path(f)),
            viewer=_mapping(parts.get("viewer")),
        )

    @property
    def subject(self) -> str:
        """The subject's label without `sub-`."""
        return self.entities.get("sub", "")

    @property
    def label(self) -> str:
        """The acquisition's name within its subject: "ses-1, run-2", or "Gradient echoes"."""
        own = [f"{k}-{v}" for k, v in self.entities.items() if k != "sub"]
        return ", ".join(own) or "Gradient echoes"

    @property
    def order(self) -> list[Any]:
        """Sorts acquisitions as their files' names, but run-10 after run-2."""
        name = "_".join(f"{key}-{value}" for key, value in self.entities.items())
        return [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", name)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, Sequence) else []


def _entities(found: Mapping[str, Any]) -> dict[str, str]:
    """Known entities under their short names, in BIDS order; `sub-` prefixes are dropped."""
    long = {"subject": "sub", "session": "ses", "acquisition": "acq", "reconstruction": "rec"}
    short = {long.get(str(k), str(k)): v for k, v in found.items() if v not in (None, "")}
    return {k: str(short[k]).removeprefix(f"{k}-") for k in ENTITIES if k in short}


def _allowed(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: found[k] for k in ACQUISITION_FIELDS if found.get(k) not in (None, "", [])}


def _decision(value: Any) -> Decision:
    if not isinstance(value, Mapping):
        return Decision(str(value))
    what = next((value[k] for k in ("what", "decision", "name") if value.get(k)), "")
    if value.get("value") not in (None, ""):
        what = f"{what}: {value['value']}"
    why = next((value[k] for k in ("why", "reason", "because") if value.get(k)), "")
    return Decision(str(what), str(why))


def _reading(phase: Mapping[str, Any]) -> list[Decision]:
    """What `core.phase.read_phase` recorded, in sentences."""
    said = []
    if phase.get("decision"):
        said.append(Decision(f"Unit: {phase['decision']}", str(phase.get("reason") or "")))
    spans = [s for s in _list(phase.get("stored_range")) if len(_list(s)) == 2]
    if spans:
        low, high = min(float(s[0]) for s in spans), max(float(s[1]) for s in spans)
        header = [
            f"{word} {', '.join(_plain(v) for v in values)}"
            for word, key in (
                ("Units in the sidecar:", "units_in_sidecar"),
                ("slope", "slope"),
                ("intercept", "intercept"),
            )
            if (values := _list(phase.get(key)))
        ]
        said.append(Decision(f"Stored values {_plain(low)} to {_plain(high)}", "; ".join(header)))
    if phase.get("voxels_without_signal"):
        fill = _finite(phase.get("fill_value"))
        why = "" if fill is None else f"they hold the value {_plain(fill)} in every echo"
        said.append(Decision(f"{phase['voxels_without_signal']} voxels left out", why))
    axis = phase.get("alternating_slices_axis")
    axes = [axis] if isinstance(axis, int) else _list(axis)
    if axes:
        told = ", ".join(str(a) for a in axes)
        said.append(Decision("Alternating sign undone", f"slices along axis {told} alternate"))
    score = _finite(phase.get("sign_agreement"))
    if score is not None:
        said.append(
            Decision(
                "Sign inverted" if phase.get("sign_inverted") else "Sign as stored",
                f"agreement of the field with a head in air: {_plain(score)} (−1 to 1)",
            )
        )
    return said


def _plain(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("-", "−") if isinstance(value, float) else text


def _step(found: Mapping[str, Any]) -> Step:
    return Step(
        step=str(found.get("step", "")),
        method=str(found.get("method", "")),
        label=str(found.get("label") or found.get("method") or ""),
        parameters=dict(_mapping(found.get("parameters"))),
        record=dict(_mapping(found.get("record"))),
    )


def _numbers(found: Mapping[str, Any]) -> tuple[Number, ...]:
    numbers = []
    for name, entry in found.items():
        parts = entry if isinstance(entry, Mapping) else {"value": entry}
        value = parts.get("value")
        if value is None or isinstance(value, (Mapping, list, tuple)):
            continue
        numbers.append(
            Number(
                name=str(name),
                value=value if isinstance(value, str) else float(value),
                unit=str(parts.get("unit") or ""),
                description=str(parts.get("description") or ""),
                label=str(parts.get("label") or ""),
                sd=_finite(parts.get("sd")),
            )
        )
    return tuple(numbers)


def _warnings(*lists: Any) -> tuple[str, ...]:
    """All warnings, each once, in the order in which they came."""
    return tuple(dict.fromkeys(str(w) for found in lists for w in _list(found)))


def _runtimes(found: Mapping[str, Any]) -> dict[str, float]:
    seconds = {str(k): _finite(v) for k, v in found.items()}
    return {k: v for k, v in seconds.items() if v is not None}


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _failure(value: Any) -> Failure | None:
    if not value:
        return None
    parts = value if isinstance(value, Mapping) else {"message": value}
    return Failure(
        message=str(parts.get("message") or "the acquisition failed without saying why"),
        node=str(parts.get("node") or ""),
        crashfile=Path(str(parts.get("crashfile") or "")).name,
    )


def _has_path(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value.get("path"))


def _figure(found: Mapping[str, Any]) -> Figure:
    name = str(found.get("name") or Path(str(found["path"])).stem)
    return Figure(
        name=name,
        path=str(found["path"]),
        title=str(found.get("title") or name.replace("_", " ").capitalize()),
        caption=str(found.get("caption") or ""),
    )
