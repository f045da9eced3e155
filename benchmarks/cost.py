"""What a command costs with all its processes: wall and CPU time, and peak memory. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans become ours, so that their time is counted


@dataclass(frozen=True)
class Cost:
    """Seconds, and the most memory (GB) that all processes together held; shared pages once."""

    wall: float
    cpu: float
    peak_gb: float
    code: int
    output: str


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end, and that of every process it started."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before, started = _used(), time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    sampler = _Sampler(process.pid)
    sampler.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - started
    sampler.over.set()
    sampler.join()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Cost(wall, _used() - before, sampler.peak / 1e9, process.returncode, output)


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Sampler(threading.Thread):
    """Twice a second, the proportional memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.over, self.peak, self._pid = threading.Event(), 0, pid

    def run(self) -> None:
        while not self.over.wait(0.5):
            total = 0
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self._pid)
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_full_info().pss
            self.peak = max(self.peak, total)
