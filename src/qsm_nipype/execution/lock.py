"""Two runs must not write the same participant's results at the same time.

A lock is a file made with O_EXCL, which is atomic on local disks and on NFS since version 3 (where
fcntl locks may be missing or hang). It names its owner. A lock whose owner is dead is taken over;
an owner on another machine cannot be asked, so it shows that it lives by touching its lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from qsm_nipype.errors import UsageError
from qsm_nipype.execution.process import Owner

TOUCH_EVERY = 30.0  # s
STALE_AFTER = 180.0  # s without a touch, for an owner that cannot be seen from here


@contextlib.contextmanager
def output_lock(out_dir: Path | str, labels: Iterable[str]) -> Iterator[None]:
    """Hold `labels` (`sub-01`, `group` …) of an output folder while the block runs.

    Raises UsageError when another run holds one of them; nothing is held then.
    """
    folder = Path(out_dir) / "logs" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    held: list[Path] = []
    stop = threading.Event()
    try:
        for label in sorted(set(labels)):
            file = folder / f"{label}.lock"
            _acquire(file, label, token)
            held.append(file)
        threading.Thread(target=_touch, args=(tuple(held), token, stop), daemon=True).start()
        yield
    finally:
        stop.set()
        for file in held:
            if _token(file) == token:
                file.unlink(missing_ok=True)


def _acquire(file: Path, label: str, token: str) -> None:
    for _ in range(3):
        if _create(file, token):
            return
        if not _stale(file):
            raise UsageError(
                f"{file.parent.parent.parent}: {label} is being processed by {_owner_text(file)}; "
                f"wait for it to end, or remove {file} if that run is gone."
            )
        _remove_stale(file)
    raise UsageError(f"{file}: other runs are starting on {label} at this moment; try again.")


def _create(file: Path, token: str) -> bool:
    """Make the lock with its content in one step (a link), so that nobody reads a half one."""
    content = {**Owner.current().record(), "token": token, "since": time.time()}
    new = file.with_name(f".{file.name}.{token}")
    new.write_text(json.dumps(content))
    try:
        os.link(new, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _create_exclusively(file, json.dumps(content))
    finally:
        new.unlink()
    return True


def _create_exclusively(file: Path, text: str) -> bool:
    try:
        with file.open("x") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def _remove_stale(file: Path) -> None:
    """Remove a stale lock, one remover at a time: a new lock must not be removed as the old.

    What is seen here as stale stays until this remover takes it. Where no lock is left, another
    run may make its own at any moment: there is nothing to remove then.
    """
    guard = file.with_name(f"{file.name}.takeover")
    if not _create_exclusively(guard, ""):
        if _age(guard) > STALE_AFTER:  # its maker died within the next three lines
            guard.unlink(missing_ok=True)
        time.sleep(0.2)
        return
    try:
        if _stale(file, missing=False):
            file.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _stale(file: Path, *, missing: bool = True) -> bool:
    """Whether the owner of a lock is gone; `missing` is the answer where there is no lock."""
    try:
        alive = Owner.parse(json.loads(file.read_text())).alive()
    except FileNotFoundError:
        return missing
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        alive = None
    return not alive if alive is not None else _age(file) > STALE_AFTER


def _age(file: Path) -> float:
    """Seconds since a file was touched, by the clock of the file's own server."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".clock") as now:
            return os.stat(now.name).st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _owner_text(file: Path) -> str:
    try:
        content = json.loads(file.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since"]))
        return f"{Owner.parse(content)} since {since}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another run"


def _token(file: Path) -> str:
    try:
        return str(json.loads(file.read_text()).get("token", ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def _touch(files: tuple[Path, ...], token: str, stop: threading.Event) -> None:
    while not stop.wait(TOUCH_EVERY):
        for file in files:
            if _token(file) == token:
                with contextlib.suppress(OSError):
                    os.utime(file)
