"""Settings as YAML files and presets, and as what a later run compares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from qsm_nipype.errors import UsageError, did_you_mean
from qsm_nipype.settings.options import HOW, Settings, default, options
from qsm_nipype.system import yaml_text
from qsm_nipype.system.files import UnreadableError

#: Fields that name this run's place, not its science: left out of the saved settings.
PLACES = ("bids_dir", "output_dir", "analysis_level")
#: Fields of one invocation, which a saved settings file must not repeat.
MOMENTARY = (
    "participant_label",
    "session_label",
    "submit",
    "array_size",
    "sbatch_args",
    "container",
    "boilerplate_only",
    "reports_only",
    "dry_run",
    "verbose",
    "preset",
    "bids_filter_file",
)


def presets() -> dict[str, Path]:
    """Names and files of the presets that come with the package."""
    folder = Path(str(resources.files("qsm_nipype.data"))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yml"))}


def preset_descriptions() -> dict[str, str]:
    """What each preset is, from the first line of its file."""
    return {
        name: path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        for name, path in presets().items()
    }


def load_config(path: Path) -> dict[str, Any]:
    """Settings from a YAML file, by field name. Raises UsageError naming what is wrong."""
    try:
        content = yaml_text.read(path)
    except UnreadableError as exc:
        raise UsageError(f"{path}: {exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must hold 'name: value' lines")
    known = {f.name: f for f in options()}
    config = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UsageError(
                f"{path}: there is no setting {key!r}{did_you_mean(name, known)}; "
                "see qsm-nipype --help"
            )
        config[name] = coerce(known[name], value, where=str(path))
    return config


def coerce(option: Field[Any], value: Any, *, where: str) -> Any:
    """A value from YAML in the type of its field. Raises UsageError."""
    start = default(option)
    try:
        if value is None and (start is None or isinstance(start, Mapping | tuple)):
            return start
        if isinstance(start, tuple):
            return tuple(_text(v) for v in ([value] if isinstance(value, str) else _list(value)))
        if option.name == "parameters":
            groups = {_text(key): _mapping(own or {}) for key, own in _mapping(value).items()}
            return MappingProxyType(groups)
        if isinstance(start, Mapping):
            return MappingProxyType(
                {k: _scalar(option, "", v) for k, v in _mapping(value).items()}
            )
        return _scalar(option, start, value)
    except (TypeError, ValueError, OverflowError) as exc:
        shown = repr(value)
        shown = shown if len(shown) < 80 else f"{shown[:80]}…"
        raise UsageError(
            f"{where}: {option.name} cannot be {shown}; see {option.metadata['flags'][0]} in "
            f"qsm-nipype --help"
        ) from exc


def _scalar(option: Field[Any], start: Any, value: Any) -> Any:
    """One value of the kind that an option has. Raises TypeError, ValueError or OverflowError."""
    if isinstance(start, bool) or isinstance(value, bool):
        if not (isinstance(start, bool) and isinstance(value, bool)):
            raise TypeError
        return value
    if "Path" in str(option.type):
        if not isinstance(value, str | Path) or "\0" in str(value) or not str(value):
            raise TypeError
        return Path(value)
    if isinstance(start, int | float):
        if not isinstance(value, int | float) or type(start)(value) != value == value:
            raise TypeError
        return type(start)(value)
    if not isinstance(value, str):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return str(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return list(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError
    return dict(value)


def combine(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with `changes`; parameters of methods are merged, everything else replaced."""
    changes = dict(changes)
    if "parameters" in changes:
        merged = {key: dict(values) for key, values in base.parameters.items()}
        for key, values in changes["parameters"].items():
            merged.setdefault(key, {}).update(values or {})
        changes["parameters"] = MappingProxyType(merged)
    return replace(base, **changes)


def to_yaml(settings: Settings) -> str:
    """The settings as a configuration file that makes the same run again."""
    content = {}
    for option in options():
        if option.name not in PLACES + MOMENTARY:
            content[option.name] = _plain(getattr(settings, option.name))
    return yaml.safe_dump(content, sort_keys=False)


def with_absolute_paths(settings: Settings) -> Settings:
    """The settings as they hold in any folder: every path from the root."""
    changes: dict[str, Any] = {
        f.name: Path(os.path.abspath(getattr(settings, f.name)))
        for f in fields(Settings)
        if isinstance(getattr(settings, f.name), Path)
    }
    for name in ("derivatives", "weights"):
        given = getattr(settings, name)
        changes[name] = MappingProxyType({k: os.path.abspath(p) for k, p in given.items()})
    return replace(settings, **changes)


def named_paths(settings: Settings) -> list[Path]:
    """Every file and folder that the settings name."""
    values = [getattr(settings, f.name) for f in fields(Settings)]
    return [v for v in values if isinstance(v, Path)] + [
        Path(path) for path in (*settings.derivatives.values(), *settings.weights.values())
    ]


def science(settings: Settings) -> dict[str, Any]:
    """The choices that change a result: what decides whether a participant is done."""
    names = [o.name for o in options() if o.metadata["group"] == HOW and o.name != "preset"]
    return {name: _plain(getattr(settings, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, Path) else value
