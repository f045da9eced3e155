"""What an inversion is given: the field, where it counts, where χ may be, and D(k).

Two regions, never one. The *data mask* M is where the field can be trusted: nothing is asked of
Dχ outside. The *source region* S, which contains M, is where the field's sources may lie: χ is
zero outside. They are one unless a `region` is given. χ is told in the mask only: in the rest of S
it is as good as a guess.

A field is Dχ and errors of two kinds: noise, and what no isotropic χ explains (anisotropy, rests
of the background, frequencies of tissue), which has the spectrum of χ itself. `field_error` reads
both off the field. The second is an unknown c of its own in the data term, f = Dχ + c + noise,
with its power for a prior: −log p(c) is ½Σ|c(k)|²/`misfit`, in units of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_error import FieldError, field_error, spectral_radius
from qsm_nipype.core.field_noise import noise_weights
from qsm_nipype.core.fourier import Shape, WorkingGrid, fast_length, working_grid
from qsm_nipype.core.geometry import relative_voxel_size
from qsm_nipype.core.phase import TWO_PI, wrap

#: Empty voxels between the head's box and its periodic image.
PADDING = 16
#: Where the acquisition is not known: 3 T and an effective echo time of 20 ms. They only decide
#: how many radians a ppm is, and so where the data term leaves its linear range.
B0 = 3.0
ECHO_TIME = 0.02
#: Share of the model's error that c takes; the rest does not disturb an inversion with a prior.
#: Sweeps over heads with anisotropy, scanner effects, 3 and 7 T, 1.1 to 2 mm: 0.3 to 0.9.
MODEL_SHARE = 0.6
#: Model errors below this share of χ's power are nothing.
LEAST_SHARE = 0.01
#: Largest phase (rad) of a field that is more than a voxel wide. Beyond π, e^{iφ} has turns, and
#: beyond π/2 a misfit pulls less the larger it is: from χ = 0 a strong source stays too weak.
LARGEST_PHASE = 1.0


@dataclass(frozen=True)
class Problem:
    """The geometry of an inversion: the regions on a box around the head, and D(k).

    All tensors of a problem live on the box of `grid`: data mask `M`, source region `S`, χ and
    what is split from it. `shape` is the grid of the transforms, which is larger where the box
    has been cut tightly and the same where the box holds the padding. `voxel_size` is relative to
    the mean voxel: gradients are per voxel, and scaling all lengths changes nothing. Cutting
    first makes the result independent of where the head lies. `mask` (volume) is where χ is told;
    `error` what the field holds beside Dχ, and `misfit` the power of c over that of the noise, on
    the half grid of D(k), or None where there is no c.
    """

    M: Tensor
    S: Tensor
    D: Tensor
    mask: Tensor
    error: FieldError
    misfit: Tensor | None
    voxel_size: tuple[float, float, float]
    grid: WorkingGrid
    shape: Shape

    def transform(self, x: Tensor) -> Tensor:
        """Half-grid spectrum of a box tensor, zeros around it."""
        return torch.fft.rfftn(x, s=self.shape)

    def inverse(self, X: Tensor) -> Tensor:
        """The box part of a half-grid spectrum's inverse transform."""
        x, y, z = self.grid.shape
        return torch.fft.irfftn(X, s=self.shape)[:x, :y, :z]

    def dipole(self, x: Tensor) -> Tensor:
        """Dx, both in the box."""
        return self.inverse(self.transform(x).mul_(self.D))

    def zeros(self) -> Tensor:
        """A box tensor of zeros."""
        return self.D.new_zeros(self.grid.shape)

    def cut(self, x: Tensor) -> Tensor:
        """A volume cut to the box."""
        return self.grid.embed(x)

    def restore(self, x: Tensor) -> Tensor:
        """A box tensor put back into the volume, zero outside the mask."""
        return self.grid.restore(x).mul_(self.mask)

    def faces(self) -> Tensor:
        """Where a voxel and its next along each axis are both in S: (3, box), bool.

        χ ends at the rim of S, so that its jump there is no roughness.
        """
        return torch.stack([self.S & self.S.roll(-1, axis) for axis in range(3)])

    def rim(self) -> Tensor:
        """Where just one of a voxel and its next along each axis is in S: (3, box), bool."""
        return torch.stack([self.S ^ self.S.roll(-1, axis) for axis in range(3)])


