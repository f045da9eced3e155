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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsm_nipype import methods
from qsm_nipype.cli import parse_value
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.interfaces.base import accepted, resolve
from qsm_nipype.methods import Method
from qsm_nipype.settings import Settings
from qsm_nipype.system import memory
from qsm_nipype.volume import Volume, load, save

if TYPE_CHECKING:
    from torch import Tensor

#: stage → the steps of the registry that it takes, and the file that it writes
STAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "field-mapping": (("offset", "unwrapping", "fit"), "totalfield"),
    "bfr": (("background",), "localfield"),
    "dipole": (("inversion",), "chimap"),
    "unwrap+bfr": (("offset", "unwrapping", "fit", "background"), "localfield"),
    "bfr+dipole": (("background", "inversion"), "chimap"),
    "end-to-end": (("offset", "unwrapping", "fit", "background", "inversion"), "chimap"),
}
#: Where a stage's default is not the pipeline's: a local field that is given as such holds no
#: background that the inversion would have to remove, too (docs/inversion.md).
DEFAULTS = {"dipole": {"inversion": "nltv"}}


@dataclass(frozen=True)
class Params:
    """params.json: echo times in s, B0 in T, its unit direction, voxel size in mm."""

    echo_times: tuple[float, ...]
    b0: float
    b0_dir: tuple[float, float, float]
    voxel_size: tuple[float, float, float]


