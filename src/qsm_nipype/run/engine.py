"""Nipype's engine as a run wants it: its settings, what it says, its cache, its graph."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qsm_nipype.settings import Settings
from qsm_nipype.system import manifest

#: Nipype's switches for how much it says, here and in the processes of the nodes.
_LEVELS = ("workflow_level", "interface_level", "utils_level")


def literal(path: Path) -> str:
    """A path as Nipype's configuration holds it, where % begins a reference."""
    return str(path).replace("%", "%%")


def configure_nipype(settings: Settings) -> None:
    """Nipype's own settings for this run; its user-wide configuration file is not read."""
    os.environ["NIPYPE_NO_ET"] = "1"
    own = settings.work_dir.absolute() / ".nipype"
    own.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("NIPYPE_CONFIG_DIR", str(own))
    from nipype import config
    from nipype import logging as nipype_logging

    logs = settings.output_dir / "logs"
    config.update_config(
        {
            "execution": {
                "check_version": "false",
                "crashdump_dir": literal(logs / "crashes"),
                "crashfile_format": "txt",
                "create_report": "false",
                "hash_method": "content",
                "keep_inputs": "true",
                "poll_sleep_duration": "0.05",
                "remove_unnecessary_outputs": "false",
                "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
            },
            "logging": {
                **dict.fromkeys(_LEVELS, "INFO" if settings.verbose else "ERROR"),
                "log_directory": literal(logs),
                "log_to_file": "true",
            },
            "monitoring": {
                "enabled": str(settings.resource_monitor).lower(),
                "sample_frequency": "0.5",
            },
        }
    )
    (logs / "crashes").mkdir(parents=True, exist_ok=True)
    nipype_logging.update_logging(config)


@contextlib.contextmanager
def quiet_console(settings: Settings) -> Iterator[None]:
    """Nipype's log goes to the file; the console keeps it only when asked (-v)."""
    handlers = [
        handler
        for name in ("", "nipype", "nipype.workflow", "nipype.interface", "nipype.utils")
        for handler in logging.getLogger(name).handlers
        if type(handler) is logging.StreamHandler
    ]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1 if not settings.verbose else logging.INFO)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def forget_damaged(workflow: Any) -> dict[str, str]:
    """Make steps run again whose files are missing or not as they were written.

    In the dataset contents are compared, in the work folder sizes. What such steps take is still
    in the work folder: nothing else is computed again. Returns what was found in the dataset, by
    the file's path there.
    """
    found: dict[str, str] = {}
    for name in workflow.list_node_names():
        interface = workflow.get_node(name).interface
        folder = Path(workflow.base_dir, workflow.name, *name.split("."))
        if not folder.exists():
            continue
        faults = interface.damaged() if hasattr(interface, "damaged") else {}
        ours = getattr(interface, "notes_sizes", False)
        if faults or not _is_cached(folder, with_sizes=ours):
            shutil.rmtree(folder, ignore_errors=True)
            found |= faults
    return found


def _is_cached(folder: Path, *, with_sizes: bool) -> bool:
    """Whether the result of a step and, `with_sizes`, its files are as it left them.

    Nipype trusts them: a half-written result is an error in every later run.
    """
    try:
        for path in folder.glob("result_*.pklz"):
            data = gzip.decompress(path.read_bytes())
            if not (data.startswith(b"\x80") and data.endswith(b".")):  # of a pickle
                return False
            if with_sizes and not manifest.is_whole(folder):
                return False
    except (OSError, EOFError, zlib.error):
        return False
    return True


def cleaning(workflow: Any, told: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    """A status callback that calls `told`, and removes a participant's work after its report.

    Where one of its acquisitions failed, the report does not run, and all is kept.
    """
    folder = Path(workflow.base_dir, workflow.name)
    owned: dict[str, set[str]] = {}
    for source, target in workflow._graph.edges():  # acquisition → records → report
        owned.setdefault(target.name, set()).add(source.name)

    def tell(node: Any, status: str) -> None:
        told(node, status)
        name = node.fullname.rpartition(".")[2]
        if status != "end" or not name.startswith("report_") or name not in owned:
            return
        joins = owned[name]
        for part in {name, *joins, *(a for join in joins for a in owned.get(join, ()))}:
            shutil.rmtree(folder / part, ignore_errors=True)

    return tell


def write_graph(workflow: Any, settings: Settings) -> None:
    """The workflow as logs/workflow.svg, or as .dot where Graphviz is not installed."""
    logs = settings.output_dir / "logs"
    if shutil.which("dot"):
        workflow.write_graph(str(logs / "workflow.dot"), graph2use="colored", format="svg")
        return
    workflow.write_graph(str(logs / "workflow.dot"), graph2use="colored", format="dot")
    print(f"qsm-nipype: Graphviz is not installed; see {logs / 'workflow.dot'}", file=sys.stderr)
