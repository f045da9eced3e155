"""One node after the other, in this process.

Differs from Nipype's own Linear: crash files are ours (`crash.write_crash`), and what depends on a
failed node is passed over without a look at it.
"""

from __future__ import annotations

import os
from traceback import format_exception
from typing import Any

import networkx as nx
from nipype.pipeline.plugins.base import PluginBase

from qsm_nipype.execution.crash import write_crash


class LinearPlugin(PluginBase):
    """Executes a graph in the order of its dependencies."""

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Execute `graph`. Raises RuntimeError naming the first failure."""
        here = os.getcwd()
        stop = str(config["execution"]["stop_on_first_crash"]).lower() in ("true", "1", "yes")
        skipped: set[Any] = set()
        failed: list[str] = []
        for node in nx.lexicographical_topological_sort(graph, key=lambda n: n.fullname):
            if node in skipped:
                continue
            self._tell(node, "start")
            try:
                node.run(updatehash=updatehash)
            except Exception as error:
                write_crash(node, format_exception(error))
                failed.append(f"{node.fullname}: {' '.join(str(error).split()[-20:])}")
                skipped |= nx.descendants(graph, node)
                self._tell(node, "exception")
                if stop:
                    break
            else:
                self._tell(node, "end")
        os.chdir(here)
        if failed:
            raise RuntimeError(f"{len(failed)} nodes failed; the first: {failed[0]}")

    def _tell(self, node: Any, event: str) -> None:
        if self._status_callback:
            self._status_callback(node, event)
