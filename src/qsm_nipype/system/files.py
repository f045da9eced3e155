"""Files that appear under their names only when complete."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file in one step, making its folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{uuid.uuid4().hex}-{path.name}")
    partial.write_bytes(content)
    os.replace(partial, path)
    return str(path)


def write_text(path: Path, content: str) -> str:
    """Write text as UTF-8 in one step; returns the path."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> str:
    """Write `content` as JSON in one step; returns the path."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
