"""Background removal on one simulated head, method by method, and the ladder of a chain.

    python benchmarks/background.py --anatomy colin --seed 47 --voxel-size 1.5 --effects none
    python benchmarks/background.py --anatomy procedural --seed 43 --voxel-size 2 --b0 7
    python benchmarks/background.py --seed 41 --angles 18 4 -3 --effects fat drift --cache FOLDER

First the true total field in the true brain mask, then the pipeline's field in its own trimmed
mask: error of the local field where each method has one ("own") and in the voxels that lie two
layers below the edge of the mask it was given, the same for all ("fixed"); then that of χ in the
fixed voxels by `--inversion`. At last the ladder: χ from the true local field, from it with the
error that field mapping left, from the true total field, and all from phase. The masks of
inversions that take a source region get the pipeline's mask, 2.5 mm wider. Simulated data.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chains import parameters_of, timed
from torch import Tensor

from qsm_nipype import chain, methods
from qsm_nipype.core.background import LocalField
from qsm_nipype.core.morphology import dilate, erode
from qsm_nipype.methods import accepted, resolve
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

#: s, at 3 T and above
ECHOES = {3.0: (0.004, 0.010, 0.016, 0.022, 0.028), 7.0: (0.004, 0.009, 0.014, 0.019)}


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, run, print the tables."""
    options = parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    data = prepared(options)
    brain, trimmed = data["brain"], data["trimmed"]
    print(f"\ntrue total field, brain mask ({name(options)})")
    table(data, options, data["total"], brain, None)
    print("\nmeasured field, trimmed mask")
    found = table(data, options, data["field"], trimmed, data["noise"])
    ladder(data, options, found)


def parser() -> argparse.ArgumentParser:
    """Which head, which methods."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="colin", choices=("procedural", "colin"))
    made.add_argument("--seed", type=int, default=5)
    made.add_argument("--voxel-size", type=float, default=2.0, help="mm")
    made.add_argument("--b0", type=float, default=3.0, choices=tuple(ECHOES), help="tesla")
    made.add_argument("--angles", nargs=3, type=float, default=(0.0, 0.0, 0.0), help="degrees")
    made.add_argument("--effects", nargs="+", default=["all"], choices=("all", "none", *EFFECTS))
    made.add_argument("--background", nargs="+", default=methods.names("background"))
    made.add_argument("--inversion", nargs="+", default=["tv", "whtv"])
    made.add_argument("--ladder", default=Settings.background, help="its background removal")
    made.add_argument("--cache", type=Path, help="folder for what precedes background removal")
    made.add_argument("--threads", type=int, default=2)
    return made


def name(options: argparse.Namespace) -> str:
    """The head and its scanner."""
    turned = "" if not any(options.angles) else "-tilted"
    return (
        f"{options.anatomy}-{options.seed}-{options.voxel_size:g}mm-{options.b0:g}T{turned}-"
        + "+".join(options.effects)
    )


def prepared(options: argparse.Namespace) -> dict[str, Any]:
    """Truth, measured field, masks: computed, or taken from the cache."""
    path = options.cache / f"{name(options)}.pt" if options.cache else None
    if path is not None and path.exists():
        return dict(torch.load(path, weights_only=True))
    named = {"all": tuple(EFFECTS), "none": ()}
    scan = simulate_subject(
        options.seed,
        shape=tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180)),  # type: ignore[arg-type]
        voxel_size=options.voxel_size,
        protocol=Protocol(
            b0=options.b0,
            echo_times=ECHOES[options.b0],
            angles=tuple(options.angles),
            effects=named.get(options.effects[0], tuple(options.effects)),
        ),
        anatomy=options.anatomy,
    )
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    given = parameters_of(scan)
    _, unwrapped, fitted = chain.map_field(phase, magnitude, given)
    whole = chain.make_mask(magnitude, unwrapped.quality, given)
    trimmed, _ = chain.trim_mask(whole, fitted, given)
    truth = {n: torch.from_numpy(getattr(scan.truth, n)) for n in ("total", "local", "chi")}
    data = {
        **truth,
        "field": fitted.field,
        "noise": fitted.noise,
        "whole": whole,
        "trimmed": trimmed,
        "brain": torch.from_numpy(scan.brain),
        "size": given.voxel_size,
        "b0_dir": given.b0_dir,
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(data, path)
    return data


def table(
    data: Mapping[str, Any],
    options: argparse.Namespace,
    field: Tensor,
    mask: Tensor,
    noise: Tensor | None,
) -> dict[str, LocalField]:
    """Every background removal's local field, and χ from it."""
    fixed = below(mask, data)
    columns = [f"χ by {n}, fixed % (λ)" for n in options.inversion]
    print("| method | own % | kept % | fixed % | " + " | ".join(columns) + " | CPU s |")
    print("|" + "---|" * (len(columns) + 5))
    locals_ = {}
    for method in options.background:
        remove = resolve(methods.get("background", method).function)
        optional = accepted(remove, noise=noise)
        found, cost = timed(
            lambda remove=remove, optional=optional: remove(
                field, mask, data["size"], data["b0_dir"], **optional
            )
        )
        locals_[method] = found
        own = found.mask & data["brain"]
        kept = 100 * float(own.sum() / data["brain"].sum())
        whole = error(found.field, data["local"], fixed)
        chis = [shown(data, n, found.field, found.mask, noise, fixed) for n in options.inversion]
        print(
            f"| {method} | {error(found.field, data['local'], own):.1f} | {kept:.1f} | "
            f"{whole:.1f} | " + " | ".join(chis) + f" | {cost['cpu']:.1f} |",
            flush=True,
        )
    return locals_


