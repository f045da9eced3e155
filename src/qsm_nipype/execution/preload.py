"""What the fork server imports once, so that a node's process starts with it already there.

Imported by the fork server only. Imports must start no thread: a process forked while threads run
can deadlock. OpenBLAS starts its threads when numpy is imported, unless it is told to use one.
"""

import importlib
import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# OpenMP reads this when torch is imported: waiting threads sleep. Where other programs run, too,
# threads that spin while they wait made two threads five times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

for _module in (
    "numpy",
    "scipy.fft",
    "scipy.ndimage",
    "nibabel",
    "nipype.pipeline.engine",
    "nipype.interfaces.utility",
    "nipype.pipeline.plugins",
    "torch",
    "numba",
    "qsm_nipype.interfaces.base",
    "qsm_nipype.volume",
    "qsm_nipype.core.reading.acquisition",
    "qsm_nipype.core.masking",
    "qsm_nipype.core.relaxometry",
    "qsm_nipype.execution.multiproc",
    "qsm_nipype.report.figures",
    "qsm_nipype.cli",
):
    try:
        importlib.import_module(_module)
    except ImportError:  # the node that needs it will say so; the others can run
        continue

# numba's compiler: 0.4 s in every process that first compiles, or loads a compiled function
if "numba" in sys.modules:
    sys.modules["numba"].njit("int64(int64)")(lambda n: n)
