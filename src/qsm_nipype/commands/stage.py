"""`qsm-nipype stage`: one step, or a span of steps, on the files of QSM-CI's public contract.

INPUT_DIR holds what the stage consumes: phase.nii.gz (4-D, rad), magnitude.nii.gz (4-D),
mask.nii.gz, totalfield.nii.gz or localfield.nii.gz (ppm), params.json (TE in s, B0 in T, B0_dir,
voxel_size in mm) and, optionally, config.json with parameters. OUTPUT_DIR receives
totalfield.nii.gz, localfield.nii.gz or chimap.nii.gz in ppm. Voxel size and direction of B0 come
from params.json, not from the images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from qsm_nipype import chain, methods
from qsm_nipype.cli import parse_value
from qsm_nipype.core.morphology import dilate
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.methods import Method
from qsm_nipype.settings import Settings
from qsm_nipype.system import memory
from qsm_nipype.system.arguments import Parser
from qsm_nipype.volume import Volume, load, save

#: stage → the steps of the registry that it takes, and the file that it writes
STAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "field-mapping": (("offset", "unwrapping", "fit"), "totalfield"),
    "bfr": (("background",), "localfield"),
    "dipole": (("inversion",), "chimap"),
    "unwrap+bfr": (("offset", "unwrapping", "fit", "background"), "localfield"),
    "bfr+dipole": (("background", "inversion"), "chimap"),
    "end-to-end": (("offset", "unwrapping", "fit", "background", "inversion"), "chimap"),
}
#: Sources of a local field may lie so far (mm) outside the mask that comes with it: whatever
#: removed the background took a layer of the mask, and left the layer's field in the rest.
REGION_MARGIN = 4.0


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError and DataError."""
    options = _parser().parse_args(argv)
    memory.keep_freed()
    steps, written = STAGES[options.stage]
    folder = options.input_dir
    given = {**_config(folder / "config.json"), **dict(_pair(item) for item in options.set)}
    chosen = _choose(options.stage, options.method)
    parameters = _distribute(given, chosen)
    weights = {m.network: options.weights for m in chosen if m.network and options.weights}
    scan = read_params(folder / "params.json")
    images, like = _read(folder, steps[0])
    try:
        result = _run(chosen, images, scan, parameters, weights)
    except DataError as exc:
        raise DataError(f"{folder}: {exc}") from exc
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = save(options.output_dir / f"{written}.nii.gz", result, like)
    print(f"{' + '.join(m.label for m in chosen)}: {path}")
    return 0


def _run(
    chosen: Sequence[Method],
    images: Mapping[str, Tensor],
    scan: chain.ScanParameters,
    parameters: chain.Parameters,
    weights: chain.Weights,
) -> Tensor:
    """What the last of the `chosen` methods makes of the `images`, zero outside its mask."""
    names = {method.step: method.name for method in chosen}
    mask = chain.as_mask(images["mask"], images["mask"], "mask")
    magnitude = images.get("magnitude")
    field, noise = images.get("localfield", images.get("totalfield")), None
    if "localfield" in images:  # the contract has no mask of the local field: zero is unknown
        mask &= images["localfield"] != 0
    if "fit" in names:
        phase, magnitude = chain.as_echoes(images["phase"], magnitude, scan)
        choice = {step: names[step] for step in ("offset", "unwrapping", "fit")}
        *_, fitted = chain.map_field(phase, magnitude, scan, **choice, parameters=parameters)
        field, noise = fitted.field, fitted.noise
    assert field is not None
    mask = chain.as_mask(mask, field, "mask")
    common: dict[str, Any] = {"field_noise": noise, "parameters": parameters}
    region = dilate(mask, scan.voxel_size, REGION_MARGIN)
    if "background" in names:
        region = mask
        local = chain.remove_background(field, mask, scan, method=names["background"], **common)
        field, mask = local.field, local.mask
    if "inversion" in names:
        used: dict[str, Any] = {"magnitude": magnitude, "weights": weights, "region": region}
        field = chain.invert(field, mask, scan, method=names["inversion"], **used, **common).chi
    return field * mask


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype stage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("input_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument(
        "--method", nargs="+", default=[], metavar="NAME", help="see qsm-nipype methods"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the methods"
    )
    parser.add_argument("--weights", type=Path, help="weight file of a network (qsmgan)")
    return parser


