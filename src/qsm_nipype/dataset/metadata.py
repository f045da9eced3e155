"""Metadata of an image by BIDS inheritance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qsm_nipype.dataset.names import canonical, parse_name
from qsm_nipype.errors import DataError
from qsm_nipype.system.files import missing_content


def sidecar(bids_dir: Path, image: Path) -> dict[str, Any]:
    """Metadata of an image by BIDS inheritance: from the dataset's root down, nearer files win.

    A JSON file applies when its suffix is the image's and each of its entities is one of the
    image's (run-1 is run-01). Raises DataError naming a JSON file that cannot be read.
    """
    entities, suffix = parse_name(image)
    own = canonical(entities)
    folders = [f for f in [*image.parents] if f == bids_dir or bids_dir in f.parents]
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        candidates = []
        for path in folder.glob(f"*{suffix}.json"):
            theirs, their_suffix = parse_name(path)
            if their_suffix == suffix and canonical(theirs).items() <= own.items():
                candidates.append((len(theirs), path))
        for _, path in sorted(candidates):
            merged.update(_read_json(path))
    return merged


def _read_json(path: Path) -> dict[str, Any]:
    if lacking := missing_content(path):
        raise DataError(f"{path}: {lacking}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as exc:
        raise DataError(f"{path}: not valid JSON ({exc}); correct the file") from exc
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold one JSON object; correct the file")
    return content
