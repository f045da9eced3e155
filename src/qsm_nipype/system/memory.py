"""Memory of this process: its peak over a piece of work, keeping and giving back what is free.

Where Linux's /proc is missing, the peak is that of the whole life of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

_PROC = Path("/proc/self")
#: glibc's `mallopt`: how many blocks are mapped by themselves, and how much free memory at the top
#: of the heap is kept.
_MALLOPT = {-4: 0, -1: 2**31 - 1}


def reset_peak() -> None:
    """Let `peak_gb` count from now on; a process may work on one thing after the other."""
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text("5")


def peak_gb() -> float:
    """The most memory (GiB) that this process held since the last `reset_peak`."""
    kept = _status("VmHWM")
    return kept if kept else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def resident_gb() -> float:
    """Memory (GiB) that this process holds now; 0 where that is unknown."""
    return _status("VmRSS")


def keep_freed() -> None:
    """Let this process keep freed memory for its next arrays, until `return_freed`.

    glibc maps every large array anew and returns it when it is freed. An iterative method makes
    and drops hundreds of volumes, and clearing their pages takes a quarter of its time. Without
    glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOPT.items():
            mallopt(parameter, value)


def return_freed() -> None:
    """Return memory that is free inside the process to the system (glibc keeps some of it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> float:
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024**2
    return 0.0
