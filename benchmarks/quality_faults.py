"""Faults of a map, each where it would arise, and the chain from a scan to a map.

`benchmarks/quality.py` makes and judges maps with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from chains import acquired
from torch import Tensor

from qsm_nipype import chain
from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.morphology import dilate, erode
from qsm_nipype.core.relaxometry import loglinear


@dataclass(frozen=True)
class Case:
    """What a map is judged by, while it is made: volumes and the direction of B0."""

    data: Mapping[str, Any]
    total: Tensor
    noise: Tensor
    residual: Tensor
    mask: Tensor
    trimmed: Tensor
    local: Tensor
    known: Tensor
    chi: Tensor
    magnitude: Tensor
    r2star: Tensor
    b0_dir: tuple[float, float, float]


# ---- maps -------------------------------------------------------------------------------------


def front(data: Mapping[str, Any], *, mask: Tensor | None = None) -> Case:
    """Field, masks and R2* of a scan; the mask holds the brain and the fluid around it."""
    scan, magnitude = acquired(data), data["magnitude"]
    *_, fitted = chain.map_field(data["phase"], magnitude, scan)
    brain = dilate(data["brain"], data["size"], 2.0) if mask is None else mask
    trimmed, _ = chain.trim_mask(brain, fitted, scan)
    decay = loglinear(magnitude, brain, scan.echo_times)
    empty = torch.zeros_like(fitted.field)
    whole = dilate(trimmed, data["size"], 3.0) & brain
    return Case(
        data, fitted.field, fitted.noise, fitted.residual, whole, trimmed, empty, trimmed, empty,
        combined_magnitude(magnitude), decay.r2star, tuple(data["b0_dir"]),
    )  # fmt: skip


def mapped(case: Case, background: str = "lbv", inversion: str = "rts") -> Case:
    """χ of a case's total field in its trimmed mask."""
    scan = replace(acquired(case.data), b0_dir=case.b0_dir)
    removed = chain.remove_background(
        case.total, case.trimmed, scan, field_noise=case.noise, method=background
    )
    return inverted(replace(case, local=removed.field, known=removed.mask), inversion)


def inverted(case: Case, inversion: str = "rts", **own: Any) -> Case:
    """χ of a case's local field, without its mean."""
    scan = replace(acquired(case.data), b0_dir=case.b0_dir)
    chi = chain.invert(
        case.local, case.known, scan, region=case.trimmed, field_noise=case.noise,
        magnitude=case.magnitude, method=inversion, parameters={f"inversion.{inversion}": own},
    ).chi  # fmt: skip
    return replace(case, chi=(chi - chi[case.known].mean()) * case.known)


def kept(case: Case) -> dict[str, Any]:
    """What is stored of a case: half precision is a thousandth of every value."""
    level = case.magnitude[case.mask].median().clamp_min(1e-9)
    maps = {
        "chi": case.chi, "local_field": case.local, "total_field": case.total,
        "noise": case.noise, "residual": case.residual, "r2star": case.r2star,
        "magnitude": case.magnitude / level,
    }  # fmt: skip
    stored = {name: volume.clamp(-6e4, 6e4).half() for name, volume in maps.items()}
    masks = {"mask": case.mask, "mask_chi": case.known, "trimmed": case.trimmed}
    known = {name: case.data[name] for name in ("size", "b0", "echo_times")}
    return {"maps": stored, "masks": masks, "b0_dir": case.b0_dir, **known}