def _pair(item: str) -> tuple[str, Any]:
    name, equals, value = item.partition("=")
    if not equals:
        raise UsageError(f"--set {item}: give it as NAME=VALUE")
    return name, parse_value(value)


def _config(path: Path) -> dict[str, Any]:
    return dict(_json(path)) if path.exists() else {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file; give the folder of a stage's input") from exc
    except (OSError, ValueError) as exc:
        raise DataError(f"{path}: cannot be read as JSON ({exc}); correct the file") from exc
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold one JSON object; correct the file")
    return content


def _choose(stage: str, names: Sequence[str]) -> list[Method]:
    """The default method of each step, or the one of `names` that belongs to it."""
    steps = STAGES[stage][0]
    defaults = {m.step: m for m in Settings(Path(), Path()).chosen()}
    chosen = {step: defaults[step] for step in steps}
    for name in names:
        found = [m for m in methods.METHODS if m.name == name and m.step in steps]
        if not found:
            known = ", ".join(m.name for m in methods.METHODS if m.step in steps)
            raise UsageError(f"--method {name}: not a method of this stage; choose from {known}")
        chosen[found[0].step] = found[0]
    if chosen.get("inversion") and chosen["inversion"].from_total_field:
        chosen.pop("background", None)
    return list(chosen.values())


def _distribute(given: Mapping[str, Any], chosen: Sequence[Method]) -> dict[str, dict[str, Any]]:
    """Parameters by the method that has them. Raises UsageError for one that none has."""
    own: dict[str, dict[str, Any]] = {method.key: {} for method in chosen}
    for name, value in given.items():
        takers = [method for method in chosen if name in method.parameters()]
        if not takers:
            known = ", ".join(f"{m.name}: {', '.join(m.parameters())}" for m in chosen)
            raise UsageError(f"no chosen method has a parameter {name!r}; there are {known}")
        for method in takers:
            own[method.key][name] = value
    return own


# ---- reading --------------------------------------------------------------------------------


def read_params(path: Path) -> chain.ScanParameters:
    """params.json. Raises DataError naming what is missing or wrong."""
    content = _json(path)
    missing = [key for key in ("TE", "B0", "B0_dir", "voxel_size") if key not in content]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing; add it")
    echoes = content["TE"] if isinstance(content["TE"], list) else [content["TE"]]
    try:
        lists = echoes, content["voxel_size"], content["B0_dir"]
        times, size, direction = (tuple(float(v) for v in values) for values in lists)
        return chain.ScanParameters(times, float(content["B0"]), size, direction)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise DataError(
            f"{path}: {exc}; TE is a list of s, B0 in T, B0_dir and voxel_size are three numbers"
        ) from exc
    except DataError as exc:
        raise DataError(f"{path}: {exc}") from exc


def _read(folder: Path, first_step: str) -> tuple[dict[str, Tensor], Volume]:
    """The images that a stage beginning with `first_step` takes, by name, and the mask's file."""
    first = {"offset": "phase", "background": "totalfield", "inversion": "localfield"}[first_step]
    like = load(folder / "mask.nii.gz")
    images = {"mask": like.tensor()}
    for name, needed in {first: True, "magnitude": first == "phase"}.items():
        path = folder / f"{name}.nii.gz"
        if needed or path.exists():
            volume = load(path)
            if volume.data.shape[:3] != like.data.shape[:3]:
                raise DataError(f"{path}: its shape is not that of mask.nii.gz; give one grid")
            images[name] = volume.tensor()
    return images, like
