"""Hold the numerical libraries of this process to a number of threads."""

from __future__ import annotations

import os
import sys
from typing import Any

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

_most: list[int] = []  # numba's threads as it was imported: it never takes more


def limit_threads(n_threads: int) -> None:
    """Hold torch and numba to `n_threads`, whether they are imported already or not yet.

    numba fixes its number when it is imported, and on its first parallel function starts that
    many through OpenMP, whose number torch then follows, too: 2 where 1 was asked for. Once its
    threads run, they can be made fewer, not more, and never more than NUMBA_NUM_THREADS allowed
    when it was imported.
    """
    n_threads = max(1, n_threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(n_threads)
    parallel: Any = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is None:
        os.environ["NUMBA_NUM_THREADS"] = str(n_threads)
        return
    config = sys.modules["numba"].config
    if not _most:
        _most.append(config.NUMBA_NUM_THREADS)
    n_threads = min(n_threads, _most[0])
    if parallel._is_initialized:
        # numba reads its environment again before it compiles, and refuses another number then
        os.environ["NUMBA_NUM_THREADS"] = str(config.NUMBA_NUM_THREADS)
        parallel.set_num_threads(min(n_threads, parallel.NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(n_threads)
        config.reload_config()
        parallel.NUM_THREADS = n_threads
