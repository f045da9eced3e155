"""Paramagnetic and diamagnetic susceptibility of simulated heads, method by method.

    python benchmarks/separation.py --seed 31 --voxel-size 1
    python benchmarks/separation.py --seed 31 --sensitivity
    python benchmarks/separation.py --r2

Two truths on each head. `own`: χ of the simulator, and R2* less R2 of its tissues over 137 1/s per
ppm for the sum of both sources (|χ| at least). `qsm-forward`: χ⁺ and χ⁻ by the package's model for
χ-separation (Ridani et al. 2026) on the head's labels, R1 and R2*. The local field of χ⁺ + χ⁻ has
1 ppb of noise, R2′ = 137(χ⁺ + |χ⁻|) and R2* = R2 + R2′ 1.5 1/s (`--rate-noise`). χ is that of the
pipeline's inversion, relative to the mean of the brain; the null takes χ⁺ = max(χ, 0) and
χ⁻ = min(χ, 0) of it. "gre" is the method with R2′ a fixed share of R2*. XSIM and NRMSE (%) by the
public scorer qsm-ci in the true brain; NRMSE is of what is left when both means are subtracted.

`--r2`: R2 of simulated spin-echo trains with a B1 of 0.8 to 1.2, its mean error in each.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from qsm_ci import qsm_eval

from qsm_nipype import chain
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.separation import RELAXIVITY, Sources
from qsm_nipype.core.separation.rates import assumed_reversible, reversible
from qsm_nipype.core.spin_echo import echo_train, spin_echo_r2
from qsm_nipype.simulation import heads
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.tissue import random_contrast, tissue_maps
from qsm_nipype.system.threads import limit_threads

TRUTHS = ("own", "qsm-forward")
FIELD_NOISE = 1e-3  # ppm
Row = tuple[str, Callable[[], Sources]]


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, separate, print the table."""
    options = parser().parse_args(argv)
    limit_threads(options.threads)
    if options.r2:
        spin_echoes()
        return
    print("| truth | method | χ⁺ XSIM | χ⁻ XSIM | χ XSIM | χ⁺ % | χ⁻ % | χ % | wall s | CPU s |")
    print("|---" * 10 + "|")
    for seed in options.seed:
        for name in options.truth:
            data = simulated(seed, options, name)
            rows = sensitivities(data, options) if options.sensitivity else methods(data)
            for label, run in rows:
                wall, cpu = time.perf_counter(), time.process_time()
                found = run()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                cells = scores(found, data)
                figures = " | ".join([*(f"{x:.3f}" for x in cells[:3]),
                                      *(f"{x:.1f}" for x in cells[3:])])  # fmt: skip
                print(f"| {name} {seed} | {label} | {figures} | {wall:.1f} | {cpu:.1f} |",
                      flush=True)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Which heads."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--anatomy", default="procedural", choices=tuple(heads.ANATOMIES))
    made.add_argument("--seed", type=int, nargs="+", default=[31])
    made.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    made.add_argument("--truth", nargs="+", default=list(TRUTHS), choices=TRUTHS)
    made.add_argument("--rate-noise", type=float, default=1.5, help="of R2′ and R2* (1/s)")
    made.add_argument("--sensitivity", action="store_true", help="to D_r and the noise of R2′")
    made.add_argument("--r2", action="store_true", help="R2 of spin echoes only")
    made.add_argument("--threads", type=int, default=2)
    return made


