"""What failed in a run, in one sentence for each acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.settings import Settings


@dataclass(frozen=True)
class Failure:
    """What failed, in one sentence; `crash_file` holds the traceback where there is one."""

    label: str
    subject: str
    reason: str
    node: str = ""
    crash_file: str = ""


def collect_failures(
    settings: Settings, acquisitions: Sequence[Acquisition], nodes: Sequence[str]
) -> list[Failure]:
    """Failed nodes as one failure for each acquisition, with the reason from its crash file."""
    by_name = {a.name: a for a in acquisitions}
    crashes = _crashes(settings.output_dir / "logs" / "crashes") if nodes else {}
    found: dict[str, Failure] = {}
    for fullname in nodes:
        owner = next((by_name[part] for part in fullname.split(".") if part in by_name), None)
        crash = crashes.get(fullname)
        reason = reason_of(_text(crash)) if crash else "see the log"
        name = fullname.rsplit(".", 1)[-1]  # records_01 and report_01 belong to a participant
        subject = owner.subject if owner else name.partition("_")[2]
        label = owner.label if owner else f"sub-{subject}"
        found.setdefault(label, Failure(label, subject, reason, fullname, str(crash or "")))
    return list(found.values())


def _crashes(folder: Path) -> dict[str, Path]:
    """The latest crash file of each node, by the node's full name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("crash-*"), key=lambda p: p.stat().st_mtime):
        for line in _text(path, 5000).split("\n")[:5]:
            if line.startswith("Node: "):
                found[line.removeprefix("Node: ").strip()] = path
    return found


def _text(path: Path, letters: int = -1) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(letters)
    except OSError:
        return ""


def reason_of(crash: str) -> str:
    """The sentence of a crash file: ours without the exception's name, another's with it."""
    lines = [line.strip() for line in crash.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("qsm_nipype.errors."):
            return line.split(": ", 1)[-1]
    return lines[-1] if lines else "the node left no message"
