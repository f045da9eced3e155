"""Which node starts when: what our plugins have in common.

Differs from Nipype's own loop: a chain of cached nodes is passed through at once, and a node that
runs in the master (`run_without_submitting`) and fails is a failure of the run.
"""

from __future__ import annotations

from traceback import format_exception
from typing import Any

import numpy as np
from nipype.pipeline.engine import MapNode
from nipype.pipeline.plugins.base import DistributedPluginBase

from qsm_nipype.execution.crash import write_crash


class SchedulingPlugin(DistributedPluginBase):
    """A plugin that says which nodes fit (`_fits`) and starts them (`_submit_job`)."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=dict(plugin_args or {}))
        # Nipype stores the arguments in every MapNode, which travels to its job: no function there
        self.plugin_args.pop("status_callback", None)

    def _fits(self, node: Any) -> bool:
        """Whether a node may start now; without limits of the plugin's own, it may."""
        return True

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Start every node that is ready and fits; pass through those that need no job."""
        settled = True
        while settled:
            settled = False
            ready = ~self.proc_done & (self.depidx.sum(axis=0) == 0).__array__().ravel()
            for jobid in np.flatnonzero(ready):
                settled |= self._dispatch(int(jobid), graph, updatehash)

    def _dispatch(self, jobid: int, graph: Any, updatehash: bool) -> bool:
        """Start a node if it fits. True: it is settled already, dependants may be ready."""
        if self.proc_done[jobid] or not self._expanded(jobid, graph):
            return False
        node = self.procs[jobid]
        if not self._fits(node):
            return False
        self.proc_done[jobid] = True
        self.proc_pending[jobid] = True
        if self._local_hash_check(jobid, graph):
            return True
        if self._status_callback:
            self._status_callback(node, "start")
        if node.run_without_submitting or self._hash_update_only(node, updatehash):
            self._run_here(jobid, graph, updatehash)
            return True
        self.pending_tasks.insert(0, (self._submit_job(node, updatehash), jobid))
        return False

    def _expanded(self, jobid: int, graph: Any) -> bool:
        """Whether a node can be started as it is; a MapNode is first split into its parts."""
        node = self.procs[jobid]
        if not isinstance(node, MapNode):
            return True
        try:
            return node.num_subnodes() <= 1 or self._submit_mapnode(jobid)
        except Exception as error:
            self._fail(jobid, graph, format_exception(error))
            return False

    @staticmethod
    def _hash_update_only(node: Any, updatehash: bool) -> bool:
        if not updatehash:
            return False
        cached, updated = node.is_cached()
        return cached and not updated

    def _run_here(self, jobid: int, graph: Any, updatehash: bool) -> None:
        try:
            self.procs[jobid].run(updatehash=updatehash)
        except Exception as error:
            self._fail(jobid, graph, format_exception(error))
        else:
            self._task_finished_cb(jobid)
            self._remove_node_dirs()

    def _fail(self, jobid: int, graph: Any, lines: list[str]) -> None:
        self._run_errors.append("".join(lines))
        self._clean_queue(jobid, graph, result={"result": None, "traceback": lines})
        self.proc_done[jobid] = True
        self.proc_pending[jobid] = False

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> str:
        lines = (result or {}).get("traceback") or "it left no message"
        node._result, node._traceback = None, lines
        return write_crash(node, lines)
