"""Laplacian boundary value method: the background solves Laplace's equation inside the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.background import LocalField, finite_inside
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.core.solvers import conjugate_gradient

_DAMPING = 0.8  # of the Jacobi smoother
_SWEEPS = 2
_COARSEST = 30  # sweeps on the last level


def lbv(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> LocalField:
    """LBV [Zhou2014]_: `field` (X, Y, Z) in ppm → local field in ppm.

    The local field is zero in the outermost layer of the mask and has the total field's Laplacian
    (seven-point, any voxel size) inside. Conjugate gradients with a multigrid V-cycle as
    preconditioner solve this Poisson problem to the relative residual `tolerance`. The mask loses
    one layer. `b0_dir` plays no part.
    """
    grid = working_grid(mask, padding=2)
    inside = grid.embed(mask)
    hx, hy, hz = (float(v) for v in voxel_size)
    finest = Level(_interior(inside), (hx, hy, hz))
    levels = _hierarchy(finest)
    source = finest.apply(finite_inside(grid.embed(field), inside), everywhere=True)
    local, iterations = conjugate_gradient(
        finest.apply,
        source,
        tolerance=tolerance,
        max_iterations=max_iterations,
        preconditioner=lambda r: _v_cycle(levels, r),
    )
    return LocalField(grid.restore(local), grid.restore(finest.inside), iterations)


@dataclass(frozen=True)
class Level:
    """One grid: unknowns where `inside`, zero elsewhere; `steps` between voxels in mm."""

    inside: Tensor
    steps: tuple[float, float, float]

    @property
    def diagonal(self) -> float:
        """The centre weight of minus the seven-point Laplacian (1/mm²)."""
        return sum(2 / h**2 for h in self.steps)

    def apply(self, x: Tensor, *, everywhere: bool = False) -> Tensor:
        """Minus the Laplacian of `x` at the unknowns, `x` taken as zero beyond or `everywhere`."""
        if not everywhere:
            x = x * self.inside
        out = x * self.diagonal
        for axis, h in enumerate(self.steps):
            n, weight = x.shape[axis], -1 / h**2
            out.narrow(axis, 0, n - 1).add_(x.narrow(axis, 1, n - 1), alpha=weight)
            out.narrow(axis, 1, n - 1).add_(x.narrow(axis, 0, n - 1), alpha=weight)
        return out.mul_(self.inside)

    def smooth(self, x: Tensor, b: Tensor, sweeps: int) -> Tensor:
        """Damped Jacobi."""
        for _ in range(sweeps):
            x = x.add_(b - self.apply(x), alpha=_DAMPING / self.diagonal)
        return x

    def factors(self) -> tuple[int, int, int]:
        """By how much to coarsen each axis: those with the finest steps first."""
        finest = min(self.steps)
        return tuple(2 if h <= 1.5 * finest else 1 for h in self.steps)  # type: ignore[return-value]


def _interior(mask: Tensor) -> Tensor:
    """Voxels whose six neighbours lie in `mask`."""
    padded = functional.pad(mask, [1] * 6)
    inside = mask.clone()
    for axis in range(3):
        for shift in (-1, 1):
            inside &= padded.roll(shift, dims=axis)[1:-1, 1:-1, 1:-1]
    return inside


def _hierarchy(finest: Level) -> list[Level]:
    levels = [finest]
    while min(levels[-1].inside.shape) > 6 and len(levels) < 8:
        level = levels[-1]
        factors = level.factors()
        share = _restrict(level.inside.float(), factors)
        hx, hy, hz = (h * f for h, f in zip(level.steps, factors, strict=True))
        coarse = Level(share >= 0.5, (hx, hy, hz))
        if not coarse.inside.any():
            break
        levels.append(coarse)
    return levels


def _v_cycle(levels: Sequence[Level], b: Tensor) -> Tensor:
    """Approximate solution of A x = `b` on the first level; symmetric, as CG needs it."""
    level, coarser = levels[0], levels[1:]
    x = b * (_DAMPING / level.diagonal)
    if not coarser:
        return level.smooth(x, b, _COARSEST)
    x = level.smooth(x, b, _SWEEPS - 1)
    factors = level.factors()
    residual = _restrict(b - level.apply(x), factors).mul_(coarser[0].inside)
    correction = _prolong(_v_cycle(coarser, residual), factors, b.shape)
    x = x.add_(correction.mul_(level.inside), alpha=1.0)
    return level.smooth(x, b, _SWEEPS)


def _restrict(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Mean over blocks of `factors` voxels."""
    pads = [
        p for n, f in zip(reversed(x.shape), reversed(factors), strict=True) for p in (0, n % f)
    ]
    x = functional.pad(x, pads)
    return functional.avg_pool3d(x[None, None], tuple(factors))[0, 0]


def _prolong(x: Tensor, factors: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Each coarse value to its block: the adjoint of `_restrict` but for a factor."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            x = x.repeat_interleave(factor, dim=axis)
    return x[: shape[0], : shape[1], : shape[2]].contiguous()
