"""A crash file for each node that failed, its reason in the last line."""

from __future__ import annotations

import getpass
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype import logging
from nipype.utils.filemanip import crash2txt, savepkl

logger = logging.getLogger("nipype.workflow")


def write_crash(node: Any, lines: Sequence[str] | str) -> str:
    """Write what is known of a failure where Nipype is set to keep crash files; its path.

    Nipype's own function appends to every failure without a result file (a killed process) that
    there is none, which hides the reason.
    """
    traceback = lines.splitlines(keepends=True) if isinstance(lines, str) else list(lines)
    settings = node.config["execution"]
    folder = Path(settings.get("crashdump_dir") or os.getcwd())
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{_login()}-{node._id}-{uuid.uuid4()}"
    as_text = settings["crashfile_format"].lower() in ("text", "txt", ".txt")
    file = str(folder / f"{stem}.{'txt' if as_text else 'pklz'}")
    content = {"node": node, "traceback": traceback}
    if as_text:
        crash2txt(file, content)
    else:
        savepkl(file, content, versioning=True)
    logger.error("Node %s failed; see %s\n%s", node.fullname, file, "".join(traceback))
    return file


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"UID{os.getuid()}"
