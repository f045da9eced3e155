"""Processes that execute nodes: from a fork server, watched, and never outliving their master.

A process executes one node after the other, because starting one and importing what a node needs
costs as much as many a node. It is used again only after it has done well, and when it holds much
memory (an imported framework), only for nodes of the same kind, whose need includes that.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from traceback import format_exception
from typing import Any

from qsm_nipype.system import memory
from qsm_nipype.system.threads import VARIABLES, limit_threads

PRELOAD = ("qsm_nipype.execution.preload",)
EXIT_GRACE = 10.0  # s a worker may take to end after its last word
LIGHT_GB = 0.45  # what a worker may hold and still take any node


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


@dataclass(frozen=True)
class Task:
    """A node as it travels to a worker, and the environment and threads it is to find there.

    `kind` is its interface, `memory_gb` what it needs. After a `last` task the worker ends.
    """

    name: str
    kind: str
    node: bytes
    environment: Mapping[str, str]
    n_threads: int
    memory_gb: float
    last: bool = False

    @classmethod
    def of(
        cls,
        node: Any,
        updatehash: bool,
        environment: Mapping[str, str],
        *,
        last: bool = False,
    ) -> Task:
        """Raises what pickling the node raises."""
        return cls(
            name=node.fullname,
            kind=f"{type(node.interface).__module__}.{type(node.interface).__qualname__}",
            node=pickle.dumps((node, updatehash)),
            environment=dict(environment),
            n_threads=node.n_procs or 1,
            memory_gb=node.mem_gb,
            last=last,
        )


@dataclass(frozen=True)
class Word:
    """What a worker says of a node: the lines of its traceback, whether it takes another, and
    how much memory (GB) it holds now.
    """

    lines: list[str]
    again: bool
    held_gb: float


@dataclass
class Worker:
    """A process, and the pipe on which it is given nodes and says how they ended."""

    process: Any
    pipe: connection.Connection
    task: Task | None = None  # what it works on, or did last
    again: bool = True
    held_gb: float = 0.0

    @classmethod
    def start(cls, context: Any) -> Worker:
        """A process without work."""
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=False)
        try:
            process.start()
        finally:
            theirs.close()  # else the end of the process would not be seen as end of file
        return cls(process, ours)

    def give(self, task: Task) -> None:
        """Let it work on a node; that it has died meanwhile is seen by `ended`."""
        self.task, self.again = task, False
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def ended(self) -> list[str] | None:
        """None while it works; then the lines of its node's traceback, empty after success."""
        alive = self.process.is_alive()  # asked first: a last word sent before death is not lost
        if not self.pipe.poll():
            return None if alive else self._died()
        try:
            word: Word = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._died()
        self.again, self.held_gb = word.again, word.held_gb
        if not word.again:
            self._reap()
        return word.lines

    def usable(self) -> bool:
        """Whether it waits for work: it lives, and has said nothing since its last word."""
        return self.again and self.process.is_alive() and not self.pipe.poll()

    def suits(self, task: Task) -> bool:
        """Whether a waiting one may take `task`: as many threads, and memory left for it."""
        if self.task is None or self.task.n_threads != task.n_threads:
            return False
        same = self.task.kind == task.kind and self.held_gb < task.memory_gb
        return same or self.held_gb < LIGHT_GB

    def kill(self) -> None:
        """End the process and all that it started."""
        self.again = False
        _kill_group(self.process.pid)
        self._reap()

    def dismiss(self) -> None:
        """End one that waits: it sees its pipe closed and tidies up behind itself."""
        self.again = False
        self._reap()

    def _died(self) -> list[str]:
        self.process.join(EXIT_GRACE)
        code = self.process.exitcode
        self.kill()
        name = self.task.name if self.task else ""
        return [f"The process of node {name} {_cause(code)} before it could report.\n"]

    def _reap(self) -> None:
        self.pipe.close()
        self.process.join(EXIT_GRACE)
        if self.process.is_alive():
            _kill_group(self.process.pid)
            self.process.join(EXIT_GRACE)


@dataclass
class Pool:
    """Workers that wait for their next node."""

    context: Any
    waiting: list[Worker] = field(default_factory=list)

    def take(self, task: Task) -> Worker:
        """One that waits, best one that knows this kind of node, else a new one."""
        suited = [worker for worker in self.waiting if worker.suits(task)]
        suited.sort(key=lambda worker: worker.held_gb, reverse=True)
        for worker in suited:
            self.waiting.remove(worker)
            if worker.usable():
                return worker
            worker.kill()
        return Worker.start(self.context)

    def put(self, worker: Worker) -> None:
        """Keep a worker that has finished a node, unless it is not to be used again."""
        if worker.usable():
            self.waiting.append(worker)

    def shrink(self, count: int, memory_gb: float) -> None:
        """Keep the last used of them: at most `count`, which together hold at most `memory_gb`."""
        while self.waiting and (
            len(self.waiting) > count or sum(w.held_gb for w in self.waiting) > memory_gb
        ):
            self.waiting.pop(0).dismiss()


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
    except (
        ProcessLookupError,
        PermissionError,
    ):  # not yet the leader of its group, or gone
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


# ---- inside the worker ---------------------------------------------------------------------


def _serve(pipe: connection.Connection) -> None:
    os.setsid()  # a group of its own: Ctrl-C reaches the master only, and kill reaches all of us
    threading.Thread(target=_end_with_master, daemon=True).start()
    home = os.getcwd()
    again = True
    while again:
        try:
            task: Task = pipe.recv()
        except EOFError:  # the master has gone
            return
        os.environ.clear()
        os.environ.update(task.environment)
        limit_threads(task.n_threads)
        lines = _execute(task.node)
        os.chdir(home)
        again = not lines and not task.last and not _has_children()
        memory.return_freed()
        pipe.send(Word(lines, again, memory.resident_gb()))
    pipe.close()


def _has_children() -> bool:
    """Whether the node has left processes behind."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


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
