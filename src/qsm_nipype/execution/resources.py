"""What this machine, control group or SLURM job allows, and the plugin that keeps within it."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from qsm_nipype.errors import UsageError

PLUGINS = ("Linear", "MultiProc", "SLURM", "SLURMGraph")
MEMORY_SHARE = 0.9  # of the machine's memory, when nothing else limits it
OWN_GB = 0.3  # of the memory that may be used, for what is not a node: the master, mostly
GIB = 2**30


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
    if name == "SLURM":
        from qsm_nipype.execution.slurm import SLURMPlugin

        return SLURMPlugin(plugin_args=args)
    if name == "SLURMGraph":
        from qsm_nipype.execution.slurmgraph import SLURMGraphPlugin

        return SLURMGraphPlugin(plugin_args=args)
    return name


def _read_plugin_file(path: Path, default: str) -> tuple[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: the plugin file cannot be read ({reason}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin_args", {}), dict):
        raise UsageError(
            f"{path}: a plugin file has the keys plugin (a name) and plugin_args (a mapping)."
        )
    unknown = sorted(set(content) - {"plugin", "plugin_args"})
    if unknown:
        raise UsageError(f"{path}: unknown key {unknown[0]!r}; use plugin and plugin_args.")
    name = content.get("plugin", default)
    if not isinstance(name, str):
        raise UsageError(f"{path}: plugin must be a name such as {', '.join(PLUGINS)}.")
    return name, dict(content.get("plugin_args") or {})


# ---- processors ----------------------------------------------------------------------------


def available_cpus(environment: Mapping[str, str] = os.environ) -> int:
    """Processors this process may use: affinity, control group and SLURM's allocation."""
    limits = [float(_affinity())]
    quota = _cpu_quota()
    if quota is not None:
        limits.append(quota)
    allocated = _slurm_cpus(environment)
    if allocated:
        limits.append(allocated)
    return max(1, math.floor(min(limits)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _slurm_cpus(environment: Mapping[str, str]) -> int | None:
    for variable in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if (value := environment.get(variable, "")).isdigit() and int(value) > 0:
            return int(value)
    return None


# ---- memory --------------------------------------------------------------------------------


def available_memory_gb(environment: Mapping[str, str] = os.environ) -> float:
    """Memory in GB this process may use: the machine's, its control group's, SLURM's."""
    limits = [psutil.virtual_memory().total * MEMORY_SHARE / GIB]
    if (group := _memory_limit()) is not None:
        limits.append(group * MEMORY_SHARE / GIB)
    if (allocated := _slurm_memory_mb(environment)) is not None:
        limits.append(allocated / 1024)
    return round(max(0.5, min(limits)), 2)


def _slurm_memory_mb(environment: Mapping[str, str]) -> float | None:
    per_node = environment.get("SLURM_MEM_PER_NODE", "")
    if per_node.isdigit() and int(per_node) > 0:  # 0: all of the node's memory
        return float(per_node)
    per_cpu = environment.get("SLURM_MEM_PER_CPU", "")
    if per_cpu.isdigit() and int(per_cpu) > 0:
        return float(per_cpu) * (_slurm_cpus(environment) or 1)
    return None


# ---- control groups, versions 1 and 2 ------------------------------------------------------


def _cgroup_folders(controller: str, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Folders of the control groups that hold this process, innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers and (root / controllers).is_dir() else root
        if controllers and base == root:
            base = root / controller
        relative = Path(name.lstrip("/"))
        folders += [base / relative, *(base / parent for parent in relative.parents), base]
    return list(dict.fromkeys(folders))


def _memory_limit() -> float | None:
    limits = []
    for folder in _cgroup_folders("memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / file)
            if text.isdigit() and int(text) < 2**60:  # "max", or version 1's enormous number
                limits.append(float(text))
    return min(limits, default=None)


def _cpu_quota() -> float | None:
    limits = []
    for folder in _cgroup_folders("cpu"):
        words = _read(folder / "cpu.max").split()
        if not words:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# ---- GPUs and caches -----------------------------------------------------------------------


def gpu_ids(n_gpus: int | None = None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Devices to hand out: at most `n_gpus`, of those visible; None means all that are visible."""
    if n_gpus == 0:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = [device.strip() for device in visible.split(",") if device.strip()]
    else:
        ids = [str(number) for number in range(_count_gpus())]
    if n_gpus is not None and n_gpus > len(ids):
        raise UsageError(f"--n-gpus {n_gpus}: only {len(ids)} GPUs are visible here.")
    return ids[:n_gpus]


def _count_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def use_numba_cache(work_dir: Path | str | None = None) -> None:
    """Point numba (before it is imported) to a cache that can be written; see numba_cache_dir."""
    folder = numba_cache_dir(work_dir)
    if folder is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def numba_cache_dir(work_dir: Path | str | None = None) -> Path | None:
    """A folder for compiled functions where numba's own choice is read-only, else None.

    In a container with a read-only root, numba otherwise refuses to import functions that it
    should cache. What a read-only NUMBA_CACHE_DIR holds (the image's, filled when it was built)
    is copied into the folder.
    """
    import qsm_nipype

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen and _writable(Path(chosen)):
        return None
    if not chosen and _writable(Path(qsm_nipype.__file__).parent / "core" / "__pycache__"):
        return None
    candidates = [Path(work_dir) / "numba"] if work_dir is not None else []
    candidates.append(Path(tempfile.gettempdir()) / f"qsm-nipype-numba-{os.getuid()}")
    for folder in candidates:
        if _writable(folder):
            if chosen:
                _copy_missing(Path(chosen), folder)
            return folder
    raise UsageError(
        f"{candidates[0]}: cannot be written; set NUMBA_CACHE_DIR to a folder that can."
    )


def _copy_missing(source: Path, target: Path) -> None:
    """Copy numba's files that `target` lacks: data (.nbc) before the index (.nbi) naming them."""
    files = [f for pattern in ("*/*.nbc", "*/*.nbi") for f in sorted(source.glob(pattern))]
    for file in files:
        copy = target / file.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".partial-{os.getpid()}-{copy.name}")
            shutil.copyfile(file, partial)
            os.replace(partial, copy)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
