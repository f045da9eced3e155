"""Whether `group` finds the participants with a fault among many, and only those.

    nice -n 10 python benchmarks/group.py OUT                  # make what is missing (resumable)
    python benchmarks/group.py OUT --print                     # the table of what is made
    python benchmarks/group.py OUT --print --drawn 200         # and of tables drawn at random

Every participant is a simulated head of its own, with tissue, tilt, noise, shim and receive field
of its own, scanned by one protocol and taken through the whole chain. The last `--faults` of them
have one of `FAULTS` each. OUT/head-NNN.pt keeps what the quality measures take, so that changed
measures are judged again in a minute; a group is judged by `report.outliers` alone, without the
verdicts of single maps.

`--drawn` judges that many groups of measures drawn from correlated distributions as skewed and
as heavy-tailed as chosen (`draw_group`), with as many faults: how often something is named
although nothing is wrong depends on tails that 200 heads are too few for. Simulated data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import raw
from torch import Tensor

from qsm_nipype import chain, ranges
from qsm_nipype.core import quality
from qsm_nipype.core.morphology import dilate
from qsm_nipype.report.outliers import outlying_measures
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.system.files import atomic
from qsm_nipype.system.threads import limit_threads

#: maps that the measures of a map take as they were kept
OF_MAPS = ("chi", "total_field", "local_field", "residual")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the measures of each participant, then judge the group."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    faults = dict(zip(_seeds(options)[-options.faults :], FAULTS, strict=False))
    for seed in () if options.print else _seeds(options):
        path = options.out / f"head-{seed:03d}.pt"
        if not path.exists():
            case = processed(seed, options.voxel_size, faults.get(seed, ""))
            options.out.mkdir(parents=True, exist_ok=True)
            with atomic(path) as partial:
                torch.save(case, partial)
    rows = [measured(path) for path in sorted(options.out.glob("head-*.pt"))]
    print_group(rows)
    if options.drawn:
        print_drawn(options.drawn, options.participants, options.faults)


def parser() -> argparse.ArgumentParser:
    """How many participants, how coarse."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("out", type=Path)
    made.add_argument("--participants", type=int, default=200)
    made.add_argument("--faults", type=int, default=10)
    made.add_argument("--voxel-size", type=float, default=4.0)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--print", action="store_true", help="only judge what is there")
    made.add_argument("--drawn", type=int, default=0, metavar="GROUPS")
    return made


def _seeds(options: argparse.Namespace) -> list[int]:
    return list(range(1, options.participants + 1))


# ---- one participant --------------------------------------------------------------------------


def processed(seed: int, voxel: float, fault: str) -> dict[str, Any]:
    """The maps of one simulated participant, with the `fault` if it has one."""
    rng = np.random.default_rng([25, seed])
    protocol = Protocol(
        snr=float(60 * np.exp(0.2 * rng.standard_normal())),
        phase_offset=float(rng.uniform(0.5, 1.5)),
        receive_bias=float(rng.uniform(0.1, 0.4)),
        angles=tuple(float(rng.normal(0, s)) for s in (8, 3, 3)),  # type: ignore[arg-type]
    )
    shape = tuple(2 * round(n / voxel / 2) for n in (180, 220, 180))
    data = raw(
        simulate_subject(5000 + seed, shape=shape, voxel_size=voxel, protocol=protocol)  # type: ignore[arg-type]
    )
    data["mask"] = dilate(data["brain"], data["size"], 2.0)
    if fault:
        data = FAULTS[fault](data, rng)
    maps = chain.reconstruct(
        data["phase"], data["magnitude"], echo_times=data["echo_times"], b0=data["b0"],
        voxel_size=data["size"], b0_dir=data["b0_dir"], mask=data["mask"],
    )  # fmt: skip
    names = ("field_noise", "residual", "chi", "total_field", "local_field", "reliability")
    kept = {name: getattr(maps, name).half() for name in names}
    kept |= {name: getattr(maps, name) for name in ("mask", "trimmed", "mask_chi")}
    known = {"size": tuple(data["size"]), "b0_dir": tuple(data["b0_dir"])}
    return {"seed": seed, "fault": fault, **known, **kept}


