"""The record of an acquisition: the schema of what a run stores, and of what the report shows.

`AcquisitionRecord` and its parts are the JSON object that `interfaces.records` joins,
`interfaces.reportlets` completes with pictures and `report` reads. The fields of a class are the
keys of its JSON object and their types the kinds of the values: `from_json` refuses what is not
declared here, so that names, dates and serial numbers of a sidecar never reach a page that gets
passed around.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from qsm_nipype.dataset.names import stem
from qsm_nipype.errors import DataError

Part = TypeVar("Part")
#: What a sidecar states, whose kind nobody guarantees.
Stated = float | str | tuple[float | str, ...]
#: How grave a finding is: harmless but worth reading; to be looked at before the map is trusted;
#: the map that was written must not be used.
Severity = Literal["note", "warning", "error"]
#: A map's traffic light.
Light = Literal["green", "yellow", "red"]
#: How a number lies in its usual range.
Judgement = Literal["", "ok", "unusual", "bad"]


@dataclass(frozen=True)
class Scan:
    """Scanner, timing (s) and geometry (mm, degrees) of the acquisition; field strength in T.

    These fields are the allow-list of what may be shown of a sidecar.
    """

    manufacturer: Stated | None = None
    model: Stated | None = None
    field_strength: float | None = None
    sequence: Stated | None = None
    echo_times: tuple[float, ...] = ()
    repetition_time: Stated | None = None
    flip_angle: Stated | None = None
    voxel_size: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()
    b0_dir: tuple[float, ...] = ()
    orientation: str = ""
    obliquity: float | None = None


@dataclass(frozen=True)
class PhaseReading:
    """How the phase was read: what `core.reading` found, decided and why."""

    decision: str
    reason: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    kind: str = ""
    units_in_sidecar: tuple[str, ...] = ()
    slope: tuple[float, ...] = ()
    intercept: tuple[float, ...] = ()
    stored_range: tuple[tuple[float, ...], ...] = ()
    scaled_range: tuple[tuple[float, ...], ...] = ()
    fill_value: float | None = None
    voxels_without_signal: int = 0
    coils: int = 1
    alternating_slices_axis: tuple[int, ...] = ()
    sign_agreement: float | None = None
    sign_inverted: bool = False
    echo_times: tuple[float, ...] = ()


@dataclass(frozen=True)
class Step:
    """One processing step as it was run: `step.method` is the registry's key.

    `record` is what the step's node reported, free in its keys.
    """

    step: str
    method: str
    label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any, *, name: str = "step") -> Step:
        """Raises DataError, see `AcquisitionRecord.from_json`."""
        return _read_part(cls, content, f"{name}: ")


@dataclass(frozen=True)
class Number:
    """One quality measure: `value` in `unit`, with its spread where it has one.

    `usual` is the range of good maps, its lower and its upper end (None: open), `judgement` what
    became of the comparison (empty: there was none), `reason` what a value outside it means.
    """

    value: float | str
    unit: str = ""
    description: str = ""
    sd: float | None = None
    usual: tuple[float | None, ...] = ()
    judgement: Judgement = ""
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found about an acquisition, in one sentence; `step` is a key of `methods.STEPS`.

    Without a step it is about the input, or about what was asked for.
    """

    severity: Severity
    text: str
    step: str = ""


@dataclass(frozen=True)
class Verdict:
    """The light of a map and why it is not green; `verdict.judge` makes it of the findings."""

    light: Light
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture of the page; `path` is relative to the output folder.

    `caption` says what to look for, `alt` what there is to see, for those who do not see it;
    `page` is one that shows more of it, relative to the output folder, or empty.
    """

    name: str
    title: str
    path: str
    caption: str = ""
    alt: str = ""
    page: str = ""


@dataclass(frozen=True)
class Viewer:
    """The manifest of `report.volumes.render_viewer`, and the folder of its files."""

    layers: tuple[Mapping[str, Any], ...]
    folder: str
    overlays: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON material."""
        return _write(self)


@dataclass(frozen=True)
class FailureRecord:
    """Why an acquisition ended early."""

    message: str
    node: str = ""
    crashfile: str = ""


