"""A box of a volume at a network's spacing, and what the network says of it back on the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Window:
    """Where samples of a box lie in a volume's voxels: sample i at `first` + `ratio`·i.

    `shape` counts samples; `start` and `stop` hold the voxels that the box touches, with a margin
    for interpolation. `aligned`: every sample is a voxel.
    """

    first: np.ndarray
    ratio: np.ndarray
    shape: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    aligned: bool

    @classmethod
    def around(
        cls,
        middle: np.ndarray,
        extent: np.ndarray,
        spacing: Sequence[float],
        voxel_size: Sequence[float],
        whole: Sequence[int],
    ) -> Window:
        """Of `extent` (mm) around the voxel `middle`, samples `spacing` mm apart.

        `whole` is the volume's shape. Voxels within 2 % of the spacing count as equal to it.
        """
        step, size = np.asarray(spacing), np.asarray(voxel_size, dtype=float)
        ratio = step / size  # voxels per sample
        same = np.abs(ratio - 1) < 0.02
        ratio = np.where(same, 1.0, ratio)
        shape = np.ceil(extent / step).astype(int)
        first = middle - ratio * (shape - 1) / 2
        first = np.where(same, np.round(first), first)
        low = np.floor(first).astype(int) - 4
        high = np.ceil(first + ratio * (shape - 1)).astype(int) + 5
        start, stop = np.clip(low, 0, np.array(whole) - 1), np.clip(high, 1, whole)
        return cls(first, ratio, shape, start, stop, bool(same.all()))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The voxels that the box touches."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def span(self) -> np.ndarray:
        """How many voxels those are along each axis."""
        return np.asarray(self.stop - self.start)

    def sample(self, volume: np.ndarray) -> np.ndarray:
        """The samples of `volume` `(X, Y, Z)`, smoothed before it is thinned out; 0 outside."""
        part = volume[self.slices]
        ratio = self.ratio
        blur = np.where(ratio > 1.05, 0.35 * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0.0)
        part = ndimage.gaussian_filter(part, blur) if blur.any() else part
        found: np.ndarray = ndimage.affine_transform(
            part,
            ratio,
            self.first - self.start,
            output_shape=tuple(self.shape),
            order=0 if self.aligned else 3,
            mode="constant",
        )
        return found

    def back(self, samples: np.ndarray) -> np.ndarray:
        """`samples` at the voxels of `slices`; 0 beyond the box."""
        found: np.ndarray = ndimage.affine_transform(
            samples,
            1 / self.ratio,
            (self.start - self.first) / self.ratio,
            output_shape=tuple(self.span),
            order=0 if self.aligned else 1,
        )
        return found
