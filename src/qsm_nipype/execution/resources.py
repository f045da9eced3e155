"""What this machine, control group or SLURM job allows."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from qsm_nipype.errors import UsageError
from qsm_nipype.system.files import copy_file

MEMORY_SHARE = 0.9  # of the machine's memory, when nothing else limits it
GIB = 2**30


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
            copy_file(file, copy)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
