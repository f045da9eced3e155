"""iSMV, refined by an inversion with total variation beside a harmonic field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.background import LocalField
from qsm_nipype.core.background.ismv import ismv
from qsm_nipype.core.background.lbv import lbv
from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import WorkingGrid, irfft, rfft, working_grid
from qsm_nipype.core.inversion.admm import LAPLACIAN_PENALTY, DipoleAndHarmonic, Limits, solve
from qsm_nipype.core.inversion.dataterm import FieldTerm, least_squares
from qsm_nipype.core.inversion.priors import Variation
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.core.inversion.weights import tv_weight
from qsm_nipype.core.morphology import erode

#: Voxels with edges up to this (mm) are halved in number along the axis for χ and h: both only
#: have to tell what is harmonic.
FINE = 1.25
#: Penalty of the splitting y = Dχ + h, with which h arrives where iSMV's boundary was wrong in the
#: same iterations as χ, and λ/μ in units of the field's RMS.
DATA_PENALTY, GRADIENT_SCALE = 0.03, 6.0


def ismv_tv(  # noqa: PLR0913  the common signature
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    radius: float | None = None,
    regularization: float | None = None,
    harmonic: float = 150.0,
    erosion: float = 2.0,
    tolerance: float = 1e-3,
    max_iterations: int = 60,
) -> LocalField:
    """iSMV [Wen2014]_, then total variation beside a harmonic field [Milovic2019]_. ppm → ppm.

    iSMV takes the total field near the surface for background: what it returns is off by a
    harmonic field of the local field's own size. χ and h that minimise
    ½‖W(Dχ + h − local)‖² + λ TV(χ) + ½β‖Δh‖² tell the two apart, χ being anywhere in `mask`, where
    the sources are, and the data where iSMV has them. h is subtracted. Where iSMV has no data, the
    local field is Dχ.

    `radius` (mm) is iSMV's. `regularization` λ (ppm), `harmonic` β and `noise` (SD in ppm) are as
    in `whtv`, which stops likewise. Where voxels are small, χ and h are
    found on voxels twice as large. The mask loses `erosion` mm, and one layer of voxels at least.
    """
    inside = mask.bool()
    edge = max(float(v) for v in voxel_size) * (1 + 1e-5)
    kept = erode(inside, voxel_size, max(erosion, edge))
    first = ismv(field, inside, voxel_size, radius=radius)
    if not first.mask.any():
        return LocalField(torch.zeros_like(first.field), torch.zeros_like(kept))
    grid = _Grid.around(inside, voxel_size)
    fit = _fit(
        grid.coarse(first.field, first.mask),
        grid.mostly(first.mask),
        grid.mostly(inside),
        None if noise is None else grid.coarse(noise, inside),
        (grid.steps, b0_dir),
        (regularization, harmonic),
        Limits(tolerance, max_iterations),
    )
    rest = _harmonic(grid.fine(fit.h), first.mask, voxel_size)
    own = _dipole_field(grid, fit.chi, b0_dir)
    local = torch.where(first.mask, first.field - rest, own)
    return LocalField(torch.where(kept, local, 0.0), kept, fit.iterations)


@dataclass(frozen=True)
class _Fit:
    chi: Tensor
    h: Tensor
    iterations: int


class _Remembering(DipoleAndHarmonic):
    """Keeps y = Dχ + h of the last step."""

    def __call__(self, pull: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        x, self.y = super().__call__(pull, q)
        return x, self.y


def _fit(
    local: Tensor,
    mask: Tensor,
    region: Tensor,
    noise: Tensor | None,
    geometry: tuple[Sequence[float], Sequence[float]],
    weights: tuple[float | None, float],
    limits: Limits,
) -> _Fit:
    """χ and h of the `local` field, known in `mask`, with sources in `region`."""
    # where the field has no number, χ is told all the same
    known = torch.where(mask, local, torch.nan)
    problem = field_problem(known, region, *geometry, noise=noise, region=region)
    weight, beta = weights
    if problem.scale == 0:
        return _Fit(torch.zeros_like(local), torch.zeros_like(local), 0)
    if weight is None:
        weight = tv_weight(problem.error.noise, problem.scale)
    radius = GRADIENT_SCALE * problem.scale
    solver = _Remembering(problem, weight / radius, DATA_PENALTY, beta, LAPLACIAN_PENALTY)
    found = solve(
        problem,
        Variation(problem, radius, free=problem.rim()),
        FieldTerm(problem, least_squares(problem, DATA_PENALTY)),
        solver,
        limits,
        chosen={},
    )
    h = solver.y - problem.dipole(problem.cut(found.chi))
    return _Fit(found.chi, problem.restore(h), found.iterations)


def _harmonic(h: Tensor, mask: Tensor, voxel_size: Sequence[float]) -> Tensor:
    """The function harmonic in `mask` that is `h` in the outermost layer of it."""
    return h - lbv(h, mask, voxel_size).field


@dataclass(frozen=True)
class _Grid:
    """The box of a mask on its own voxels and on coarser ones, the same seen from both ends."""

    box: WorkingGrid
    shape: tuple[int, int, int]
    steps: tuple[float, float, float]
    voxel_size: tuple[float, float, float]

    @classmethod
    def around(cls, mask: Tensor, voxel_size: Sequence[float]) -> _Grid:
        sides = working_grid(mask).box
        sizes = [s.stop - s.start for s in sides]
        box = WorkingGrid(tuple(mask.shape), sides, tuple(sizes))  # type: ignore[arg-type]
        vox = tuple(float(v) for v in voxel_size)
        shape = tuple(-(-n // 2) if v <= FINE else n for n, v in zip(sizes, vox, strict=True))
        steps = tuple(n * v / m for n, v, m in zip(sizes, vox, shape, strict=True))
        return cls(box, shape, steps, vox)  # type: ignore[arg-type]

    def coarse(self, x: Tensor, mask: Tensor) -> Tensor:
        """Means of `x` over the part of the coarser voxels in `mask`."""
        share = self._mean(mask.to(x.dtype))
        return self._mean(torch.where(mask, x, 0.0)) / share.clamp_min(1e-6)

    def mostly(self, mask: Tensor) -> Tensor:
        """Coarser voxels at least half of which is in `mask`."""
        return self._mean(mask.to(torch.float32)) >= 0.5

    def fine(self, x: Tensor) -> Tensor:
        """`x` of the coarser voxels, linear between their centres, in the volume."""
        size = self.box.shape
        if x.shape != size:
            x = functional.interpolate(x[None, None], size=size, mode="trilinear")[0, 0]
        return self.box.restore(x)

    def _mean(self, x: Tensor) -> Tensor:
        cut = self.box.embed(x)
        if cut.shape == self.shape:
            return cut
        return functional.adaptive_avg_pool3d(cut[None, None], self.shape)[0, 0]


def _dipole_field(grid: _Grid, chi: Tensor, b0_dir: Sequence[float]) -> Tensor:
    """Dχ in the volume, of χ on the coarser voxels."""
    box = grid.box
    room = working_grid(torch.ones(box.shape)).shape
    padded = WorkingGrid(box.volume, box.box, room)
    x = padded.embed(grid.fine(chi))
    kernel = dipole_kernel(x.shape, grid.voxel_size, b0_dir, x)
    return padded.restore(irfft(rfft(x).mul_(kernel), x.shape))
