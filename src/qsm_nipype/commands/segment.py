"""`qsm-nipype segment CHI OUT`: the nuclei on one susceptibility map, without BIDS."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsm_nipype.commands.single_map import add_map_options, check_files, read_chi, run
from qsm_nipype.core.deep_grey import NAMES
from qsm_nipype.core.given import is_painted, is_uniform
from qsm_nipype.core.roi import statistics
from qsm_nipype.dataset.derivatives import compress
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.interfaces.base import QSMInterface
from qsm_nipype.interfaces.deep_grey import DeepGrey
from qsm_nipype.interfaces.records import seen_numbers
from qsm_nipype.interfaces.segmentation import DENTATE, Dentate
from qsm_nipype.report.gallery import draw_dentate
from qsm_nipype.report.nuclei import draw_deep_grey
from qsm_nipype.report.styles import style_of
from qsm_nipype.system.arguments import Parser
from qsm_nipype.system.files import write_bytes, write_text
from qsm_nipype.volume import Volume, load, load_like

_PHANTOM = "it looks like a phantom, for most of it has one value; give the map of a head"
#: Columns of the table.
COLUMNS = ("index", "region", "voxels", "volume_mm3", "mean_ppm", "median_ppm", "sd_ppm")


@dataclass(frozen=True)
class Structure:
    """What can be segmented: its interface, the names of its labels, how it is drawn."""

    interface: type[QSMInterface]
    names: Mapping[int, str]


STRUCTURES = {
    "dentate": Structure(Dentate, DENTATE),
    "deepgrey": Structure(DeepGrey, NAMES),
}


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError, DataError and WeightsError."""
    options = _parser().parse_args(argv)
    wanted = _wanted(options)
    check_files(options.out, [options.chi, options.mask, options.magnitude, options.weights])
    with tempfile.TemporaryDirectory(prefix="qsm-nipype-") as folder:
        cwd = Path(folder)
        magnitudes = [options.magnitude] if options.magnitude else []
        given = read_chi(options.chi, options.mask, options.map_units, magnitudes, cwd)
        check_tissue(given, options.chi.name)
        chi = load(given.out_file)
        known = load_like(chi, given.out_mask).data > 0.5
        magnitude = load(given.out_magnitude).data if magnitudes else None
        own = {wanted[0]: options.weights}
        results = {name: _segmented(name, given, own.get(name), cwd / name) for name in wanted}
        absent = [
            _reason(record, chi, known)
            for _, record in results.values()
            if record["status"] != "found"
        ]
        if len(absent) == len(wanted):
            raise DataError(f"{options.chi.name}: {absent[0]}")
        options.out.mkdir(parents=True, exist_ok=True)
        said = list(absent)
        for name, (found, record) in results.items():
            if record["status"] == "found":
                _write(name, found, (chi, known, magnitude), options.out)
                said += [*record.get("warnings", []), *record.get("notes", [])]
    for text in said:
        print(f"qsm-nipype: {options.chi.name}: {text}", file=sys.stderr)
    return 0


def _wanted(options: argparse.Namespace) -> list[str]:
    """The structures to look for. Raises UsageError for others."""
    names = [name.strip() for name in options.segmentation.split(",") if name.strip()]
    for name in names:
        if name not in STRUCTURES:
            raise UsageError(f"--segmentation {name}: choose from {', '.join(STRUCTURES)}")
    if not names:
        raise UsageError(f"--segmentation: name one of {', '.join(STRUCTURES)}")
    return list(dict.fromkeys(names))


def _segmented(name: str, given: Any, weights: Path | None, cwd: Path) -> tuple[Any, Any]:
    """Outputs and record of the pipeline's node on a map of `ReadGiven`."""
    node = STRUCTURES[name].interface(in_file=given.out_file, in_mask=given.out_mask)
    if weights:
        node.inputs.weights = str(weights.absolute())
    found = run(node, cwd)
    return found, json.loads(Path(found.out_record).read_text(encoding="utf-8"))


def _write(
    name: str, found: Any, maps: tuple[Volume, np.ndarray, np.ndarray | None], out: Path
) -> None:
    """Labels, table and picture of one structure into `out`; prints the table."""
    chi, known, magnitude = maps
    labels = load_like(chi, found.out_labels, dtype=np.uint8)
    compress(Path(found.out_labels), out / f"{name}.nii.gz")
    rows = table(labels.data, chi, known, STRUCTURES[name].names)
    write_text(out / f"{name}.tsv", rows)
    if name == "dentate":
        picture = _picture(labels, load_like(chi, found.out_box), chi, magnitude)
    else:
        *_, picture = draw_deep_grey(labels.data, chi.data, chi.affine)
    write_bytes(out / f"{name}.png", picture)
    print(rows, end="")
    print(f"{out / name}.nii.gz, {name}.tsv, {name}.png")