def measured(path: Path) -> dict[str, Any]:
    """The measures that a run writes down for the maps of a participant."""
    case = torch.load(path, weights_only=True)
    volumes = {
        "mask": case["mask"], "mask_chi": case["mask_chi"], "noise": case["field_noise"],
        "residual": case["residual"], "chi": case["chi"],
    }  # fmt: skip
    found = quality.volume_numbers(
        {k: v.float().numpy() for k, v in volumes.items()}, case["size"]
    )
    whole, kept = case["mask"].numpy(), case["trimmed"].numpy()
    found |= quality.trimming(whole, kept, case["reliability"].float().numpy())[0]
    names = {"noise": "field_noise"} | {n: n for n in (*OF_MAPS, "r2star") if n in case}
    maps = {name: case[key].float() for name, key in names.items()}
    masks = {name: case[name] for name in ("mask", "mask_chi")}
    turn = quality.turn_of(Protocol().echo_times, Protocol().b0)
    seen = quality.look(maps, masks, case["size"], case["b0_dir"], turn=turn)
    if seen is not None:
        found |= {name: ranges.judged(name, v) for name, v in quality.measured(seen).items()}
    return {"seed": case["seed"], "fault": case["fault"], "numbers": found}


# ---- faults: each takes what a reconstruction is given ----------------------------------------


