"""A crash file for each node that failed, its reason in the last line.

What it holds of the node's inputs are file names, numbers and short texts: of a sidecar or a
record nothing, and neither host nor login, since output folders get shared.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype import logging

logger = logging.getLogger("nipype.workflow")
_LONGEST = 300  # letters of an input's value


def write_crash(node: Any, lines: Sequence[str] | str) -> str:
    """Write what is known of a failure where Nipype is set to keep crash files; its path.

    Nipype's own function writes login, host and whole sidecars, and appends to every failure
    without a result file (a killed process) that there is none, which hides the reason.
    """
    text = lines if isinstance(lines, str) else "".join(lines)
    named = node.config["execution"].get("crashdump_dir") or os.getcwd()
    folder = Path(named.replace("%%", "%"))  # as Nipype's configuration writes it
    name = re.sub(r"\W+", "_", str(node._id))[:100]
    file = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{name}-{uuid.uuid4()}.txt"
    content = f"Node: {node.fullname}\n\nNode inputs:\n{_inputs(node)}\n\n{text}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8", errors="replace")
    except OSError as error:  # a full disk: the log has the reason
        logger.error("%s: cannot be written (%s)", file, error.strerror)
    logger.error("Node %s failed; see %s\n%s", node.fullname, file, text)
    return str(file)


def _inputs(node: Any) -> str:
    """Name and value of each input that is set."""
    try:
        values = node.inputs.get_traitsfree()
    except Exception as error:  # inputs that cannot be looked at are no reason to lose the crash
        return f"(unknown: {type(error).__name__})"
    return "\n".join(f"{name} = {_shown(value)}" for name, value in sorted(values.items()))


def _shown(value: Any) -> str:
    """A value without what mappings hold, for these may be sidecars and records."""
    if isinstance(value, Mapping):
        return f"({len(value)} entries)"
    if isinstance(value, list | tuple):
        shown = ", ".join(_shown(item) for item in value[:20])
        return f"[{shown}{', …' if len(value) > 20 else ''}]"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
