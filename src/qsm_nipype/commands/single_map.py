"""What the commands on single files share: the susceptibility map, checked and read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsm_nipype.core.given import UNITS
from qsm_nipype.dataset.given import check_map
from qsm_nipype.dataset.grids import check_grids
from qsm_nipype.dataset.metadata import sidecar
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.interfaces.given import ReadGiven
from qsm_nipype.system.files import missing_content
from qsm_nipype.system.threads import limit_threads

#: Threads of a command on one map: more do not help.
THREADS = 2


def add_map_options(parser: argparse.ArgumentParser) -> None:
    """What both commands know of the map."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--mask", type=Path, help="of the brain (default: where the map is not 0)")
    parser.add_argument(
        "--map-units",
        default="auto",
        choices=("auto", *UNITS[:2]),
        help="unit of the map; auto: as a JSON file beside it says, else ppm",
    )


def check_files(out: Path, files: Sequence[Path | None]) -> None:
    """Refuse files that are not there, and a result's folder that is a file. Raises QSMError."""
    for path in files:
        if path is None:
            continue
        if lacking := missing_content(path):
            raise UsageError(f"{path}: {lacking}")
        if not path.is_file():
            raise UsageError(f"{path}: no such file; check the path")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: it is a file; give a folder for the results")


def read_chi(
    file: Path, mask: Path | None, units: str, magnitudes: Sequence[Path], cwd: Path
) -> Any:
    """Outputs of `ReadGiven` for a susceptibility map in `cwd`, as in the pipeline.

    Prints which voxels are taken. Raises DataError for a map that cannot be ppm.
    """
    limit_threads(THREADS)
    file = file.absolute()
    grid = check_grids([file])
    if grid.volumes[file] != 1:
        raise DataError(f"{file.name}: it has {grid.volumes[file]} volumes; give one map")
    named = "" if units == "auto" else units
    given = check_map("chi", file, file, sidecar(file.parent, file), named, mask)
    reader = ReadGiven(in_file=str(file), unit=given.unit.name, factor=given.unit.factor)
    if mask is not None:
        reader.inputs.in_mask = str(mask.absolute())
    elif given.beyond:
        print(f"{file.name}: {given.beyond}, and all of that was taken for brain; give --mask")
    else:
        print(f"{file.name}: the mask is where the map has a value other than 0")
    if magnitudes:
        reader.inputs.in_magnitudes = [str(path.absolute()) for path in magnitudes]
    return run(reader, cwd / "given")


def run(interface: Any, cwd: Path) -> Any:
    """The outputs of a node's interface, run in the folder `cwd`. Raises what it raises."""
    cwd.mkdir()
    interface.inputs.num_threads = THREADS
    return interface.run(cwd=str(cwd)).outputs
