"""Metadata of an image by BIDS inheritance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype.dataset.names import canonical, parse_name
from qsm_nipype.errors import DataError
from qsm_nipype.system.files import UnreadableError, missing_content, read_text

#: What is kept of a sidecar once it was checked: what the nodes read, and what the page shows.
#: Nothing else travels to the work folder or into a crash file.
KEPT = (
    *("EchoTime", "EchoTime1", "EchoTime2", "MagneticFieldStrength", "Manufacturer", "Units"),
    *("ManufacturersModelName", "RepetitionTime", "FlipAngle", "MRAcquisitionType"),
)
#: Letters of a text, and entries of a list, that are kept.
_LONGEST = 200


def kept(sidecar: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `KEPT` entries of a sidecar, texts cut to a length that a page can show."""
    found = {key: sidecar[key] for key in KEPT if not isinstance(sidecar.get(key, {}), Mapping)}
    return MappingProxyType({key: _short(value) for key, value in found.items()})


def _short(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str | list) else value


class Sidecars:
    """Metadata of a dataset's images: from its root down, nearer files win.

    A JSON file applies when its suffix is the image's and each of its entities is one of the
    image's (run-1 is run-01). What applies to every participant is read once.
    """

    def __init__(self, bids_dir: Path) -> None:
        self._root = bids_dir
        self._listed: dict[Path, list[tuple[dict[str, str], str, Path]]] = {}
        self._read: dict[Path, dict[str, Any]] = {}
        self._merged: dict[Path, dict[str, Any]] = {}
        self._place = bids_dir

    def __call__(self, image: Path) -> dict[str, Any]:
        """The metadata of `image`. Raises DataError naming a JSON file that cannot be read."""
        if image.parent != self._place:  # those of another participant are not needed again
            self._place = image.parent
            self._listed = {k: v for k, v in self._listed.items() if k == self._root}
            self._read = {k: v for k, v in self._read.items() if k.parent == self._root}
            self._merged = {}
        if image not in self._merged:
            self._merged[image] = self._merge(image)
        return dict(self._merged[image])

    def _merge(self, image: Path) -> dict[str, Any]:
        entities, suffix = parse_name(image)
        own = canonical(entities)
        folders = [f for f in image.parents if f == self._root or self._root in f.parents]
        merged: dict[str, Any] = {}
        for folder in reversed(folders):
            applying = [
                (len(theirs), path)
                for theirs, their_suffix, path in self._files(folder)
                if their_suffix == suffix and theirs.items() <= own.items()
            ]
            for _, path in sorted(applying):
                merged.update(self._content(path))
        return merged

    def _files(self, folder: Path) -> list[tuple[dict[str, str], str, Path]]:
        """Entities, suffix and path of the JSON files in a folder."""
        if folder not in self._listed:
            parsed = [(*parse_name(path), path) for path in folder.glob("*.json")]
            self._listed[folder] = [(canonical(own), suffix, p) for own, suffix, p in parsed]
        return self._listed[folder]

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self._read:
            self._read[path] = _read_json(path)
        return self._read[path]


def sidecar(bids_dir: Path, image: Path) -> dict[str, Any]:
    """Metadata of one image, see `Sidecars`. Raises DataError."""
    return Sidecars(bids_dir)(image)


def _read_json(path: Path) -> dict[str, Any]:
    if lacking := missing_content(path):
        raise DataError(f"{path}: {lacking}")
    try:
        content = json.loads(read_text(path))
    except UnreadableError as exc:
        raise DataError(f"{path}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not valid JSON ({exc}); correct the file") from exc
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold one JSON object; correct the file")
    return content
