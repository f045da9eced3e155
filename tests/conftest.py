"""pytest-xdist: each worker takes its share of the processor, and none spins while idle."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # before torch is imported; more threads than cores make small solves many times slower
    share = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
