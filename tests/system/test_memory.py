"""Memory of this process: the peak counts from the last reset."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qsm_nipype.system import memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


def test_the_peak_is_that_since_the_last_reset():
    memory.return_freed()  # what tests before this one kept
    memory.reset_peak()
    start = memory.peak_gb()
    del [np.ones(2**25)][0]  # 0.25 GiB
    peak = memory.peak_gb()
    memory.return_freed()
    memory.reset_peak()
    assert peak - start == pytest.approx(0.25, abs=0.05)
    assert memory.peak_gb() == pytest.approx(memory.resident_gb(), abs=0.02)
    assert memory.peak_gb() < peak - 0.2


_LOOP = """
import resource, sys
import numpy as np
from qsm_nipype.system import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
held = memory.resident_gb()
memory.return_freed()
print(held - memory.resident_gb())
"""


def test_kept_memory_is_used_again_and_can_be_given_back():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")

    def loop(word):
        command = [sys.executable, "-c", _LOOP, word]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(line) for line in found.stdout.split()]

    (faults, _), (kept, returned) = loop("plain"), loop("keep")
    assert kept < 0.05 * faults
    assert returned > 0.05  # GiB: the array of 64 MiB


def test_without_proc_the_peak_of_the_process_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    memory.reset_peak()
    assert memory.peak_gb() > 0
    assert memory.resident_gb() == 0