def _sign(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Phase of the other sign."""
    return {**data, "phase": -data["phase"]}


def _echo_times(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Echo times of another protocol: half of what they were."""
    return {**data, "echo_times": tuple(t / 2 for t in data["echo_times"])}


def _field_strength(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """1.5 T in the sidecar of a scan at 3 T."""
    return {**data, "b0": data["b0"] / 2}


def _direction(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """B0 along another axis."""
    return {**data, "b0_dir": (1.0, 0.0, 0.0)}


def _noise(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A coil that failed: an SNR of 4."""
    signal = _signal(data)
    level = float(signal.abs()[..., 0][data["brain"]].median()) / 4
    noise = torch.from_numpy(rng.standard_normal((*signal.shape, 2), dtype=np.float32))
    return _with(data, signal + level * torch.view_as_complex(noise))


def _ghosts(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Lines of k-space with random phase, as of a head that moved."""
    signal = _signal(data)
    turn = np.exp(1j * rng.standard_normal((1, signal.shape[1], 1, 1))).astype(np.complex64)
    spectrum = torch.fft.fft(signal, dim=1) * torch.from_numpy(turn)
    return _with(data, torch.fft.ifft(spectrum, dim=1))


def _wide_mask(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A mask that holds skull and air."""
    return {**data, "mask": dilate(data["mask"], data["size"], 16.0)}


def _half_mask(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A mask that lost a half of the brain."""
    mask = data["mask"].clone()
    mask[: int(mask.any(-1).any(-1).nonzero().float().mean())] = False
    return {**data, "mask": mask}


def _echo_order(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Phases of two echoes exchanged."""
    return {**data, "phase": data["phase"][..., [0, 2, 1, 3]]}


def _other_phase(data: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Phase that is turned against the magnitude: left for right, back for front."""
    return {**data, "phase": data["phase"].flip(0, 1)}


FAULTS: dict[str, Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]] = {
    "sign": _sign,
    "echo times": _echo_times,
    "field strength": _field_strength,
    "direction of B0": _direction,
    "noise": _noise,
    "ghosts": _ghosts,
    "mask outside the brain": _wide_mask,
    "half of the brain": _half_mask,
    "order of echoes": _echo_order,
    "phase of another image": _other_phase,
}


def _signal(data: Mapping[str, Any]) -> Tensor:
    return torch.polar(data["magnitude"].float(), data["phase"].float())


def _with(data: dict[str, Any], signal: Tensor) -> dict[str, Any]:
    return {**data, "phase": signal.angle(), "magnitude": signal.abs()}


# ---- groups that are drawn --------------------------------------------------------------------


def draw_group(
    rng: np.random.Generator, participants: int, faults: int, measures: int = 20
) -> tuple[dict[str, list[float]], set[int]]:
    """Measures of a group and which rows have a fault.

    Five things that differ between persons and scans (Student's t, 8 degrees of freedom) make
    the measures, each with a share of its own: half of them symmetric, a quarter log-normal
    (SD 0.5), a quarter shares of a whole close to its end. A fault moves two to five measures of
    its participant by 8 to 30 standard deviations.
    """
    common = rng.standard_t(8, (participants, 5)) @ rng.dirichlet(np.full(5, 0.5), measures).T
    values = 0.7 * common + 0.5 * rng.standard_t(8, (participants, measures))
    values /= values.std(0)
    bad = set(rng.choice(participants, faults, replace=False).tolist())
    for row in sorted(bad):
        which = rng.choice(measures, int(rng.integers(2, 6)), replace=False)
        values[row, which] += rng.choice([-1, 1], len(which)) * rng.uniform(8, 30, len(which))
    columns: dict[str, list[float]] = {}
    for i, column in enumerate(values.T):
        if i % 4 == 0:
            column = np.exp(0.5 * column)
        elif i % 4 == 2:
            column = 100 / (1 + np.exp(-3 - 0.7 * column))
        else:
            column = 10 + column
        columns[f"measure_{i:02d}"] = column.tolist()
    return columns, bad


def print_drawn(groups: int, participants: int, faults: int) -> None:
    """How many faults are found, how many others are named, over drawn groups."""
    found, false = [], []
    for seed in range(groups):
        columns, bad = draw_group(np.random.default_rng([26, seed]), participants, faults)
        words = {name: {"Units": "%"} for name in list(columns)[2::4]}
        named = {i for i, row in enumerate(outlying_measures(columns, words)) if row}
        found.append(len(named & bad))
        false.append(len(named - bad))
    print(f"\n{groups} drawn groups of {participants} with {faults} faults:")
    print(f"found: {np.mean(found):.2f} in the mean, {min(found)} at least")
    print(f"others named: {np.mean(false):.2f} in the mean, {max(false)} at most; ", end="")
    print(f"more than two in {100 * np.mean(np.array(false) > 2):.1f} % of the groups")


# ---- the table --------------------------------------------------------------------------------


def judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What stands out of each participant: measure → z."""
    names = list(dict.fromkeys(name for row in rows for name in row["numbers"]))
    columns = {n: [row["numbers"].get(n, {}).get("value") for row in rows] for n in names}
    words = {n: {"Units": own["unit"]} for row in rows for n, own in row["numbers"].items()}
    return outlying_measures(columns, words)


def print_group(rows: Sequence[Mapping[str, Any]]) -> None:
    """Every planted fault, what was found of it, and who else was named."""
    outlying = judged(rows)
    print("\n| fault | found | by (robust z) |\n|---|---|---|")
    for row, own in zip(rows, outlying, strict=True):
        if row["fault"] or own:
            most = sorted(own.items(), key=lambda item: -abs(item[1]))[:4]
            text = ", ".join(f"{name} {z:+.1f}" for name, z in most)
            fault = row["fault"] or f"none (head {row['seed']})"
            print(f"| {fault} | {'yes' if own else 'no'} | {text} |")
    planted = sum(bool(row["fault"]) for row in rows)
    found = sum(bool(row["fault"] and own) for row, own in zip(rows, outlying, strict=True))
    false = sum(bool(own and not row["fault"]) for row, own in zip(rows, outlying, strict=True))
    print(f"\n{len(rows)} participants: {found} of {planted} faults found, {false} others named")


if __name__ == "__main__":
    main()
