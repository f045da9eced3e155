"""What a job of a scheduler runs: one stored node."""

from __future__ import annotations

import os
from pathlib import Path
from traceback import format_exception

from qsm_nipype.execution.crash import write_crash


def run_stored(stored: str, *, store_exception: bool) -> None:
    """Run the node in the file `stored`, which the submitting process has written.

    A failure is left where a result would be (`store_exception`), for the process that watches, or
    as a crash file, and raised.
    """
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    from nipype import config, logging
    from nipype.utils.filemanip import loadpkl, savepkl

    content = loadpkl(stored)
    node = content["node"]
    config.update_config(node.config)
    logging.update_logging(config)
    try:
        node.run(updatehash=content["updatehash"])
    except Exception as error:
        lines = format_exception(error)
        if store_exception:
            folder = Path(node.output_dir())
            folder.mkdir(parents=True, exist_ok=True)
            result = {"result": None, "traceback": lines}
            savepkl(str(folder / f"result_{node.name}.pklz"), result)
        else:
            print(f"Crash file: {write_crash(node, lines)}")
            raise
