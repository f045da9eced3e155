"""Memory of this process: the peak counts from the last reset."""

from pathlib import Path

import numpy as np
import pytest

from qsm_nipype import memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


def test_the_peak_is_that_since_the_last_reset():
    memory.reset_peak()
    start = memory.peak_gb()
    del [np.ones(2**25)][0]  # 0.25 GiB
    peak = memory.peak_gb()
    memory.give_back()
    memory.reset_peak()
    assert peak - start == pytest.approx(0.25, abs=0.05)
    assert memory.peak_gb() == pytest.approx(memory.resident_gb(), abs=0.02)
    assert memory.peak_gb() < peak - 0.2


def test_without_proc_the_peak_of_the_process_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    memory.reset_peak()
    assert memory.peak_gb() > 0
    assert memory.resident_gb() == 0
