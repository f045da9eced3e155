"""Files that appear under their names only when complete."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: How the names begin of what is being written.
PARTIAL = ".partial-"
#: Bytes of the largest text that is read as a whole: sidecars, configurations, tables.
LARGEST_TEXT = 16_000_000


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path to write to; what is there becomes `path` when the block ends well.

    Makes the folder of `path`. The name to write to lies in the same folder, differs for every
    writer, and ends as `path` does, for libraries that go by the ending. A block that raises
    leaves `path` as it was and nothing beside it. What is written may be a file or a folder (a
    folder replaces only an empty one).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex}-{target.name}")
    try:
        yield partial
        os.replace(partial, target)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def sweep(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove what killed writers have left in and below `folder`, of the names that are ours.

    Nobody else may be writing files of these names.
    """
    for place, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            written = name[len(PARTIAL) + 33 :]  # behind the 32 letters of a UUID and a dash
            if not name.startswith(PARTIAL) or not is_ours(written):
                continue
            path = Path(place, name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file in one step, making its folder; returns the path."""
    with atomic(path) as partial:
        partial.write_bytes(content)
    return str(path)


def write_text(path: Path, content: str) -> str:
    """Write text as UTF-8 in one step; returns the path."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> str:
    """Write `content` as JSON in one step; returns the path."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


class UnreadableError(OSError):
    """A file that is no text of a bearable size; its message completes `FILE: …`, with a cure."""


def read_text(path: Path, *, most: int = LARGEST_TEXT) -> str:
    """A text file (UTF-8, with or without byte order mark) of at most `most` bytes.

    Pipes and devices, which can be read for ever, are refused. Raises UnreadableError.
    """
    try:
        if not path.is_file():
            why = "it is no file" if path.exists() else "no such file"
            raise UnreadableError(f"cannot be read ({why}); check the path")
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except UnreadableError:
        raise
    except (OSError, ValueError) as exc:
        why = str(exc.strerror if isinstance(exc, OSError) else exc)
        raise UnreadableError(f"cannot be read ({why}); check the file") from exc
    if len(data) > most:
        raise UnreadableError(f"larger than {most / 1e6:.3g} MB, so none of ours; give another")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UnreadableError("not text in UTF-8; store it so") from exc


def missing_content(path: Path) -> str:
    """Why there is no content behind the name `path`, with its cure; empty where there is.

    Links of git-annex (datalad) whose content was not fetched lead nowhere; its unlocked files,
    and those of Git LFS, hold a line of text instead.
    """
    folder = shlex.quote(str(path.parent))
    if path.is_symlink() and not path.exists():
        if ".git" not in os.readlink(path) and "annex" not in os.readlink(path):
            return f"a link to {os.readlink(path)}, which does not exist; copy the file itself"
        return f"a link whose content was not fetched; get it with `datalad get {folder}`"
    if not path.is_file() or path.stat().st_size > 1000:
        return ""
    start = path.read_bytes()[:80]
    if start.startswith(b"/annex/objects/"):
        return f"a pointer of git-annex without content; get it with `datalad get {folder}`"
    if start.startswith(b"version https://git-lfs"):
        return f"a pointer of Git LFS without content; get it with `git -C {folder} lfs pull`"
    return ""


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file in one step, making the folder of `target`."""
    with atomic(target) as partial:
        shutil.copyfile(source, partial)
