"""How far each participant is: one small JSON file each, written by the run, read by `status`.

`OUT/logs/state/sub-01.json`, all keys always present:

=============  ==================================================================================
schema         1
label          ``sub-01``, or ``group``
status         ``submitted``, ``running``, ``done`` or ``failed``
owner          pid, start time, kernel and SLURM job of the writer (see `process.Owner`)
started        seconds since 1970 when it became what `owner` runs; `updated`: last write
nodes_done     steps that are finished, of `nodes_total` (0: not known yet)
failures       list of ``{"node", "reason", "crash_file", "acquisition"}``; `reason` in one line
verdicts       of each map list of ``{"acquisition", "light", "errors", "warnings", "notes"}``:
               `light` is green, yellow or red, the last three are lists of sentences
settings       digest of what was asked for; a change makes an earlier ``done`` count as missing
log            path of the log file, or empty
=============  ==================================================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from qsm_nipype.execution.process import Owner
from qsm_nipype.system.files import atomic

SCHEMA = 1
STATUSES = ("submitted", "running", "done", "failed")
TOUCH_EVERY = 30.0  # s
LOST_AFTER = 180.0  # s without a sign of life from a machine that cannot be asked
#: Lights of a map, the gravest first, and those that make a command fail by its `--fail-on`.
LIGHTS = ("red", "yellow", "green")
FAILING: dict[str, tuple[str, ...]] = {
    "error": ("red",),
    "warning": ("red", "yellow"),
    "never": (),
}


@dataclass(frozen=True)
class State:
    """What is known of one participant."""

    label: str
    status: str
    owner: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    updated: float = 0.0
    nodes_done: int = 0
    nodes_total: int = 0
    failures: tuple[Mapping[str, str], ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = ()
    settings: str = ""
    log: str = ""

    @property
    def job(self) -> str:
        """SLURM job of the writer, or of the submission; empty without one."""
        return str(self.owner.get("job", ""))

    @property
    def light(self) -> str:
        """The gravest light of the participant's maps; empty without a map."""
        lights = {str(verdict.get("light", "")) for verdict in self.verdicts}
        return next((light for light in LIGHTS if light in lights), "")

    def alive(self) -> bool | None:
        """Whether the writer lives; None when it cannot be seen from here."""
        try:
            return Owner.parse(self.owner).alive()
        except (KeyError, TypeError, ValueError):
            return None


def failure(
    node: str, reason: str, crash_file: Path | str = "", acquisition: str = ""
) -> dict[str, str]:
    """An entry of `State.failures`; of a traceback as reason, its last line is kept."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    found = {"node": node, "reason": lines[-1] if lines else "", "crash_file": str(crash_file)}
    return {**found, "acquisition": acquisition}


def digest(settings: Mapping[str, Any]) -> str:
    """Short name of what was asked for; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write(out_dir: Path | str, label: str, status: str, **details: Any) -> State:
    """Write a participant's state. `details` are fields of `State`; what is not given is kept.

    The owner is this process unless given; the file is replaced in one step.
    """
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is not one of {', '.join(STATUSES)}")
    now = time.time()
    before = read(out_dir, label)
    owner = details.setdefault("owner", Owner.current().record())
    goes_on = before is not None and (
        status in ("done", "failed") or (before.status, before.owner) == (status, owner)
    )
    base = before if before is not None and goes_on else State(label, status, started=now)
    for name in ("failures", "verdicts"):
        details[name] = tuple(details.get(name, getattr(base, name)))
    new = replace(base, status=status, updated=now, **details)
    text = json.dumps({"schema": SCHEMA, **asdict(new)}, indent=1)
    _replace(_file(out_dir, label), text, lasting=status in ("done", "failed"))
    return new


def read(out_dir: Path | str, label: str) -> State | None:
    """A participant's state; None when there is none that this version can read."""
    file = _file(out_dir, label)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        touched = file.stat().st_mtime
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            return None
        return _of_json(content, touched)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _of_json(content: dict[str, Any], touched: float) -> State:
    """Raises TypeError, ValueError or AttributeError for anything but what `write` writes."""
    state = State(**content)
    if state.status not in STATUSES:
        raise ValueError
    failures = tuple(failure(**{k: str(v) for k, v in f.items()}) for f in state.failures)
    verdicts = tuple({str(k): v for k, v in verdict.items()} for verdict in state.verdicts)
    return replace(
        state,
        label=str(state.label),
        owner=dict(state.owner),
        failures=failures,
        verdicts=verdicts,
        nodes_done=int(state.nodes_done),
        nodes_total=int(state.nodes_total),
        started=float(state.started),
        updated=max(float(state.updated), touched),
    )


def read_all(out_dir: Path | str) -> list[State]:
    """States of all participants, by label; a file that cannot be read is a failure."""
    files = sorted((Path(out_dir) / "logs" / "state").glob("*.json"))
    return [read(out_dir, file.stem) or _damaged(file) for file in files]


def _damaged(file: Path) -> State:
    reason = f"{file.name}: this state file cannot be read; give the command again"
    return State(file.stem, "failed", failures=(failure("", reason),))


class Terminated(SystemExit):
    """SIGTERM arrived: from `kill`, a batch system's time limit, or a container being stopped."""


@contextlib.contextmanager
def running(out_dir: Path | str, settings: Mapping[str, str]) -> Iterator[None]:
    """Mark participants as running while the block runs, as failed when an error ends it.

    `settings` maps their labels to the digest of what was asked for.
    Those that the block itself has written as done or failed are left as they are. SIGTERM is
    turned into `Terminated`, so that a run that is told to end still says so.
    """
    names = tuple(settings)
    for label, digest_ in settings.items():
        write(out_dir, label, "running", settings=digest_)
    stop = threading.Event()
    threading.Thread(target=_touch, args=(out_dir, names, stop), daemon=True).start()
    previous = _handle_sigterm()
    try:
        yield
    except BaseException as error:
        _fail_unfinished(out_dir, names, _reason(error))
        raise
    else:
        _fail_unfinished(out_dir, names, "the run ended without saying how")
    finally:
        stop.set()
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _reason(error: BaseException) -> str:
    if isinstance(error, Terminated):
        return "ended by SIGTERM (time limit, scancel, or kill)"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted from the keyboard"
    return f"{type(error).__name__}: {error}"


def _fail_unfinished(out_dir: Path | str, labels: tuple[str, ...], reason: str) -> None:
    for label in labels:
        state = read(out_dir, label)
        if state is None or state.status == "running":
            write(out_dir, label, "failed", failures=[failure("", reason)])


def _handle_sigterm() -> Any:
    if threading.current_thread() is not threading.main_thread():
        return None

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    return signal.signal(signal.SIGTERM, terminate)


def _touch(out_dir: Path | str, labels: tuple[str, ...], stop: threading.Event) -> None:
    while not stop.wait(TOUCH_EVERY):
        for label in labels:
            with contextlib.suppress(OSError):
                os.utime(_file(out_dir, label))


def _file(out_dir: Path | str, label: str) -> Path:
    return Path(out_dir) / "logs" / "state" / f"{label}.json"


def _replace(file: Path, text: str, *, lasting: bool) -> None:
    with atomic(file) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        if lasting:  # an end is read after the machine went down; a thousand starts are not
            stream.flush()
            os.fsync(stream.fileno())