@dataclass(frozen=True)
class FieldProblem(Problem):
    """A `Problem` in ppm: field `f` and data weights `W` (at most 1), zero outside M.

    The box is that of the regions with one empty voxel around; the padding is only in the
    transforms, where it costs nothing between them.
    """

    f: Tensor
    W: Tensor

    @property
    def scale(self) -> float:
        """Weighted RMS of the field in the data mask (ppm)."""
        total = float(self.W.norm())
        return float((self.W * self.f).norm()) / total if total > 0 else 0.0


@dataclass(frozen=True)
class PhaseProblem(Problem):
    """A `Problem` in radians, for a data term in the complex signal.

    `phase` (rad) and `weights` (at most 1) are lists over the voxels `index` (flat) of S, zero
    outside M; `radians` is rad per ppm. The box is the whole padded grid: what is free outside S
    is iterated there.
    """

    index: Tensor
    phase: Tensor
    weights: Tensor
    radians: float

    @property
    def spread(self) -> float:
        """Typical size of the phase in M (rad), wraps left aside; 0 where there is none."""
        size = wrap(self.phase[self.gather(self.M)]).abs()
        middle = 1.5 * float(size.median()) if size.numel() else 0.0
        return middle if middle > 0 or not size.numel() else float(size.mean())

    @property
    def size(self) -> float:
        """`spread` in ppm."""
        return self.spread / self.radians

    def gather(self, x: Tensor) -> Tensor:
        """The voxels of S of a box tensor."""
        return x.view(-1)[self.index]

    def scatter_(self, x: Tensor, values: Tensor) -> Tensor:
        """Write `values` into the voxels of S of `x`."""
        x.view(-1)[self.index] = values
        return x

    def restore(self, x: Tensor) -> Tensor:
        """`x` (rad) as ppm in the volume, zero outside the source region."""
        return super().restore(x).div_(self.radians)


def field_problem(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    noise: Tensor | None = None,
    region: Tensor | None = None,
    model_share: float = MODEL_SHARE,
) -> FieldProblem:
    """The problem of a local `field` `(X, Y, Z)` in ppm; an empty mask becomes all zeros.

    The data mask is where `mask` holds and the field is finite, and so is the source region
    unless a `region` (bool) adds to it. Weights from the map `noise` as in `noise_weights`.
    c may take `model_share` of the model's error.
    """
    M = mask.bool() & torch.isfinite(field)
    S = M if region is None else M | region.bool()
    weights = noise_weights(noise, mask.bool()) * M
    box = working_grid(S if bool(S.any()) else torch.ones_like(S)).box
    tight = tuple(s.stop - s.start + 2 for s in box)
    error = field_error(field, M, voxel_size, b0_dir, noise=noise)
    grid = WorkingGrid(tuple(M.shape), box, tight)  # type: ignore[arg-type]
    shape = tuple(fast_length(n + PADDING) for n in tight)
    base = _problem(
        M,
        S,
        voxel_size,
        b0_dir,
        grid,
        shape,  # type: ignore[arg-type]
        mask,
        error,
        like=field,
        model_share=model_share,
    )
    inside = torch.where(M, field, field.new_zeros(()))
    return FieldProblem(**vars(base), f=base.cut(inside), W=base.cut(weights.to(field)))


class Signal(NamedTuple):
    """The signal behind a field: `noise` (SD in ppm), `magnitude`, B0 in T, echo time in s."""

    noise: Tensor | None = None
    magnitude: Tensor | None = None
    b0: float = B0
    echo_time: float = ECHO_TIME


