"""One process per node: started from a fork server, watched, and never outliving its master."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from traceback import format_exception
from typing import Any

from qsm_nipype.threads import VARIABLES, limit_threads

PRELOAD = ("qsm_nipype.execution.preload",)
EXIT_GRACE = 10.0  # s a worker may take to end after its last word


def warm_up(modules: Sequence[str] = PRELOAD) -> Any:
    """Start the fork server and return its context; it imports `modules` while the caller goes on.

    A program has one fork server: of later calls, `modules` change nothing.
    """
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    forkserver.ensure_running()
    return context


def thread_environment(n_threads: int) -> dict[str, str]:
    """Variables that hold numerical libraries to `n_threads` threads, which sleep, not spin."""
    wait = os.environ.get("OMP_WAIT_POLICY", "passive")
    return {**dict.fromkeys(VARIABLES, str(max(1, n_threads))), "OMP_WAIT_POLICY": wait}


@dataclass
class Worker:
    """A running node: its process and the pipe on which it says how it ended."""

    name: str
    process: Any
    pipe: connection.Connection

    @classmethod
    def start(
        cls, context: Any, node: Any, updatehash: bool, environment: Mapping[str, str]
    ) -> Worker:
        """Run `node` in a process of its own, whose environment is `environment`.

        Raises what pickling the node raises.
        """
        payload = pickle.dumps((node, updatehash))
        receive, send = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve, args=(send, payload, dict(environment), node.n_procs or 1), daemon=False
        )
        try:
            process.start()
        finally:
            send.close()  # else the end of the process would not be seen as end of file
        return cls(node.fullname, process, receive)

    def ended(self) -> list[str] | None:
        """None while it runs; then the lines of its traceback, empty after success."""
        alive = self.process.is_alive()  # asked first: a last word sent before death is not lost
        if not self.pipe.poll():
            return None if alive else self._died()
        try:
            lines: list[str] = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._died()
        self._reap()
        return lines

    def kill(self) -> None:
        """End the process and all that it started."""
        _kill_group(self.process.pid)
        self._reap()

    def _died(self) -> list[str]:
        self.process.join(EXIT_GRACE)
        code = self.process.exitcode
        self.kill()
        return [f"The process of node {self.name} {_cause(code)} before it could report.\n"]

    def _reap(self) -> None:
        self.process.join(EXIT_GRACE)
        if self.process.is_alive():
            _kill_group(self.process.pid)
            self.process.join(EXIT_GRACE)
        self.pipe.close()


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _kill_group(pid: int | None) -> None:
    if pid is None:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # not yet the leader of its group, or gone
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


# ---- inside the worker ---------------------------------------------------------------------


def _serve(
    pipe: connection.Connection, payload: bytes, environment: dict[str, str], n_threads: int
) -> None:
    os.setsid()  # a group of its own: Ctrl-C reaches the master only, and kill reaches all of us
    threading.Thread(target=_end_with_master, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    limit_threads(n_threads)
    pipe.send(_execute(payload))
    pipe.close()


def _end_with_master() -> None:
    master = multiprocessing.parent_process()
    if master is not None:
        connection.wait([master.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _execute(payload: bytes) -> list[str]:
    try:
        from nipype import config, logging

        node, updatehash = pickle.loads(payload)
        config.update_config(node.config)
        logging.update_logging(config)
        node.run(updatehash=updatehash)
    except BaseException as error:  # SystemExit too: it is the node's failure, not ours
        return format_exception(error)
    return []
