"""What a reader sees at arm's length: every map as means over cubes of about 3 mm.

Measures on these cubes mean the same for voxels of 0.5 and of 3 mm, and cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.core.morphology import distance_inside

#: Edge of a cube (mm); larger voxels stay as they are.
EDGE = 3.0
#: Fewest cubes with χ that say anything: 27 mL.
FEWEST_CUBES = 1000
#: Maps that are known where χ is; the others are known in the brain.
OF_CHI = ("chi", "local_field")
#: Depth (mm) up to which distances to the mask's edge are told.
DEEPEST = 30.0


@dataclass(frozen=True)
class Seen:
    """The maps `(X, Y, Z)` of one acquisition on cubes of `edges` (mm); χ and fields in ppm.

    `brain` and `known` (where there is χ) are bool; `maps` holds what there is: chi (without its
    median in `known`, which is `level`), local_field, total_field, noise (ppm, of one voxel),
    residual (rad), r2star (1/s). `b0_dir` is a unit vector along the axes, `voxel` the volume of a
    voxel as it was measured (mm³), `turn` the field (ppm) that turns the phase once between two
    echoes, `b0` in T, `depth` the distance (mm) to what has no χ.
    """

    brain: Tensor
    known: Tensor
    maps: Mapping[str, Tensor]
    edges: tuple[float, float, float]
    b0_dir: tuple[float, float, float]
    voxel: float
    depth: Tensor = field(repr=False)
    level: float = 0.0
    turn: float | None = None
    b0: float = 3.0


def look(
    maps: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    turn: float | None = None,
    b0: float = 3.0,
) -> Seen | None:
    """`maps` and `masks` on cubes; None where too few cubes have χ.

    `masks` are "mask" (the brain) and "mask_chi"; without the latter it is the former. What is
    not finite counts as unknown.
    """
    brain = masks["mask"].bool()
    known = masks.get("mask_chi", brain).bool()
    if not bool(known.any()):
        return None
    box = working_grid(brain | known, padding=0).box
    brain, known = brain[box], known[box]
    if "chi" in maps:
        known = known & torch.isfinite(maps["chi"][box])
    edges = [float(v) for v in voxel_size]
    shape = [max(1, round(n * e / max(e, EDGE))) for n, e in zip(brain.shape, edges, strict=True)]
    size = tuple(n * e / m for n, e, m in zip(brain.shape, edges, shape, strict=True))
    whole, inside = (_means(mask.to(torch.float32), shape) for mask in (brain, known))
    here = inside > 0.5
    if int(here.sum()) < FEWEST_CUBES:
        return None
    found = {}
    for name, values in maps.items():
        mask, share = (known, inside) if name in OF_CHI else (brain, whole)
        within = torch.where(mask, values[box].to(torch.float32), 0.0)
        within.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        found[name] = _means(within, shape).div_(share.clamp_min(0.5))
    level = 0.0
    if "chi" in found:
        level = float(found["chi"][here].median())
        found["chi"] = torch.where(here, found["chi"] - level, 0.0)
    norm = math.hypot(*b0_dir)
    return Seen(
        brain=whole > 0.5,
        known=here,
        maps=found,
        edges=size,  # type: ignore[arg-type]
        b0_dir=tuple(float(b) / norm for b in b0_dir),  # type: ignore[arg-type]
        voxel=math.prod(edges),
        depth=distance_inside(here, size, DEEPEST),
        level=level,
        turn=turn,
        b0=b0,
    )


def turn_of(echo_times: Sequence[float], b0: float) -> float:
    """The field (ppm) that turns the phase once between two echoes (s) at `b0` (T)."""
    times = [0.0, *echo_times] if len(echo_times) == 1 else list(echo_times)
    return 1 / (GYROMAGNETIC_RATIO * b0 * min(b - a for a, b in pairwise(times)))


def _means(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Means of `values` over cubes, as many as `shape` says along each axis."""
    if tuple(shape) == tuple(values.shape):
        return values
    return adaptive_avg_pool3d(values[None, None], tuple(shape))[0, 0]  # type: ignore[arg-type]