def phase_problem(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    signal: Signal,
    *,
    region: Tensor | None = None,
) -> PhaseProblem:
    """The problem of a `field` `(X, Y, Z)` in ppm as phase φ = 2π·γ·B0·TE·field.

    Where the field of a strong source would make more than `LARGEST_PHASE` of it, φ is made
    smaller. Weights are those of `noise_weights`; without a noise map, noise is taken as
    ∝ 1/`magnitude`, and without either all weights are one. The data mask leaves out voxels of
    `mask` with a non-finite field, which stay in the source region; a `region` (bool) adds to
    it. Raises ValueError for an empty mask.
    """
    noise, magnitude, b0, echo_time = signal
    mask = mask.bool()
    M = mask & torch.isfinite(field)
    S = mask if region is None else mask | region.bool()
    known = torch.where(M, field, field.new_zeros(()))
    turn = 1 / (GYROMAGNETIC_RATIO * b0 * echo_time)
    error = min(  # single voxels may be off by turns, and strong sources may make some
        (field_error(x, M, voxel_size, b0_dir, noise=noise) for x in _turned(known, turn)),
        key=lambda found: found.noise,
    )
    if noise is None and magnitude is not None and bool((magnitude[mask] > 0).any()):
        noise = torch.where(magnitude > 0, 1 / magnitude.clamp_min(1e-30), magnitude.new_zeros(()))
    weights = noise_weights(noise, mask).to(field) * M
    grid = working_grid(S, padding=PADDING)
    base = _problem(M, S, voxel_size, b0_dir, grid, grid.shape, mask, error, like=field)
    radians = TWO_PI * GYROMAGNETIC_RATIO * b0 * echo_time
    if (peak := float(_without_spikes(known.abs()).max())) * radians > LARGEST_PHASE:
        radians = LARGEST_PHASE / peak
    index = base.S.view(-1).nonzero().squeeze(1)
    return PhaseProblem(
        **vars(base),
        index=index,
        phase=base.cut(known).view(-1)[index] * radians,
        weights=base.cut(weights).view(-1)[index],
        radians=radians,
    )


def _problem(  # noqa: PLR0913  what both kinds share
    M: Tensor,
    S: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    grid: WorkingGrid,
    shape: Shape,
    mask: Tensor,
    error: FieldError,
    *,
    like: Tensor,
    model_share: float = MODEL_SHARE,
) -> Problem:
    """The geometry of volumes `M` and `S` (bool) cut to `grid`."""
    relative = relative_voxel_size(voxel_size)
    D = dipole_kernel(shape, relative, b0_dir, like)
    misfit = None
    if error.share > LEAST_SHARE and error.noise > 0:
        radius = spectral_radius(shape, relative, like)
        misfit = error.model_to_noise(radius, model_share * error.share)
    return Problem(
        grid.embed(M), grid.embed(S), D, mask.bool(), error, misfit, relative, grid, shape
    )


def _turned(field: Tensor, turn: float) -> list[Tensor]:
    """The `field` as it is and, where that differs, within half a `turn` (ppm) of zero."""
    if float(field.abs().max()) <= turn / 2:
        return [field]
    return [field, wrap(field * (TWO_PI / turn)).mul_(turn / TWO_PI)]


def _without_spikes(x: Tensor) -> Tensor:
    """The least of the medians of three along the axes: what is a voxel wide is gone."""
    least = x
    for axis in range(3):
        a, c = x.roll(1, axis), x.roll(-1, axis)
        median = torch.maximum(torch.minimum(a, c), torch.minimum(torch.maximum(a, c), x))
        least = torch.minimum(least, median)
    return least


def relative_change(x: Tensor, before: Tensor, region: Tensor) -> float:
    """‖x − before‖/‖x‖ in the `region`; 0 where both vanish."""
    size = float((x * region).norm())
    return float(((x - before) * region).norm()) / size if size > 0 else 0.0
