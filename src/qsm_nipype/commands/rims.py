"""`qsm-nipype rims CHI FLAIR LESIONS OUT`: which MS lesions have a rim, without BIDS."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.commands.single_map import add_map_options, check_files, read_chi, run
from qsm_nipype.dataset.derivatives import compress
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.lesions import LEFT_OUT, FindLesions, QSMRimNet
from qsm_nipype.models import radiomics
from qsm_nipype.report.lesions import draw_rims
from qsm_nipype.settings import Settings
from qsm_nipype.system.arguments import Parser
from qsm_nipype.system.files import write_bytes, write_text
from qsm_nipype.volume import load


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError, DataError and WeightsError."""
    options = _parser().parse_args(argv)
    radiomics.require()
    files = [options.chi, options.flair, options.lesions, options.mask, options.weights]
    check_files(options.out, [*files, *options.magnitude])
    with tempfile.TemporaryDirectory(prefix="qsm-nipype-") as folder:
        cwd = Path(folder)
        given = read_chi(options.chi, options.mask, options.map_units, options.magnitude, cwd)
        lesions, said = _find(given, options, cwd)
        node = QSMRimNet(
            in_chi=given.out_file,
            in_mask=given.out_mask,
            in_instances=lesions.out_instances,
            in_flair=lesions.out_flair,
            min_volume=options.lesion_volume,
        )
        if options.weights:
            node.inputs.weights = str(options.weights.absolute())
        rated = run(node, cwd / "rims")
        said += [*_record(rated)["notes"], *_record(rated)["warnings"]]
        rows = Path(rated.out_table).read_text(encoding="utf-8")
        _write(options.out, given, lesions, rows)
        write_text(
            options.out / "lesions.json", Path(rated.out_columns).read_text(encoding="utf-8")
        )
    for text in said:
        print(f"qsm-nipype: {text}", file=sys.stderr)
    print(rows, end="")
    print(f"{options.out / 'lesions.tsv'}, lesions.nii.gz, flair.nii.gz, rims.png")
    return 0


def _find(given: Any, options: argparse.Namespace, cwd: Path) -> tuple[Any, list[str]]:
    """The lesions and FLAIR on the map's grid, and what is to be minded. Raises DataError."""
    node = FindLesions(
        in_lesions=str(options.lesions.absolute()),
        in_flair=str(options.flair.absolute()),
        in_magnitude=given.out_magnitude,
        method=options.lesion_instances,
    )
    found = run(node, cwd / "lesions")
    said = list(_record(found)["warnings"])
    for text in said:
        if text.startswith(LEFT_OUT):
            fixed = (*options.magnitude, options.chi)[0].name
            text = text.removeprefix(LEFT_OUT).replace(given.out_magnitude, fixed)
            raise DataError(text.replace(str(options.flair.absolute()), options.flair.name))
    if not load(found.out_instances).data.any():
        raise DataError(f"{said[0].rstrip('.')}; give the lesions of this head")
    return found, [*_record(found).get("notes", []), *said]


def _record(outputs: Any) -> dict[str, Any]:
    return json.loads(Path(outputs.out_record).read_text(encoding="utf-8"))


def _write(out: Path, given: Any, lesions: Any, rows: str) -> None:
    """The images, the table and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    compress(Path(lesions.out_instances), out / "lesions.nii.gz")
    compress(Path(lesions.out_flair), out / "flair.nii.gz")
    write_text(out / "lesions.tsv", rows)
    chi, flair = load(given.out_file), load(lesions.out_flair)
    instances = load(lesions.out_instances).data.astype(np.int32)
    image, _ = draw_rims(chi.data, flair.data, instances, rows, chi.affine)
    write_bytes(out / "rims.png", image)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype rims",
        description="Probability of a paramagnetic rim for each MS lesion on one susceptibility "
        "map (NIfTI, ppm, paramagnetic positive), by the network of the pipeline. FLAIR and "
        "lesions (on its grid, or on that of the map) are brought to the map by registration.",
    )
    parser.add_argument("chi", type=Path, metavar="CHI", help="susceptibility map")
    parser.add_argument("flair", type=Path, metavar="FLAIR", help="FLAIR of the session")
    parser.add_argument("lesions", type=Path, metavar="LESIONS", help="mask or labels")
    add_map_options(parser)
    parser.add_argument(
        "--magnitude",
        type=Path,
        nargs="+",
        default=[],
        help="gradient echoes on the map's grid, which the FLAIR is registered to as in the "
        "pipeline (default: the map itself)",
    )
    parser.add_argument("--weights", type=Path, help="other weights of QSMRim-Net")
    parser.add_argument(
        "--lesion-instances",
        choices=("split", "components"),
        default=Settings.lesion_instances,
        help="how confluent lesions are numbered: parted at necks, or as they connect",
    )
    parser.add_argument(
        "--lesion-volume",
        type=float,
        default=Settings.lesion_volume,
        metavar="MM3",
        help=f"smallest lesion whose rim is judged (default {Settings.lesion_volume:g} mm³)",
    )
    return parser