def table(
    labels: np.ndarray, chi: Volume, known: np.ndarray, names: Mapping[int, str] = DENTATE
) -> str:
    """`COLUMNS` of each nucleus as TSV; `labels` and `known` `(X, Y, Z)` on the grid of `chi`."""
    lines = ["\t".join(COLUMNS)]
    volume = float(np.prod(chi.voxel_size))
    for index, name, own in statistics(labels, names, chi.data, known, volume):
        numbers = [f"{v:.6g}" if np.isfinite(v) else "n/a"
                   for v in (own.volume, own.mean, own.median, own.sd)]  # fmt: skip
        lines.append("\t".join([str(index), name, str(own.voxels), *numbers]))
    return "\n".join(lines) + "\n"


def check_tissue(given: Any, name: str) -> None:
    """Refuse a map in which the middle of a brain cannot be seen (`given`: of `ReadGiven`).

    The measures and their limits are those of the pipeline. Raises DataError.
    """
    chi = load(given.out_file)
    mask = load_like(chi, given.out_mask)
    found = seen_numbers({"chi": chi, "mask": mask, "mask_chi": mask}, {})
    bad = [key for key, number in found.items() if number.get("judgement") == "bad"]
    if not bad:
        return
    if is_painted(chi.data, mask.data > 0.5) or is_uniform(chi.data, mask.data > 0.5):
        raise DataError(f"{name}: {_PHANTOM}")
    if "chi_lean" in bad:
        raise DataError(
            f"{name}: the deep nuclei are darker than their surroundings, so its sign is wrong; "
            f"multiply the map by −1"
        )
    for key in ("chi_nuclei", "chi_spread"):
        if key in bad:
            value, unit = found[key]["value"], found[key]["unit"]
            raise DataError(
                f"{name}: {found[key]['description']} is {value:.3g} {unit}, as in no brain; give "
                f"the map of a head in ppm, paramagnetic positive"
            )


def _reason(record: Mapping[str, Any], chi: Volume, known: np.ndarray) -> str:
    """Why there are no labels, in one sentence with its cure."""
    first = str([*record.get("errors", []), *record.get("warnings", [])][0])
    said = first[0].lower() + first[1:].rstrip(".")
    if record["status"] in ("not covered", "not found"):
        if is_painted(chi.data, known) or is_uniform(chi.data, known):
            return _PHANTOM
        return f"{said}; give a map of the whole head, with its face to the front by the affine"
    if record["status"] == "too coarse":
        return f"{said}; give a map as it was acquired, of at most 2.6 mm"
    return said


def _picture(labels: Volume, box: Volume, chi: Volume, magnitude: np.ndarray | None) -> bytes:
    """The outlines on χ; on the magnitude below, where it is given (PNG)."""
    *_, image = draw_dentate(labels.data, box.data, chi.data, chi.affine)
    if magnitude is None:
        return image
    shown = magnitude if magnitude.ndim == 3 else magnitude[..., 0]
    *_, other = draw_dentate(labels.data, box.data, shown, chi.affine, style=style_of("magnitude"))
    return _stacked([image, other])


def _stacked(pictures: Sequence[bytes]) -> bytes:
    """Pictures (PNG) one below the other."""
    import io

    from PIL import Image

    images = [Image.open(io.BytesIO(p)).convert("RGB") for p in pictures]
    size = max(i.width for i in images), sum(i.height for i in images)
    sheet, top = Image.new("RGB", size), 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype segment",
        description="Label the dentate and the deep grey nuclei on one susceptibility map (NIfTI, "
        "ppm, paramagnetic positive, of any program), by the networks of the pipeline: "
        "OUT/dentate.nii.gz (1 left, 2 right) and OUT/deepgrey.nii.gz, each with a .tsv (names, "
        "volume, mean, median, SD) and a .png.",
    )
    parser.add_argument("chi", type=Path, metavar="CHI", help="susceptibility map")
    add_map_options(parser)
    parser.add_argument(
        "--magnitude", type=Path, help="on the map's grid; the outlines are drawn on it too"
    )
    parser.add_argument(
        "--segmentation",
        default=",".join(STRUCTURES),
        metavar="NAME,NAME",
        help=f"what is looked for: {', '.join(STRUCTURES)} (all)",
    )
    parser.add_argument(
        "--weights", type=Path, help="another network of the first of them (dentate)"
    )
    return parser
