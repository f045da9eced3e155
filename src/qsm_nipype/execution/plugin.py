"""The plugin that executes a graph, within what this machine or job allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qsm_nipype.errors import UsageError
from qsm_nipype.execution.resources import available_cpus, available_memory_gb, gpu_ids
from qsm_nipype.system import yaml_text
from qsm_nipype.system.files import UnreadableError

PLUGINS = ("Linear", "MultiProc", "SLURM", "SLURMGraph")
OWN_GB = 0.3  # of the memory that may be used, for what is not a node: the master, mostly


def plugin_settings(
    name: str = "MultiProc",
    n_procs: int | None = None,
    memory_gb: float | None = None,
    n_gpus: int | None = None,
    omp_nthreads: int | None = None,
    user_file: Path | str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The plugin to pass to `Workflow.run` and its arguments.

    `user_file` is a YAML file with `plugin` and `plugin_args` as Nipype takes them; what it says
    wins over the other arguments. Ours are returned as instances, Nipype's others by their names.
    Raises UsageError for a file, or threads per node, that cannot be used.
    """
    args: dict[str, Any] = {}
    if user_file is not None:
        name, args = _read_plugin_file(Path(user_file), name)
    if name == "MultiProc":
        args = {**_local_limits(n_procs, memory_gb, n_gpus), **args}
        if omp_nthreads and omp_nthreads > args["n_procs"]:
            raise UsageError(
                f"--omp-nthreads {omp_nthreads}: a node cannot have more threads than there are "
                f"processors for all ({args['n_procs']}); lower it, or raise --nprocs."
            )
    return _instance(name, args), args


def _local_limits(
    n_procs: int | None, memory_gb: float | None, n_gpus: int | None
) -> dict[str, Any]:
    return {
        "n_procs": n_procs or available_cpus(),
        "memory_gb": round(max(0.2, (memory_gb or available_memory_gb()) - OWN_GB), 2),
        "gpu_ids": gpu_ids(n_gpus),
    }


def _instance(name: str, args: dict[str, Any]) -> Any:
    if name == "MultiProc":
        from qsm_nipype.execution.multiproc import MultiProcPlugin

        return MultiProcPlugin(plugin_args=args)
    if name == "Linear":
        from qsm_nipype.execution.linear import LinearPlugin

        return LinearPlugin(plugin_args=args)
    if name == "SLURM":
        from qsm_nipype.execution.slurm import SLURMPlugin

        return SLURMPlugin(plugin_args=args)
    if name == "SLURMGraph":
        from qsm_nipype.execution.slurmgraph import SLURMGraphPlugin

        return SLURMGraphPlugin(plugin_args=args)
    return name


def _read_plugin_file(path: Path, default: str) -> tuple[str, dict[str, Any]]:
    try:
        content = yaml_text.read(path)
    except UnreadableError as error:
        raise UsageError(f"{path}: the plugin file cannot be read: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin_args", {}), dict):
        raise UsageError(
            f"{path}: a plugin file has the keys plugin (a name) and plugin_args (a mapping)."
        )
    unknown = sorted(str(key) for key in set(content) - {"plugin", "plugin_args"})
    if unknown:
        raise UsageError(f"{path}: unknown key {unknown[0]!r}; use plugin and plugin_args.")
    name = content.get("plugin", default)
    if not isinstance(name, str):
        raise UsageError(f"{path}: plugin must be a name such as {', '.join(PLUGINS)}.")
    return name, dict(content.get("plugin_args") or {})
