"""Who runs something: a process named so that others can tell whether it still lives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Owner:
    """A process, distinguished from a later one of the same number by its start time.

    `kernel` is a digest of the boot of the machine and the process namespace: only within the same
    can a process number be looked up. What machines are called is not written into the output.
    """

    pid: int
    started: str
    kernel: str
    job: str = ""

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(pid, _started(pid) or "", _kernel(), _slurm_job())

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Owner:
        """From what `record` gave. Raises KeyError, TypeError or ValueError for anything else."""
        started, kernel = str(content["started"]), str(content["kernel"])
        return cls(int(content["pid"]), started, kernel, str(content.get("job", "")))

    def record(self) -> dict[str, Any]:
        """As plain values, for a JSON file."""
        return asdict(self)

    def alive(self) -> bool | None:
        """Whether the process lives; None when it cannot be seen from here."""
        if not self.kernel or self.kernel != _kernel():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        where = "this machine" if self.kernel == _kernel() else "another machine"
        return f"process {self.pid} on {where}{job}"


def _started(pid: int) -> str | None:
    """Start of a process in clock ticks since boot; None when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        return hashlib.sha256(place.encode()).hexdigest()[:16]
    except OSError:
        return ""


def _slurm_job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID", "")