def simulated(seed: int, options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Truth and measured maps of a head, as tensors, and how it was acquired."""
    shape = tuple(2 * round(n / options.voxel_size / 2) for n in (180, 220, 180))
    person, contrast, texture = np.random.default_rng(seed).spawn(3)
    head = heads.ANATOMIES[options.anatomy](person, shape, options.voxel_size)
    tissue = tissue_maps(head, texture, contrast=random_contrast(contrast))
    brain = head.brain
    make = own_truth if name == "own" else forward_truth
    plus, minus = (np.where(brain, x, 0).astype(np.float32) for x in make(head, tissue))
    scan = chain.ScanParameters((0.004, 0.012, 0.02, 0.028), 3.0, head.voxel_size, head.b0_dir)
    mask = torch.from_numpy(brain)
    known: dict[str, Any] = {"plus": torch.from_numpy(plus), "minus": torch.from_numpy(minus)}
    chi = torch.where(mask, known["plus"] - known["minus"], 0.0)
    chi = torch.where(mask, chi - chi[mask].mean(), 0.0)
    draw = torch.Generator().manual_seed(seed)
    noisy = FIELD_NOISE * torch.randn(chi.shape, generator=draw)
    field = (dipole_field(chi, scan.voxel_size, scan.b0_dir) + noisy) * mask
    rate = RELAXIVITY * (known["plus"] + known["minus"])
    r2 = torch.from_numpy(np.where(brain, tissue.r2, 0).astype(np.float32))
    noise = [torch.randn(chi.shape, generator=draw) for _ in range(2)]
    r2star = (r2 + rate + options.rate_noise * noise[0]) * mask
    magnitude = torch.from_numpy(tissue.m0) * torch.exp(-0.016 * (r2 + rate)) * mask
    found = chain.invert(field, mask, scan)
    inverted = chain.set_reference(found.chi, mask, kind="brain").chi
    return {**known, "mask": mask, "scan": scan, "field": field, "chi": inverted, "r2": r2,
            "r2star": r2star, "magnitude": magnitude, "rate": rate, "noise": noise[1]}  # fmt: skip


def own_truth(head: Any, tissue: Any) -> tuple[np.ndarray, np.ndarray]:
    """χ⁺ and |χ⁻| (ppm) from the simulator's χ and the difference of its rates."""
    total = np.maximum((tissue.r2star - tissue.r2) / RELAXIVITY, np.abs(tissue.chi))
    return (total + tissue.chi) / 2, (total - tissue.chi) / 2


def forward_truth(head: Any, tissue: Any) -> tuple[np.ndarray, np.ndarray]:
    """χ⁺ and |χ⁻| (ppm) by qsm-forward's model for the separation of sources."""
    import qsm_forward

    labels = head.labels.astype(int)
    labels[labels == lab.CHOROID_PLEXUS] = lab.CSF
    labels[labels > lab.VEIN] = 0
    flat = np.zeros(labels.shape)
    plus, minus = qsm_forward.generate_chisep_maps(
        seg=labels,
        mask=head.brain,
        R1=tissue.r1,
        R2star=tissue.r2star,
        raw_field=flat,
        high_grad=flat + 1,
    )
    return plus, -minus


def separate(data: dict[str, Any], method: str, r2prime: torch.Tensor, **parameters: float) -> Any:
    """χ⁺ and χ⁻ by a method of the registry."""
    maps = {name: data[name] for name in ("chi", "magnitude", "r2star")}
    set_ = {f"separation.{method}": parameters}
    return chain.separate_sources(
        data["field"], data["mask"], data["scan"], method=method, parameters=set_,
        r2prime=r2prime, **maps,
    )  # fmt: skip


def methods(data: dict[str, Any]) -> Iterator[Row]:
    """The null, then every method of the registry, and the joint one by gradient echoes alone."""
    rate = reversible(data["r2star"], data["mask"], r2=data["r2"]).rate
    gre = assumed_reversible(data["r2star"], data["mask"]).rate
    chi = data["chi"]
    yield "null", lambda: Sources(chi.clamp_min(0), chi.clamp_max(0))
    for method in ("pointwise", "chi-separation", "joint"):
        yield method, lambda method=method: separate(data, method, rate)
    yield "r2star-qsm (gre)", lambda: separate(data, "r2star-qsm", gre)
    yield "joint (gre)", lambda: separate(data, "joint", gre)


def sensitivities(data: dict[str, Any], options: argparse.Namespace) -> Iterator[Row]:
    """The joint method with a wrong D_r, and with other noise in R2′."""
    for factor in (0.75, 1.0, 1.25):
        slopes = dict.fromkeys(("paramagnetic", "diamagnetic"), factor * RELAXIVITY)
        rate = reversible(data["r2star"], data["mask"], r2=data["r2"]).rate
        yield f"D_r × {factor:g}", lambda r=rate, s=slopes: separate(data, "joint", r, **s)
    for noise in (0.5, 3.0, 6.0):
        rate = ((data["rate"] + noise * data["noise"]) * data["mask"]).clamp_min(0)
        yield f"R2′ ± {noise:g} 1/s", lambda r=rate: separate(data, "joint", r)


def scores(found: Sources, data: dict[str, Any]) -> list[float]:
    """XSIM of χ⁺, |χ⁻| and χ, then their NRMSE (%)."""
    mask = data["mask"].numpy()
    pairs = [
        (found.paramagnetic, data["plus"]),
        (-found.diamagnetic, data["minus"]),
        (found.chi, data["plus"] - data["minus"]),
    ]
    arrays = [[x.numpy().astype(np.float64) for x in pair] for pair in pairs]
    return [qsm_eval.xsim(a, b, mask) for a, b in arrays] + [
        qsm_eval.nrmse_challenge(a, b, mask)[0] for a, b in arrays
    ]


def spin_echoes() -> None:
    """Mean and largest error of R2 over B1, with noise."""
    spacing, count, shape = 0.01, 12, (160, 30, 30)
    draw = torch.Generator().manual_seed(1)
    t2 = 0.04 + 0.12 * torch.rand(shape, generator=draw)
    b1 = torch.linspace(0.8, 1.2, shape[0])[:, None, None].expand(shape)
    times = [spacing * (n + 1) for n in range(count)]
    print("| T1 s | SNR | " + " | ".join(f"B1 {b:g}" for b in (0.8, 0.9, 1.0, 1.1, 1.2)) + " |")
    print("|---" * 7 + "|")
    for t1, snr in ((0.7, 50.0), (1.0, 200.0), (4.0, 50.0)):
        train = echo_train(t2.reshape(-1), math.pi * b1.reshape(-1), spacing, count, t1=t1)
        parts = [torch.randn(train.shape, generator=draw) / snr for _ in range(2)]
        image = torch.hypot(train + parts[0], parts[1]).reshape(*shape, count)
        whole = torch.ones(shape, dtype=torch.bool)
        off = spin_echo_r2(image, whole, (1.0, 1.0, 1.0), echo_times=times).r2 * t2 - 1
        near = [off[(b1 - b).abs() < 0.02].mean() for b in (0.8, 0.9, 1.0, 1.1, 1.2)]
        print(
            f"| {t1:g} | {snr:g} | " + " | ".join(f"{100 * float(x):+.1f} %" for x in near) + " |"
        )


if __name__ == "__main__":
    main()