# ---- faults -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """What a fault is drawn from: strength 0 to 1, numbers, the inversion of the map.

    `good` is the head's map without a fault, by that inversion.
    """

    strength: float
    rng: np.random.Generator
    inversion: str
    good: Case

    def between(self, low: float, high: float) -> float:
        """From `low` to `high` by strength, evenly in the logarithm."""
        return float(low * (high / low) ** self.strength)


def outside(case: Case, draw: Draw) -> Case:
    """The mask reaches out of the brain, all round or towards one side, untrimmed."""
    size = case.data["size"]
    wide = dilate(case.mask, size, draw.between(5, 15)) & (case.magnitude > 0.03 * _level(case))
    if draw.rng.random() < 0.7:  # towards the face, the neck, or any other side
        wide = case.mask | (wide & _side(case, draw, 0.0))
    return mapped(replace(case, mask=wide, trimmed=wide), inversion=draw.inversion)


def coverage(case: Case, draw: Draw) -> Case:
    """A good part of the brain has no χ: a side is cut off, or the rim."""
    good = draw.good
    share = draw.between(0.35, 0.8)
    if draw.rng.random() < 0.5:
        less = good.known & _side(good, draw, share, of=good.known)
    else:
        less = erode(good.known, case.data["size"], draw.between(9, 20))
    less = less if bool(less.any()) else good.known & _side(good, draw, share, of=good.known)
    return replace(good, known=less, chi=good.chi * less, local=good.local * less)


def scaled(case: Case, draw: Draw) -> Case:
    """Fields and χ off by a factor: wrong phase unit, field strength or echo times."""
    factor = draw.between(2.5, 6)
    factor = factor if draw.rng.random() < 0.5 else 1 / factor
    good = draw.good
    names = ("chi", "local", "total", "noise")
    return replace(good, **{n: getattr(good, n) * factor for n in names})


def inverted_sign(case: Case, draw: Draw) -> Case:
    """Phase with the other sign."""
    good = draw.good
    return replace(good, chi=-good.chi, local=-good.local, total=-good.total)


def geometry(case: Case, draw: Draw) -> Case:
    """B0 along another axis: 60 to 90 degrees off."""
    angle = np.deg2rad(60 + 30 * draw.strength)
    b = np.asarray(case.b0_dir) / np.linalg.norm(case.b0_dir)
    side = np.cross(b, draw.rng.standard_normal(3))
    turned = np.cos(angle) * b + np.sin(angle) * side / np.linalg.norm(side)
    return mapped(replace(case, b0_dir=tuple(turned.tolist())), inversion=draw.inversion)


def streaks(case: Case, draw: Draw) -> Case:
    """Wrong field at a few places and an inversion that does not mind."""
    good = draw.good
    places = _blobs(good, draw, count=int(draw.between(6, 25)), radius=(3.0, 6.0))
    wrong = good.local + places * draw.between(0.08, 0.4)
    harsh = replace(good, local=wrong * good.known)
    if draw.rng.random() < 0.5:
        return inverted(harsh, "tkd", threshold=1 / draw.between(10, 40))
    return inverted(harsh, draw.inversion)


def shading(case: Case, draw: Draw) -> Case:
    """Slow field of the surroundings stays in the local field."""
    good = draw.good
    slow = case.total - good.local
    slow = (slow - slow[good.known].median()) * good.known
    size = float(slow[good.known].abs().quantile(0.8)) if int(good.known.sum()) < 1e7 else 1.0
    wrong = good.local + slow * (draw.between(0.012, 0.06) / max(size, 1e-6))
    return inverted(replace(good, local=wrong), "rts" if draw.strength < 0.5 else "tkd")


def wraps(case: Case, draw: Draw) -> Case:
    """A turn too many in some regions of the unwrapped field."""
    times = case.data["echo_times"]
    turn = 1 / (GYROMAGNETIC_RATIO * case.data["b0"] * (times[1] - times[0]))
    places = _blobs(draw.good, draw, count=1 + int(3 * draw.rng.random()), radius=(
        draw.between(8, 20), draw.between(12, 30)))  # fmt: skip
    wrong = replace(case, total=case.total + places.sign() * turn)
    return mapped(wrong, inversion=draw.inversion)


def noisy(case: Case, draw: Draw) -> Case:
    """Noise of the signal: SNR 6 to 2 of white matter."""
    signal = _signal(case.data)
    level = float(signal.abs()[..., 0][case.data["brain"]].median()) * draw.between(0.16, 0.5)
    noise = draw.rng.standard_normal((*signal.shape, 2), dtype=np.float32)
    return _again(case, signal + level * torch.view_as_complex(torch.from_numpy(noise)), draw)


def ghosts(case: Case, draw: Draw) -> Case:
    """Lines of k-space with random or alternating phase."""
    signal, axis = _signal(case.data), int(draw.rng.integers(0, 2))
    lines = signal.shape[axis]
    off = draw.rng.standard_normal((lines, signal.shape[-1])) * draw.between(0.5, 1.5)
    if draw.rng.random() < 0.5:
        off = np.where(np.arange(lines)[:, None] % 2, draw.between(0.4, 1.2), 0.0) + 0 * off
    view = [1, 1, 1, signal.shape[-1]]
    view[axis] = lines
    turned = torch.from_numpy(np.exp(1j * off).astype(np.complex64)).view(view)
    spectrum = torch.fft.fft(signal, dim=axis) * turned
    return _again(case, torch.fft.ifft(spectrum, dim=axis), draw)


def motion(case: Case, draw: Draw) -> Case:
    """The head lies elsewhere (by 3 to 10 mm and degrees) for some blocks of lines."""
    signal, axis = _signal(case.data), int(draw.rng.integers(0, 2))
    moved = _moved(signal, case.data["size"], draw)
    lines = signal.shape[axis]
    count = int(draw.rng.integers(2, 6))
    ends = np.sort(draw.rng.integers(0, lines, 2 * count)).reshape(count, 2)
    away = np.zeros(lines, dtype=bool)
    for a, b in ends:
        away[a:b] = True
    away = np.fft.ifftshift(away)
    view = [1, 1, 1, 1]
    view[axis] = lines
    pick = torch.from_numpy(away).view(view)
    both = [torch.fft.fft(s, dim=axis) for s in (signal, moved)]
    return _again(case, torch.fft.ifft(torch.where(pick, both[1], both[0]), dim=axis), draw)


def reference(case: Case, draw: Draw) -> Case:
    """χ relative to a region that is none: a vein, bone, a bleed."""
    good = draw.good
    off = draw.between(0.08, 0.3) * draw.rng.choice([-1, 1])
    return replace(good, chi=(good.chi + float(off)) * good.known)


FAULTS: Mapping[str, Callable[[Case, Draw], Case]] = {
    "mask outside the brain": outside,
    "coverage": coverage,
    "unknown factor": scaled,
    "sign": inverted_sign,
    "direction of B0": geometry,
    "streaks": streaks,
    "shading, wedges": shading,
    "wraps left": wraps,
    "noise": noisy,
    "ghosts": ghosts,
    "motion": motion,
    "reference region": reference,
}


#: faults that begin with the signal, of which fewer are made
COSTLY = ("noise", "ghosts", "motion")


# ---- pieces of faults -------------------------------------------------------------------------


def _level(case: Case) -> float:
    return float(case.magnitude[case.data["brain"]].median())


def _side(case: Case, draw: Draw, share: float, *, of: Tensor | None = None) -> Tensor:
    """Half-space in a random direction; that without `share` of the voxels `of`."""
    normal = draw.rng.standard_normal(3)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in case.mask.shape), indexing="ij"))
    size = torch.tensor(case.data["size"]) * torch.from_numpy(normal).float()
    along = (index * size.view(3, 1, 1, 1)).sum(0)
    within = along[case.data["brain"] if of is None else of].sort().values
    limit = within[min(len(within) - 1, int((0.6 if of is None else share) * len(within)))]
    return along > limit


def _blobs(case: Case, draw: Draw, count: int, radius: tuple[float, float]) -> Tensor:
    """Balls of random place, radius (mm) and sign inside the mask of χ."""
    where, size = case.known.nonzero(), torch.tensor(case.data["size"])
    out = torch.zeros_like(case.total)
    inside = case.known.nonzero().float() * size
    for _ in range(count):
        centre = where[int(draw.rng.integers(len(where)))].float() * size
        near = (inside - centre).square().sum(1).sqrt() <= draw.rng.uniform(*radius)
        out[tuple(where[near].T)] += float(draw.rng.choice([-1, 1]))
    return out


def _signal(data: Mapping[str, Any]) -> Tensor:
    return torch.polar(data["magnitude"], data["phase"])


def _again(case: Case, signal: Tensor, draw: Draw) -> Case:
    """The map of another signal, in the same mask."""
    data = {**case.data, "magnitude": signal.abs(), "phase": signal.angle()}
    return mapped(front(data), inversion=draw.inversion)


def _moved(signal: Tensor, size: Sequence[float], draw: Draw) -> Tensor:
    """The signal of a head that was turned about the first axis and shifted."""
    angle, shift = np.deg2rad(draw.between(3, 10)), draw.between(3, 10)
    turn = np.eye(3, 4, dtype=np.float32)
    # grid_sample's axes are z, y, x of the volume
    turn[0, :2] = np.cos(angle), -np.sin(angle)
    turn[1, :2] = np.sin(angle), np.cos(angle)
    turn[:, 3] = 2 * shift * draw.rng.standard_normal(3) / 1.7 / (
        np.asarray(signal.shape[2::-1]) * np.asarray(size)[::-1]
    )  # fmt: skip
    parts = torch.view_as_real(signal).permute(3, 4, 0, 1, 2).flatten(0, 1)[None]
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(turn)[None], list(parts.shape), align_corners=False
    )
    found = torch.nn.functional.grid_sample(parts, grid, align_corners=False)[0]
    found = found.unflatten(0, (signal.shape[3], 2)).permute(2, 3, 4, 0, 1).contiguous()
    return torch.view_as_complex(found)