def ladder(
    data: Mapping[str, Any], options: argparse.Namespace, found: Mapping[str, LocalField]
) -> None:
    """χ when one step after the other is made perfect, in the same voxels."""
    mask, noise, method = data["trimmed"], data["noise"], options.ladder
    fixed = below(mask, data)
    remove = resolve(methods.get("background", method).function)
    geometry = (data["size"], data["b0_dir"])
    ideal = remove(data["total"], mask, *geometry, **accepted(remove, noise=noise))
    real = found.get(method) or remove(
        data["field"], mask, *geometry, **accepted(remove, noise=noise)
    )
    off = data["field"] - data["total"]
    steps = {
        "true local field": (data["local"], mask),
        "true local field and the error of the measured one": (data["local"] + off, mask),
        f"true total field, {method}": (ideal.field, ideal.mask),
        f"all from phase, {method}": (real.field, real.mask),
    }
    print(f"\n| χ in fixed voxels, % (λ) | {' | '.join(options.inversion)} |")
    print("|" + "---|" * (len(options.inversion) + 1))
    for step, (field, inside) in steps.items():
        cells = [shown(data, n, field * inside, inside, noise, fixed) for n in options.inversion]
        print(f"| {step} | " + " | ".join(cells) + " |", flush=True)


def below(mask: Tensor, data: Mapping[str, Any]) -> Tensor:
    """Brain more than two layers below the edge of `mask`."""
    return erode(mask, data["size"], 2.05 * max(data["size"])) & data["brain"]


def shown(
    data: Mapping[str, Any],
    method: str,
    field: Tensor,
    mask: Tensor,
    noise: Tensor | None,
    fixed: Tensor,
) -> str:
    """Error of χ by `method`, whose noise is 0.5 ppb where there is none, and its λ in ppm."""
    invert = resolve(methods.get("inversion", method).function)
    if noise is None:
        noise = torch.full_like(field, 5e-4)
    region = dilate(data["whole"], data["size"], 2.5)
    known = accepted(invert, noise=noise, region=region)
    solution = invert(field, mask, data["size"], data["b0_dir"], **known)
    weight = solution.parameters.get("regularization", float("nan"))
    return f"{error(solution.chi, data['chi'], fixed):.1f} ({weight:.1g})"


def error(x: Tensor, truth: Tensor, where: Tensor) -> float:
    """‖x − truth‖/‖truth‖ in %, both without their mean."""
    a, b = (v[where].double() for v in (x, truth))
    a, b = a - a.mean(), b - b.mean()
    return 100 * float((a - b).norm() / b.norm())


if __name__ == "__main__":
    main()
