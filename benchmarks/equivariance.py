"""How far χ depends on what it must not: on how the axes are stored, and on when the loop stops.

    python benchmarks/equivariance.py storages               # χ over the generators of all 48
    python benchmarks/equivariance.py storages --all         # over all 48
    python benchmarks/equivariance.py stopping               # default stop against the minimiser

A local field with noise is stored with its axes in another order or flipped (`voxel_size` and
`b0_dir` with them), inverted and brought back: the largest relative difference in the mask is the
dependence on storage. The minimiser is taken to be reached after `--exact` iterations. `--cut`
takes layers off the mask of the data, as erosion and background removal do.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from inversion import brain, methods, noisy_field, scores
from torch import Tensor

from qsm_nipype.methods import accepted, resolve
from qsm_nipype.simulation.cut import cut_mask

#: Methods whose stopping is their regularisation, or that do not iterate.
WITHOUT_MINIMISER = ("TKD", "Tikhonov", "ILSQR")


class Storage(NamedTuple):
    """Axes in another order, then some of them backwards."""

    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[int, ...] = ()

    def store(self, x: Tensor) -> Tensor:
        """A volume as stored."""
        return x.permute(self.order).flip(self.flips).contiguous()

    def restore(self, x: Tensor) -> Tensor:
        """Back again."""
        back = [self.order.index(axis) for axis in range(3)]
        return x.flip(self.flips).permute(back)

    def sizes(self, voxel_size: Sequence[float]) -> list[float]:
        """The voxel's edges along the stored axes."""
        return [voxel_size[axis] for axis in self.order]

    def direction(self, b0_dir: Sequence[float]) -> list[float]:
        """A direction along the stored axes."""
        return [
            -b0_dir[axis] if place in self.flips else b0_dir[axis]
            for place, axis in enumerate(self.order)
        ]


#: Nothing changed.
AS_IS = Storage()
#: Three flips, a swap and a turn make all 48.
GENERATORS = (
    Storage(flips=(0,)),
    Storage(flips=(1,)),
    Storage(flips=(2,)),
    Storage(order=(1, 0, 2)),
    Storage(order=(1, 2, 0)),
)


def every_storage() -> Iterator[Storage]:
    """All 48, the first of which changes nothing."""
    for order in itertools.permutations(range(3)):
        for count in range(4):
            for flips in itertools.combinations(range(3), count):
                yield Storage(order, flips)


def distance(x: Tensor, y: Tensor, mask: Tensor) -> float:
    """‖x − y‖/‖y‖ in the mask, in %."""
    return 100 * float((x - y)[mask].norm() / y[mask].norm())


def inverter(function: str, case: Case, args: Any) -> Callable[..., Any]:
    """Inversion of a case stored anyhow, with what the method accepts of `more`."""
    invert = resolve(function)

    def run(storage: Storage = AS_IS, **more: Any) -> Any:
        optional = accepted(
            invert, b0=3.0, echo_time=0.02, magnitude=storage.store(case.magnitude), **more
        )
        return invert(
            storage.store(case.field),
            storage.store(case.mask),
            storage.sizes([args.voxel_size] * 3),
            storage.direction(args.b0_dir),
            **optional,
        )

    return run


class Case(NamedTuple):
    """A head's local field with noise in a mask, a magnitude with its edges, and the truth."""

    field: Tensor
    mask: Tensor
    magnitude: Tensor
    truth: dict[str, Any]


def make_case(args: Any) -> Case:
    """The head asked for."""
    data = brain(args.head, args.seed, args.voxel_size, 1.0)
    chi, whole = torch.from_numpy(data["chi"]), torch.from_numpy(data["mask"])
    field = noisy_field(chi, whole, args, args.sigma / 1000)
    mask = torch.from_numpy(cut_mask(data["mask"], args.cut))
    torch.manual_seed(0)
    magnitude = (1 + 3 * chi + 0.02 * torch.randn(chi.shape)).clamp_min(0.1) * mask
    truth = {**data, "mask": data["mask"] & mask.numpy()}
    return Case(torch.where(mask, field, 0.0), mask, magnitude, truth)


def storages(args: Any, case: Case, chosen: dict[str, str]) -> None:
    """Print how far χ changes with the storage."""
    print("| method | largest difference % | where |")
    print("|---|---|---|")
    for name, function in chosen.items():
        run = inverter(function, case, args)
        here, worst = run().chi, (0.0, Storage())
        for storage in every_storage() if args.all else GENERATORS:
            there = storage.restore(run(storage).chi)
            worst = max(worst, (distance(there, here, case.mask), storage))
        print(f"| {name} | {worst[0]:.3f} | {worst[1].order} {worst[1].flips} |", flush=True)


def stopping(args: Any, case: Case, chosen: dict[str, str]) -> None:
    """Print how far the default stop is from the minimiser, and what it costs."""
    print("| method | from the minimiser % | it. | CPU s | NRMSE % | its NRMSE % |")
    print("|---|---|---|---|---|---|")
    for name, function in chosen.items():
        if name in WITHOUT_MINIMISER:
            continue
        run = inverter(function, case, args)
        start = time.process_time()
        usual = run()
        seconds = time.process_time() - start
        most = args.exact // 25 if name == "MEDI" else args.exact
        exact = run(tolerance=0.0, max_iterations=most).chi
        errors = [scores(chi, case.truth)["NRMSE"] for chi in (usual.chi, exact)]
        print(
            f"| {name} | {distance(usual.chi, exact, case.mask):.2f} | {usual.iterations} "
            f"| {seconds:.1f} | {errors[0]:.2f} | {errors[1]:.2f} |",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["storages", "stopping"])
    parser.add_argument("--all", action="store_true", help="all 48 storages")
    parser.add_argument("--exact", type=int, default=2000, help="iterations of the minimiser")
    parser.add_argument("--methods", nargs="+", choices=sorted(methods()), help="default: all")
    parser.add_argument("--head", choices=["procedural", "colin"], default="colin")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sigma", type=float, default=2.0, help="noise in ppb")
    parser.add_argument("--cut", type=int, default=0, help="layers taken off the mask")
    parser.add_argument("--voxel-size", type=float, default=2.0, help="mm")
    parser.add_argument("--b0-dir", nargs=3, type=float, default=[0.05, 0.1, 0.99])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    known = methods()
    chosen = {name: known[name] for name in args.methods or known}
    {"storages": storages, "stopping": stopping}[args.what](args, make_case(args), chosen)


if __name__ == "__main__":
    main()