@dataclass(frozen=True)
class State:
    """What is known between two steps; every tensor lies on one grid."""

    mask: Tensor
    params: Params
    magnitude: Tensor | None = None
    phase: Tensor | None = None
    total: Tensor | None = None
    noise: Tensor | None = None
    local: Tensor | None = None
    weights: Path | None = None
    chi: Tensor | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError and DataError."""
    options = _parser().parse_args(argv)
    memory.keep_freed()
    steps, written = STAGES[options.stage]
    folder = options.input_dir
    given = {**_config(folder / "config.json"), **dict(_pair(item) for item in options.set)}
    chosen = _choose(options.stage, options.method)
    parameters = _distribute(given, chosen)
    state, like = _read(folder, steps)
    state = replace(state, weights=options.weights)
    for method in chosen:
        state = _STEPS[method.step](state, method, parameters[method.key])
    result = {"totalfield": state.total, "localfield": state.local, "chimap": state.chi}[written]
    options.output_dir.mkdir(parents=True, exist_ok=True)
    assert result is not None
    path = save(options.output_dir / f"{written}.nii.gz", result * state.mask, like)
    print(f"{' + '.join(m.label for m in chosen)}: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    except (OSError, ValueError) as exc:
        raise DataError(f"{path}: cannot be read as JSON ({exc}); correct the file") from exc
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold one JSON object; correct the file")
    return content


def _choose(stage: str, names: Sequence[str]) -> list[Method]:
    """The default method of each step, or the one of `names` that belongs to it."""
    steps = STAGES[stage][0]
    defaults = {m.step: m for m in Settings(Path(), Path()).chosen()}
    for step, name in DEFAULTS.get(stage, {}).items():
        defaults[step] = methods.get(step, name)
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


def read_params(path: Path) -> Params:
    """params.json. Raises DataError naming what is missing or wrong."""
    content = _json(path)
    missing = [key for key in ("TE", "B0", "B0_dir", "voxel_size") if key not in content]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing; add it")
    try:
        times = content["TE"] if isinstance(content["TE"], list) else [content["TE"]]
        direction, size = (tuple(float(v) for v in content[k]) for k in ("B0_dir", "voxel_size"))
        params = Params(tuple(float(t) for t in times), float(content["B0"]), direction, size)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise DataError(f"{path}: {exc}; TE is a list of s, B0 in T, B0_dir and voxel_size are "
                        f"three numbers") from exc  # fmt: skip
    if len(direction) != 3 or len(size) != 3 or not any(direction) or min(size) <= 0:
        raise DataError(f"{path}: B0_dir and voxel_size must be three numbers, not all zero")
    return params


def _read(folder: Path, steps: Sequence[str]) -> tuple[State, Volume]:
    params = read_params(folder / "params.json")
    mask = load(folder / "mask.nii.gz")
    like = mask
    images: dict[str, Tensor] = {}
    first = {"offset": "phase", "background": "totalfield", "inversion": "localfield"}[steps[0]]
    wanted = {first: True, "magnitude": first == "phase"}
    for name, needed in wanted.items():
        path = folder / f"{name}.nii.gz"
        if needed or path.exists():
            volume = load(path)
            if volume.data.shape[:3] != mask.data.shape[:3]:
                raise DataError(f"{path}: its shape is not that of mask.nii.gz; give one grid")
            images[name] = volume.tensor()
    state = State(
        mask=mask.mask(),
        params=params,
        magnitude=images.get("magnitude"),
        phase=images.get("phase"),
        total=images.get("totalfield"),
        local=images.get("localfield"),
    )
    if not bool(state.mask.any()):
        raise DataError(f"{folder / 'mask.nii.gz'}: the mask is empty; give one of the brain")
    if state.local is not None:  # the contract has no mask of the local field: zero is unknown
        state = replace(state, mask=state.mask & (state.local != 0))
    return state, like


# ---- the steps ------------------------------------------------------------------------------


def _echoes(state: State) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    phase, magnitude, times = state.phase, state.magnitude, state.params.echo_times
    assert phase is not None and magnitude is not None
    phase, magnitude = (x if x.ndim == 4 else x[..., None] for x in (phase, magnitude))
    if phase.shape[-1] != len(times) or magnitude.shape != phase.shape:
        raise DataError(
            f"phase.nii.gz: {phase.shape[-1]} echoes, magnitude.nii.gz: {magnitude.shape[-1]}, "
            f"params.json: {len(times)} echo times; give the same number"
        )
    return phase, magnitude, times


def _offset(state: State, method: Method, own: Mapping[str, Any]) -> State:
    phase, magnitude, times = _echoes(state)
    size = state.params.voxel_size
    return replace(
        state, phase=resolve(method.function)(phase, magnitude, times, size, **own).phase
    )


def _unwrap(state: State, method: Method, own: Mapping[str, Any]) -> State:
    phase, magnitude, times = _echoes(state)
    if method.name == "laplacian":
        return replace(state, phase=resolve(method.function)(phase, mask=state.mask))
    result = resolve(method.function)(phase, times, magnitude=magnitude, **own)
    return replace(state, phase=result.phase)


def _fit(state: State, method: Method, own: Mapping[str, Any]) -> State:
    phase, magnitude, times = _echoes(state)
    result = resolve(method.function)(phase, magnitude, times, state.params.b0, **own)
    return replace(state, total=result.field, noise=result.noise)


def _background(state: State, method: Method, own: Mapping[str, Any]) -> State:
    remove, p = resolve(method.function), state.params
    optional = accepted(remove, noise=state.noise)
    local = remove(state.total, state.mask, p.voxel_size, p.b0_dir, **optional, **own)
    return replace(state, local=local.field, mask=local.mask)


def _invert(state: State, method: Method, own: Mapping[str, Any]) -> State:
    invert, p = resolve(method.function), state.params
    magnitude = state.magnitude
    if magnitude is not None and magnitude.ndim == 4:
        magnitude = magnitude.square().sum(-1).sqrt()
    echo_time = sum(p.echo_times) / len(p.echo_times)
    optional = accepted(
        invert, noise=state.noise, magnitude=magnitude, b0=p.b0, echo_time=echo_time
    )
    if method.network is not None:
        from qsm_nipype.models.qsmgan import trained
        from qsm_nipype.models.registry import read_weights

        optional["generator"] = trained(read_weights(method.network, state.weights))
    field = state.total if method.from_total_field else state.local
    solution = invert(field, state.mask, p.voxel_size, p.b0_dir, **optional, **own)
    return replace(state, chi=solution.chi)


_STEPS: dict[str, Callable[[State, Method, Mapping[str, Any]], State]] = {
    "offset": _offset,
    "unwrapping": _unwrap,
    "fit": _fit,
    "background": _background,
    "inversion": _invert,
}
