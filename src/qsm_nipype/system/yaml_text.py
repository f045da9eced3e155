"""YAML files: our own tables quickly, those of users without trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qsm_nipype.system.files import UnreadableError, read_text

#: Bytes of a configuration, and how deep its lists and mappings may lie in each other.
LARGEST, DEEPEST = 1_000_000, 20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str) -> Any:
    """The content of a text of our own."""
    return yaml.load(text, Loader=_LOADER)


def read(path: Path) -> Any:
    """The content of a user's file of plain values, lists and mappings.

    Raises UnreadableError, whose message completes `FILE: …`. Anchors are refused: aliases of
    aliases make gigabytes of a few lines.
    """
    text = read_text(path, most=LARGEST)
    try:
        _check(text)
        return parse(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as exc:
        said = str(exc).splitlines()[-1].strip() if str(exc) else type(exc).__name__
        raise UnreadableError(f"not valid YAML ({said}); correct it") from exc


def _check(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("anchors and aliases are not read")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