@dataclass(frozen=True)
class AcquisitionRecord:
    """One acquisition of one subject; docs/report.md lists its keys.

    `entities` are those of the source image, `findings` what a reader should know, `verdict` their
    sum (None: there is no map), `runtimes` seconds by step, `maps` and the paths in
    `figures` and `viewer` relative to the output folder. `references` (one for each inversion)
    and `segmentation` (by its method) hold fields for the sidecars of maps; `age` in years, as the
    dataset's tables say.
    """

    entities: Mapping[str, str]
    source_files: tuple[str, ...] = ()
    source_uris: tuple[str, ...] = ()
    datatype: str = "anat"
    own_mask: Mapping[str, str] = field(default_factory=dict)
    acquisition: Scan = field(default_factory=Scan)
    phase_reading: PhaseReading | None = None
    steps: tuple[Step, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    verdict: Verdict | None = None
    runtimes: Mapping[str, float] = field(default_factory=dict)
    references: tuple[Mapping[str, Any], ...] = ()
    segmentation: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    viewer: Viewer | None = None
    maps: Mapping[str, str] = field(default_factory=dict)
    age: float | None = None
    error: FailureRecord | None = None

    @classmethod
    def from_json(cls, content: Any, *, name: str = "record") -> AcquisitionRecord:
        """The record in `content`, which `json.loads` returned.

        Raises DataError with the record's `name` and the field for keys that are not declared,
        values of another kind, and mandatory keys that are missing. The `warnings` of records that
        were stored before findings had a severity are read as findings.
        """
        record = _read_part(cls, _of_today(content), f"{name}: ")
        if not record.entities.get("sub"):
            raise DataError(f"{name}: entities.sub is missing")
        return record

    def to_json(self) -> dict[str, Any]:
        """As JSON material, from which `from_json` makes the same record; None is left out."""
        return _write(self)

    @property
    def name(self) -> str:
        """`sub-01_run-2`, with its entities in BIDS order."""
        return stem(self.entities)


def _of_today(content: Any) -> Any:
    """A record with `findings`, where one of before has a list of `warnings`.

    A viewer of before, which had sheets of slices, is left out.
    """
    if not isinstance(content, Mapping):
        return content
    viewer = content.get("viewer")
    if isinstance(viewer, Mapping) and "planes" in viewer:
        content = {key: value for key, value in content.items() if key != "viewer"}
    if not isinstance(content.get("warnings"), list):
        return content
    found = [{"severity": "warning", "text": text} for text in content["warnings"]]
    rest = {key: value for key, value in content.items() if key != "warnings"}
    return {**rest, "findings": [*found, *rest.get("findings", [])]}


# ---- JSON by the declared types -------------------------------------------------------------


def _write(value: Any) -> Any:
    """`value` as dictionaries and lists, without fields that are None."""
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: _write(part) for name, part in parts.items() if part is not None}
    if isinstance(value, Mapping):
        return {name: _write(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_write(part) for part in value]
    return value


def _read_part(cls: type[Part], content: Any, where: str) -> Part:
    """The object of `content` as the dataclass `cls`; `where` begins every refusal."""
    if not isinstance(content, Mapping):
        raise DataError(f"{where.removesuffix(': ')}: {_kind_of(content)} instead of an object")
    types = get_type_hints(cls)
    for name in content:
        if name not in types:
            raise DataError(f"{_below(where, name)} is no field of this part of a record")
    for part in fields(cls):  # type: ignore[arg-type]
        unset = part.default is MISSING and part.default_factory is MISSING
        if unset and part.name not in content:
            raise DataError(f"{_below(where, part.name)} is missing")
    return cls(**{k: _read(types[k], v, _below(where, k)) for k, v in content.items()})


def _read(wanted: Any, value: Any, where: str) -> Any:
    """`value` of JSON as the declared type `wanted`."""
    choices = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    chosen = next((c for c in choices if _fits(c, value)), None)
    if chosen is None:
        kinds = " or ".join(_in_words(c) for c in choices)
        raise DataError(f"{where} is {_kind_of(value)} instead of {kinds}")
    family = _family(chosen)
    if family is tuple:
        item = get_args(chosen)[0]
        return tuple(_read(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if family is Mapping:
        item = get_args(chosen)[1]
        return {str(k): _read(item, v, _below(where, k)) for k, v in value.items()}
    if family is object:
        return _read_part(chosen, value, where)
    return float(value) if family is float else value


def _family(wanted: Any) -> Any:
    """The kind of a declared type: a key of `_KINDS`."""
    if wanted is Any:
        return Any
    if is_dataclass(wanted):
        return object
    return get_origin(wanted) or wanted


#: Kinds of JSON values in words, as types are declared here.
_KINDS: dict[Any, str] = {
    Any: "anything",
    object: "an object",
    Mapping: "an object",
    tuple: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "null",
}
_ACCEPTED: dict[Any, tuple[type, ...]] = {
    object: (Mapping,),
    tuple: (list, tuple),
    float: (float, int),
}


def _fits(wanted: Any, value: Any) -> bool:
    family = _family(wanted)
    if family is Any:
        return True
    if family is Literal:
        return value in get_args(wanted)
    if isinstance(value, bool):  # would pass for 0 or 1
        return family is bool
    return isinstance(value, _ACCEPTED.get(family, (family,)))


def _in_words(wanted: Any) -> str:
    """A declared type in words."""
    if _family(wanted) is Literal:
        return f"one of {', '.join(map(repr, get_args(wanted)))}"
    return _KINDS[_family(wanted)]


def _kind_of(value: Any) -> str:
    """The kind in words; the value itself may be nobody's business."""
    family = next(k for k in _KINDS if k not in (Any, object) and _fits(k, value))
    return _KINDS[family]


def _below(where: str, name: Any) -> str:
    return f"{where}{name}" if where.endswith(": ") else f"{where}.{name}"
