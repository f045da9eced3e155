"""Numerical libraries keep to their number of threads, whatever the environment says."""

import os
import subprocess
import sys

SCRIPT = """
import numba
from numba.np.ufunc import parallel
from qsm_nipype.system.threads import limit_threads
for wanted in (2, 1, 2):
    limit_threads(wanted)
    parallel._launch_threads()
    print(parallel.get_num_threads())
"""

#: A process that serves nodes: the next one asks for fewer threads, and has to compile.
REUSED = """
import os
import numba
from numba.np.ufunc import parallel
from qsm_nipype.system.threads import limit_threads
limit_threads(2)
parallel._launch_threads()
os.environ["NUMBA_NUM_THREADS"] = "1"
limit_threads(1)
print(numba.njit(lambda n: n + 1)(1), parallel.get_num_threads())
"""


def threads(script=SCRIPT, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_numba_keeps_to_the_number_asked_for():
    assert threads(NUMBA_NUM_THREADS="2") == ["2", "1", "2"]


def test_a_limit_in_the_environment_holds_and_stops_no_run():
    assert threads(NUMBA_NUM_THREADS="1") == ["1", "1", "1"]


def test_fewer_threads_than_were_started_stop_no_compilation():
    assert threads(REUSED, NUMBA_NUM_THREADS="2") == ["2", "1"]
