"""Which files a step has written, with sizes and checksums, so that later damage is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from qsm_nipype.system.files import write_json

#: Below the output folder: `LABEL.json` of the maps, `pictures/LABEL.json` of the figures.
FOLDER = Path("logs", "records", "files")
PICTURES = "pictures"
#: In a step's folder: the size of each file that it left there.
SIZES = "_sizes.json"

Entry = Mapping[str, Any] | None


def announce(manifest: Path, root: Path, files: Iterable[Path]) -> None:
    """Note the names of files that are about to be written; what is known of others stays."""
    new: dict[str, Entry] = dict.fromkeys(_names(root, files))
    _store(manifest, {**entries(manifest), **new})


def remember(manifest: Path, root: Path, files: Iterable[Path]) -> None:
    """Note size and checksum of `files` below `root`, and forget all others."""
    _store(manifest, {name: _state(root / name) for name in _names(root, files)})


def entries(manifest: Path) -> dict[str, Entry]:
    """What is known of each file, by its path below the root; None: it was being written.

    Empty where there is no manifest, or one that cannot be read.
    """
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        found = dict(files) if isinstance(files, Mapping) else dict.fromkeys(files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: entry for name, entry in found.items() if _inside(name)}


def damage(manifest: Path, root: Path, *, contents: bool = True) -> dict[str, str]:
    """What is wrong with each file that is not as it was written, by its path below `root`.

    Without `contents` only sizes are compared. An unreadable manifest counts as damaged itself.
    """
    known = entries(manifest)
    if not known and manifest.exists():
        return {manifest.relative_to(root).as_posix(): "cannot be read"}
    found = {name: _fault(root / name, entry, contents) for name, entry in known.items()}
    return {name: fault for name, fault in found.items() if fault}


def remember_sizes(folder: Path) -> None:
    """Note the sizes of the files that a step has left in its own folder."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] not in "._"]
    write_json(folder / SIZES, {path.name: path.stat().st_size for path in sorted(files)})


def is_whole(folder: Path) -> bool:
    """Whether the files of a step that has finished still have the sizes that were noted."""
    try:
        sizes = json.loads((folder / SIZES).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def damaged_page(root: Path, subject: str) -> str:
    """What is wrong with a participant's page, which each run of the participant writes anew."""
    try:
        with (root / f"sub-{subject}.html").open("rb") as stream:
            stream.seek(-min(stream.seek(0, 2), 100), 2)
            return "" if b"</html>" in stream.read() else "is cut short"
    except OSError:
        return "is missing"


def _fault(path: Path, entry: Entry, contents: bool) -> str:
    try:
        size = path.stat().st_size
    except OSError:
        return "is missing"
    if not isinstance(entry, Mapping):
        return "was not finished"
    if size != entry.get("size"):
        return "is empty" if size == 0 else "has another size than it was written with"
    try:
        changed = contents and _checksum(path) != entry.get("sha256")
    except OSError:
        return "cannot be read"
    return "has another content than it was written with" if changed else ""


def _state(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _checksum(path)}


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _names(root: Path, files: Iterable[Path]) -> list[str]:
    return sorted({path.relative_to(root).as_posix() for path in files})


def _inside(name: Any) -> bool:
    """Whether a name of a manifest is that of a file below the root."""
    if not isinstance(name, str) or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _store(manifest: Path, files: Mapping[str, Entry]) -> None:
    write_json(manifest, {"files": dict(files)})
