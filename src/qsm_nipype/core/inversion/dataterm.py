"""The data term in the complex signal: W·e^{iDχ} against W·e^{iφ}, on a working grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_noise import field_noise, noise_weights
from qsm_nipype.core.fourier import WorkingGrid, working_grid
from qsm_nipype.core.geometry import relative_voxel_size
from qsm_nipype.core.phase import TWO_PI, wrap

#: Empty voxels added to the head's bounding box along each axis.
PADDING = 16
#: Where the acquisition is not told: 3 T and an effective echo time of 20 ms. They only say how
#: many radians a ppm is, and so where the data term leaves its linear range.
B0 = 3.0
ECHO_TIME = 0.02
#: Largest phase (rad) of a field that is more than a voxel wide. Beyond π, e^{iφ} has turns, and
#: beyond π/2 a misfit pulls less the larger it is: from χ = 0 a strong source stays too weak.
STRONGEST = 1.0


@dataclass(frozen=True)
class PhaseData:
    """A local field as phase, with its weights, on the working grid of its mask.

    `phase` (rad) and `weights` (at most 1) are lists over the voxels `index` (flat) of the mask
    `inside`; `voxel_size` is relative to the geometric mean of the voxel's edges, so that
    gradients are per voxel and a scaling of all lengths changes nothing. `radians` is rad per
    ppm, `noise` the field's SD in ppm.
    """

    grid: WorkingGrid
    inside: Tensor
    index: Tensor
    phase: Tensor
    weights: Tensor
    kernel: Tensor
    voxel_size: tuple[float, float, float]
    radians: float
    noise: float

    @property
    def spread(self) -> float:
        """Typical size of the phase in the mask (rad), wraps left aside; 0 where there is none."""
        size = wrap(self.phase).abs()
        middle = 1.5 * float(size.median())
        return middle if middle > 0 else float(size.mean())

    @property
    def size(self) -> float:
        """`spread` in ppm."""
        return self.spread / self.radians

    def faces(self) -> Tensor:
        """Where a voxel and its next along each axis are both inside: (3, grid), bool.

        χ ends at the mask's rim, so that its jump there is no roughness.
        """
        return torch.stack([self.inside & self.inside.roll(-1, axis) for axis in range(3)])

    def gather(self, x: Tensor) -> Tensor:
        """The mask's voxels of a working-grid tensor."""
        return x.view(-1)[self.index]

    def scatter_(self, x: Tensor, values: Tensor) -> Tensor:
        """Write `values` into the mask's voxels of `x`."""
        x.view(-1)[self.index] = values
        return x

    def to_ppm(self, x: Tensor) -> Tensor:
        """`x` (rad) of the working grid as ppm in the volume, zero outside the mask."""
        return self.grid.restore((x * self.inside).div_(self.radians))


def phase_data(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    noise: Tensor | None,
    magnitude: Tensor | None,
    b0: float,
    echo_time: float,
) -> PhaseData:
    """Prepare a `field` `(X, Y, Z)` in ppm: φ = 2π·γ·B0·TE·field, weights from the noise.

    Where the field of a strong source would make more than `STRONGEST` of it, φ is made smaller.

    Weights are those of `noise_weights`; without a noise map, noise is taken as ∝ 1/`magnitude`,
    and without either all weights are one. Voxels with a non-finite field get none. Raises
    ValueError for an empty mask.
    """
    valid = mask.bool()
    known = torch.where(valid & torch.isfinite(field), field, field.new_zeros(()))
    sigma = field_noise(known, valid, voxel_size, b0_dir, noise=noise)
    if noise is None and magnitude is not None and bool((magnitude[valid] > 0).any()):
        noise = torch.where(magnitude > 0, 1 / magnitude.clamp_min(1e-30), magnitude.new_zeros(()))
    weights = noise_weights(noise, valid).to(field) * torch.isfinite(field)
    grid = working_grid(valid, padding=PADDING)
    inside = grid.embed(valid)
    index = inside.view(-1).nonzero().squeeze(1)
    radians = TWO_PI * GYROMAGNETIC_RATIO * b0 * echo_time
    if (peak := float(_without_spikes(known.abs()).max())) * radians > STRONGEST:
        radians = STRONGEST / peak
    relative = relative_voxel_size(voxel_size)
    return PhaseData(
        grid,
        inside,
        index,
        grid.embed(known).view(-1)[index] * radians,
        grid.embed(weights).view(-1)[index],
        dipole_kernel(grid.shape, relative, b0_dir, field),
        relative,
        radians,
        sigma,
    )


def _without_spikes(x: Tensor) -> Tensor:
    """The median of three along each axis: single voxels that stand out are gone."""
    for axis in range(3):
        a, c = x.roll(1, axis), x.roll(-1, axis)
        x = torch.maximum(torch.minimum(a, c), torch.minimum(torch.maximum(a, c), x))
    return x


def phase_prox(v: Tensor, phase: Tensor, stiffness: Tensor, *, steps: int = 3) -> Tensor:
    """argmin over z of k(1 − cos(z − φ)) + ½(z − v)², by Newton steps from the linear solution.

    `stiffness` k = W²/ρ. The turn of φ nearest to `v` is taken, so that wraps in it don't matter.
    """
    e = wrap(v - phase)
    u = e / (1 + stiffness)
    for _ in range(steps):
        slope = (1 + stiffness * torch.cos(u)).clamp_min_(0.5)
        u = u - (u - e + stiffness * torch.sin(u)) / slope
    return v - e + u
