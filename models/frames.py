"""Between the acquisition's grid and the 1 mm grid with B0 along z that the networks know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.errors import DataError

Shape = tuple[int, int, int]
Matrix = tuple[tuple[float, float, float], ...]

#: Voxels that a network was trained for are taken as they are within this relative difference …
VOXEL_TOLERANCE = 0.02
#: … and so is a tilt of B0 below this angle (degrees).
TILT_TOLERANCE = 2.0
#: Interpolation works through this many points at a time.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Frame:
    """Where the voxels of the network's grid lie in the acquisition's grid.

    `matrix` and `offset` map voxel indices of the network's grid `inner` onto indices of the
    acquisition's grid `outer`. With `identity` both grids are the same and nothing is
    interpolated.
    """

    outer: Shape
    inner: Shape
    matrix: Matrix
    offset: tuple[float, float, float]
    identity: bool = False

    def enter(self, x: Tensor) -> Tensor:
        """A volume of the acquisition `(X, Y, Z)` in the network's grid, cubic interpolation."""
        if self.identity:
            return x
        matrix = torch.tensor(self.matrix, dtype=torch.float64)
        return _resample(x, self.inner, matrix, torch.tensor(self.offset, dtype=torch.float64))

    def leave(self, y: Tensor) -> Tensor:
        """A volume of the network's grid back in the acquisition's grid."""
        if self.identity:
            return y
        inverse = torch.linalg.inv(torch.tensor(self.matrix, dtype=torch.float64))
        offset = -inverse @ torch.tensor(self.offset, dtype=torch.float64)
        return _resample(y, self.outer, inverse, offset)


def network_frame(
    shape: Sequence[int],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    target: float = 1.0,
) -> Frame:
    """Frame with voxels of `target` mm whose third axis is B0, around a volume of `shape`.

    The rotation is the smallest one that brings B0 (or its opposite, which makes the same
    dipole) onto z. Raises DataError for voxels above 4 mm, where
    resampling would invent what was not measured.
    """
    if max(voxel_size) > 4 * target:
        raise DataError(
            f"voxels of {max(voxel_size):.3g} mm are too large for a network trained at "
            f"{target:g} mm; choose another inversion method"
        )
    outer: Shape = tuple(shape)  # type: ignore[assignment]
    rotation = _onto_z(b0_dir)
    tilt = math.degrees(math.acos(max(-1.0, min(1.0, float(rotation[2, 2])))))
    fits = all(abs(v / target - 1) <= VOXEL_TOLERANCE for v in voxel_size)
    if fits and tilt <= TILT_TOLERANCE:
        eye: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        return Frame(outer, outer, eye, (0.0, 0.0, 0.0), identity=True)
    size = torch.tensor([float(v) for v in voxel_size], dtype=torch.float64)
    extent = rotation.abs() @ (size * torch.tensor(outer, dtype=torch.float64))
    inner: Shape = tuple(max(1, math.ceil(float(e) / target - 1e-6)) for e in extent)  # type: ignore[assignment]
    matrix = (target * rotation.T) / size[:, None]
    middle_in, middle_out = (
        (torch.tensor(n, dtype=torch.float64) - 1) / 2 for n in (inner, outer)
    )
    offset = middle_out - matrix @ middle_in
    return Frame(outer, inner, _rows(matrix), tuple(offset.tolist()))


def _rows(matrix: Tensor) -> Matrix:
    return tuple(tuple(row) for row in matrix.tolist())


def _onto_z(direction: Sequence[float]) -> Tensor:
    """Rotation taking `direction` (up to sign) onto z by the shortest way."""
    b = torch.tensor([float(v) for v in direction], dtype=torch.float64)
    b = b / b.norm()
    if b[2] < 0:
        b = -b
    x, y, c = float(b[0]), float(b[1]), float(b[2])
    cross = torch.tensor([[0, 0, -x], [0, 0, -y], [x, y, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + cross + cross @ cross / (1 + c)


def _resample(x: Tensor, shape: Shape, matrix: Tensor, offset: Tensor) -> Tensor:
    """Catmull-Rom interpolation of `x` at `matrix`·i + `offset` for i in `shape`; 0 outside."""
    out = x.new_zeros(math.prod(shape))
    flat = x.reshape(-1)
    for first in range(0, out.numel(), CHUNK):
        index = torch.arange(first, min(first + CHUNK, out.numel()), device=x.device)
        i = torch.div(index, shape[1] * shape[2], rounding_mode="floor")
        j = torch.div(index, shape[2], rounding_mode="floor") % shape[1]
        grid = torch.stack([i, j, index % shape[2]]).double()
        points = matrix.to(x.device) @ grid + offset.to(x.device)[:, None]
        out[first : first + index.numel()] = _interpolate(flat, x.shape, points)
    return out.view(shape)


def _interpolate(flat: Tensor, shape: Sequence[int], points: Tensor) -> Tensor:
    """Sum over the 4³ neighbours of `points` `(3, N)`, those outside the volume counting zero."""
    base = torch.floor(points + 1e-9)
    fraction = (points - base).clamp(min=0).to(flat.dtype)
    base = base.long()
    taps = [_taps(base[a], fraction[a], n) for a, n in enumerate(shape)]
    total = flat.new_zeros(points.shape[1])
    for ix, wx in taps[0]:
        for iy, wy in taps[1]:
            plane, weight = (ix * shape[1] + iy) * shape[2], wx * wy
            for iz, wz in taps[2]:
                total += weight * wz * flat[plane + iz]
    return total


def _taps(base: Tensor, t: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Index (clamped) and weight (zero outside) of the four neighbours along one axis."""
    weights = (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    taps = []
    for shift, weight in enumerate(weights, start=-1):
        index = base + shift
        taps.append((index.clamp(0, n - 1), weight * ((index >= 0) & (index < n))))
    return taps
