"""How noisy a measured signal is, estimated from the differences of neighbouring voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Median of |second difference| of white noise of SD 1.
_MEDIAN_SECOND_DIFFERENCE = 0.6745 * math.sqrt(6.0)
#: What the least lower quartile of such medians is for white noise of SD 1.
_QUIETEST = 0.95
#: Power beyond an edge of k-space, relative to that before it, below which it is zero-filled.
_ZERO_FILLED_POWER = 0.03


def noise_level(image: Tensor, mask: Tensor, filled: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """Noise SD of `image` `(X, Y, Z)` inside `mask` from the differences of neighbours.

    Second differences along the voxel axes cancel smooth structure; their median absolute value
    is robust against edges. `filled` is the share of k-space along each axis that was measured
    (see `filled_share`): neighbours of an interpolated image differ less than its noise.
    """
    found = [
        float(second[inside].median()) / scale
        for second, inside, scale in _second_differences(image, mask, filled)
        if bool(inside.any())
    ]
    return min(found) if found else 0.0


def single_echo_noise(unwrapped: Tensor, magnitude: Tensor, mask: Tensor) -> float:
    """Noise SD of a signal of one echo, in units of its `magnitude` `(X, Y, Z)`.

    There are no residuals to estimate it from, and where voxels are large, second differences
    hold more structure than noise. So the smaller of what magnitude and `unwrapped` phase (rad)
    say, and in each the lower quartile of the medians of cubes of eight voxels: the quiet parts.
    Of noise alone, which has no quiet parts, that would be 5 % low; this is put right.
    """
    filled = filled_share(unwrapped, magnitude)
    found = []
    for image, weight in ((magnitude, None), (unwrapped, magnitude)):
        for second, inside, scale in _second_differences(image, mask, filled, weight):
            values, counted = _cubes(second), _cubes(inside)
            counted &= counted.float().mean(1, keepdim=True) > 0.5
            medians = torch.where(counted, values, torch.nan).nanmedian(1).values
            if bool(torch.isfinite(medians).any()):
                found.append(float(medians.nanquantile(0.25)) / scale)
    return min(found) / _QUIETEST if found else noise_level(magnitude, mask, filled)


def filled_share(phase: Tensor, magnitude: Tensor) -> tuple[float, float, float]:
    """Share of k-space along each axis of a signal `(X, Y, Z)` that was measured; 1: all of it.

    Scanners interpolate by zeros around the measured k-space. There the power drops at once,
    where that of an anatomy falls slowly into noise; every third line is looked at.
    """
    signal = torch.polar(magnitude, phase)
    return tuple(_filled(signal, axis) for axis in range(3))  # type: ignore[return-value]


def _filled(signal: Tensor, axis: int) -> float:
    n = signal.shape[axis]
    if n < 32:
        return 1.0
    lines = signal[tuple(slice(None) if a == axis else slice(None, None, 3) for a in range(3))]
    power = torch.fft.fft(lines.movedim(axis, -1)).abs().square().reshape(-1, n).mean(0)
    half = n // 2
    power = power[1:half] + power[1:].flip(0)[: half - 1]
    k = 2 * torch.arange(1, half, device=power.device) / n
    best, share = _ZERO_FILLED_POWER, 1.0
    for step in range(30, 90, 2):
        edge = step / 100
        before, beyond = (
            power[(k > a * edge) & (k < b * edge)].mean() for a, b in ((0.75, 0.95), (1.05, 1.25))
        )
        ratio = float(beyond / before)
        if ratio < best:
            best, share = ratio, edge
    return share


def _second_differences(
    image: Tensor, mask: Tensor, filled: Sequence[float], weight: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """For each axis |second differences| times `weight`, where all three voxels count, and the
    median that noise of SD 1 would have.

    Noise of an axis filled to the share f has the autocorrelation ρ(m) = sinc(f m), and second
    differences of the variance 6 − 8 ρ(1) + 2 ρ(2).
    """
    for axis, n in enumerate(image.shape):
        if n < 3:
            continue
        parts = [image.narrow(axis, k, n - 2) for k in range(3)]
        inside = [mask.narrow(axis, k, n - 2) for k in range(3)]
        second = (parts[0] - 2 * parts[1] + parts[2]).abs_()
        if weight is not None:
            second *= weight.narrow(axis, 1, n - 2)
        one, two = (math.sin(x) / x for x in (math.pi * filled[axis], 2 * math.pi * filled[axis]))
        scale = _MEDIAN_SECOND_DIFFERENCE * math.sqrt((6 - 8 * one + 2 * two) / 6)
        yield second, inside[0] & inside[1] & inside[2], scale


def _cubes(image: Tensor, edge: int = 8) -> Tensor:
    """`image` cut into whole cubes, `(cubes, edge³)`."""
    x, y, z = (n // edge * edge for n in image.shape)
    cut = image[:x, :y, :z].reshape(x // edge, edge, y // edge, edge, z // edge, edge)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, edge**3)
