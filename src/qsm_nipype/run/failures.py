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
    crashes = sorted(
        (settings.output_dir / "logs" / "crashes").glob("crash-*"), key=lambda p: p.stat().st_mtime
    )
    found: dict[str, Failure] = {}
    for fullname in nodes:
        owner = next((by_name[part] for part in fullname.split(".") if part in by_name), None)
        crash = next((c for c in reversed(crashes) if _crash_is_of(c, fullname)), None)
        reason = reason_of(crash.read_text(errors="replace")) if crash else "see the log"
        name = fullname.rsplit(".", 1)[-1]  # records_01 and report_01 belong to a participant
        subject = owner.subject if owner else name.partition("_")[2]
        label = owner.label if owner else f"sub-{subject}"
        found.setdefault(label, Failure(label, subject, reason, fullname, str(crash or "")))
    return list(found.values())


def _crash_is_of(crash: Path, fullname: str) -> bool:
    return any(
        line.strip() == f"Node: {fullname}"
        for line in crash.read_text(errors="replace").split("\n")
    )


def reason_of(crash: str) -> str:
    """The sentence of a crash file: ours without the exception's name, another's with it."""
    lines = [line.strip() for line in crash.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("qsm_nipype.errors."):
            return line.split(": ", 1)[-1]
    return lines[-1] if lines else "the node left no message"
