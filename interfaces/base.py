"""What every interface of this package has in common."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    isdefined,
    traits,
)

from qsm_nipype import __version__
from qsm_nipype.system import manifest, memory
from qsm_nipype.system.files import write_json
from qsm_nipype.system.threads import limit_threads

#: Packages and modules that nodes compute with; a test compares them with what nodes import.
COMPUTING = (
    *("core", "interfaces", "models", "report", "data", "dataset", "system"),
    *("errors", "methods", "ranges", "record", "verdict", "volume"),
)
_SOURCES = (".py", ".yml", ".json", ".bib", ".j2")


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version and digest of the sources and tables that nodes compute with.

    Nipype hashes a node's inputs only: without this, a node whose code changed would hand out
    the result of the old code. Shipped weights count by their checksums in the registry.
    """
    return f"{__version__}+{digest_of(computing_files())[:12]}"


def computing_files() -> list[Path]:
    """The files of `COMPUTING`, in a fixed order."""
    found: list[Path] = []
    for name in COMPUTING:
        spec = importlib.util.find_spec(f"qsm_nipype.{name}")
        if spec is None:
            raise ModuleNotFoundError(f"qsm_nipype.{name} is not installed; install it again")
        if spec.submodule_search_locations is None:
            found.append(Path(str(spec.origin)))
        for root in spec.submodule_search_locations or ():
            found += sorted(p for p in Path(root).rglob("*") if p.suffix in _SOURCES)
    return found


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 (hexadecimal) of names and contents."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


class QSMInputSpec(BaseInterfaceInputSpec):
    """Inputs that every node has; those with `parameter=True` metadata go to the core function."""

    code_version = traits.Str(desc="makes a changed program recompute (see code_version)")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads the node may use")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="compute on the CUDA device")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isdefined(self.code_version):
            self.code_version = code_version()

    def get_hashval(self, hash_method: str | None = None) -> tuple[Any, str]:
        """As Nipype's; a folder that `weights` names counts with its files, not by its name."""
        inputs, value = super().get_hashval(hash_method)
        folder = self.trait_get().get("weights")
        if isinstance(folder, str) and Path(folder).is_dir():
            value = hashlib.md5(f"{value} {_contents(Path(folder))}".encode()).hexdigest()
        return inputs, value


def _contents(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file in `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    states = [(str(p.relative_to(folder)), p.stat()) for p in files]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


class QSMOutputSpec(TraitedSpec):
    """Outputs that every node has."""

    out_record = File(
        exists=True, desc="JSON: what the node found and decided, its numbers, its cost"
    )


class QSMInterface(BaseInterface):
    """Load, one call into `core` or `models`, save.

    A subclass implements `_run(cwd)` and returns its outputs by port name; what it puts under
    "record" (parameters chosen, numbers, anything a reader may want) is written to `out_record`
    together with what the node cost. Its `notes` are sentences about harmless decisions, its
    `warnings` what a reader must look at before trusting the map, its `errors` why the map must
    not be used: see `qsm_nipype.verdict`. `function` is the `module:name` of what does
    the work, if the registry lists the interface.
    """

    input_spec = QSMInputSpec
    output_spec = QSMOutputSpec
    function = ""
    #: whether a node leaves the sizes of its files in its folder (`system.manifest`)
    notes_sizes = True

    def _run_interface(self, runtime: Any) -> Any:
        importlib.import_module("torch")  # before its threads can be held
        limit_threads(self.inputs.num_threads)
        memory.keep_freed()
        memory.reset_peak()
        started = time.perf_counter(), time.process_time()
        self._results = self._run(Path(runtime.cwd))
        record = {**self._results.pop("record", {}), **_cost(*started)}
        self._results["out_record"] = write_json(
            Path(runtime.cwd) / f"{type(self).__name__}.json", record
        )
        manifest.remember_sizes(Path(runtime.cwd))
        return runtime

    def _run(self, cwd: Path) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} does not say what it runs")

    def _list_outputs(self) -> dict[str, Any]:
        return self._results

    @property
    def device(self) -> str:
        """Where tensors of this node live."""
        return "cuda" if self.inputs.use_gpu else "cpu"

    def parameters(self) -> dict[str, Any]:
        """The method's parameters that were set; the core function's defaults serve the rest."""
        names = self.inputs.traits(parameter=True)
        values = {name: getattr(self.inputs, name) for name in names}
        return {name: value for name, value in values.items() if isdefined(value)}


def _cost(wall: float, cpu: float) -> dict[str, float]:
    """What the node cost since its start, for the report and the benchmarks."""
    return {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_gb": round(memory.peak_gb(), 3),
    }


def files_of(value: Any) -> list[str]:
    """The files on a port that was added to a dynamic spec: none, one, or a list of them.

    Nipype copies such ports without their types, so that one file stays a string.
    """
    if value is None or not isdefined(value) or not value:
        return []
    return [value] if isinstance(value, str) else list(value)
