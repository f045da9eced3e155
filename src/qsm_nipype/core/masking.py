"""Masks from magnitude and phase quality, trimming by reliability, and edited masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qsm_nipype.core import morphology
from qsm_nipype.core.brain_surface import brain_surface
from qsm_nipype.core.fourier import irfft, rfft, sphere_kernel, working_grid
from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.mask_language import parse_operations
from qsm_nipype.core.morphology import closing, fill_holes, largest_component

_LARGEST_BRAIN = 1.9e6  # mm³
_SMALL_BRAIN = 3e4  # mm³, below which lengths of trimming are too coarse


def signal_threshold(image: Tensor) -> float:
    """Intensity between noise and signal of a whole-head image `(X, Y, Z)`.

    The larger of five times the noise (mean of the darkest 15 %) and a fifth of the signal (mean
    between the percentiles 80 and 99), as in ROMEO's robust mask [Dymerska2021]_; an image whose
    darkest voxels are already tissue is judged by its signal alone.
    """
    values = image.flatten()
    values = values[torch.isfinite(values)]
    values = values[:: max(1, values.numel() // 1_000_000)].sort().values
    n = values.numel()
    signal = float(values[int(0.8 * n) : max(int(0.99 * n), int(0.8 * n) + 1)].mean())
    noise = float(values[: max(1, int(0.15 * n))].mean())
    return signal / 5 if noise > signal / 10 else max(5 * noise, signal / 5)


def magnitude_mask(
    magnitude: Tensor, voxel_size: Sequence[float], *, threshold: float | None = None
) -> Tensor:
    """Where there is signal: the whole head. `magnitude` (X, Y, Z) or (X, Y, Z, E) → bool.

    `threshold` in the magnitude's unit, None = `signal_threshold`. Only the largest component is
    kept, gaps up to 4 mm are closed, cavities filled.
    """
    image = combined_magnitude(magnitude)
    limit = signal_threshold(image) if threshold is None else threshold
    return fill_holes(closing(largest_component(image > limit), voxel_size, 2.0))


def brain_mask(
    magnitude: Tensor, voxel_size: Sequence[float], *, fraction: float | None = None
) -> Tensor:
    """Brain without skull and scalp, from the magnitude alone → bool (X, Y, Z).

    `magnitude` is (X, Y, Z) or (X, Y, Z, E). A deformable surface (`brain_surface`) is grown to
    the dark skull; inside it, voxels with signal are kept, gaps up to 6 mm closed and cavities
    filled. `fraction` is the surface's: larger values give a tighter brain. None takes the first
    of 0.6, 0.65, 0.7, 0.75 with which the surface encloses no more than 1.9 litres, which
    no healthy head does: a surface that leaked into the neck or the face does.
    """
    image = combined_magnitude(magnitude)
    voxel = math.prod(float(v) for v in voxel_size)
    for choice in (0.6, 0.65, 0.7, 0.75) if fraction is None else (fraction,):
        inside = brain_surface(image, voxel_size, fraction=choice)
        if float(inside.sum()) * voxel <= _LARGEST_BRAIN:
            break
    signal = inside & (image > signal_threshold(image))
    return largest_component(fill_holes(closing(signal, voxel_size, 3.0) & inside))


def quality_mask(
    magnitude: Tensor,
    voxel_size: Sequence[float],
    *,
    quality: Tensor,
    fraction: float | None = None,
    threshold: float = 0.3,
) -> Tensor:
    """Brain AND trustworthy phase, as the consensus asks [Bilgic2024]_ → bool (X, Y, Z).

    `quality` is ROMEO's voxel quality in [0, 1]; patches below `threshold` are left out of
    `brain_mask` as `trim_mask` does it.
    """
    brain = brain_mask(magnitude, voxel_size, fraction=fraction)
    return trim_mask(brain, voxel_size, residual=1 - quality, limit=1 - threshold)


def trim_mask(
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    residual: Tensor,
    limit: float = 0.3,
    smallest_hole: float = 3.0,
) -> Tensor:
    """`mask` without the voxels whose field cannot be trusted: `residual` above `limit`.

    A single bad voxel in good surroundings stays: only patches into which a ball of
    `smallest_hole`/2 mm fits, or that touch the outside, are cut out. The largest component is
    kept.
    """
    good = mask & (residual <= limit)
    kept = closing(good, voxel_size, smallest_hole / 2) & mask
    return largest_component(kept)


def reliable_mask(
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    reliability: Tensor,
    field: Tensor,
    threshold: float = 0.2,
    jump: float = 0.3,
    erosion: float = 2.0,
) -> Tensor:
    """The part of `mask` in which the total field is fit for background removal → bool.

    Background removal spreads a wrong field at the surface over the whole brain, so the surface
    must be right: left out are patches whose `reliability` (0 to 1) is below `threshold` (0.2 is
    0.42 rad of residual or noise; the consensus' 0.3 rad would take bleeds at the surface), voxels
    at the surface whose `field` (ppm) is more than `jump` off its mean within 5 mm (fat of orbit
    and skull, shifted by 3.4 ppm), and the outer `erosion` mm, one layer of voxels at least (0:
    none). Strong sources inside the brain stay in, such as a haemorrhage. The largest component
    is kept.
    """
    kept = trim_mask(mask, voxel_size, residual=1 - reliability, limit=1 - threshold)
    off = (field - _ball_mean(field, mask, voxel_size, 5.0)).abs() > jump
    kept &= ~morphology.dilate(off & mask, voxel_size, 1.5)
    kept = fill_holes(kept) & mask
    kept &= morphology.peel(mask, voxel_size, erosion)
    return fill_holes(largest_component(morphology.opening(kept, voxel_size, 3.0)))


def without_dropout(
    mask: Tensor,
    voxel_size: Sequence[float],
    *,
    reliability: Tensor,
    quality: Tensor,
    threshold: float = 0.7,
    share: float = 0.6,
) -> Tensor:
    """`mask` without the dropout and the tissue out of phase at its surface → bool (X, Y, Z).

    Signal lost above sinus and ear canal leaves no field to measure, fat in the orbits and the
    skull has another one than its place: a hundred such voxels make half of the error over the
    whole brain. Left out are voxels at the surface whose field is not `reliability` (0 to 1)
    enough, or whose `quality` (ROMEO's, 0 to 1) is less than a `share` of its median in the mask,
    so that noise alone leaves nothing out; then what is thinner than 3 mm or, where voxels are
    larger than 1.5 mm, thinner than three of them. Bad voxels that the outside cannot reach
    through others, as in a haemorrhage, stay.
    """
    least = share * quality[mask].median() if mask.any() else 0.0
    kept = fill_holes(mask & (reliability >= threshold) & (quality >= least)) & mask
    radius = max(1.5, min(float(v) for v in voxel_size))
    return largest_component(morphology.opening(kept, voxel_size, radius))


def small_cause(mask: Tensor, voxel_size: Sequence[float]) -> str:
    """Why trimming left nothing of a `mask` (bool) that is too small for its lengths; else empty.

    The start of a sentence that other causes follow.
    """
    volume = float(mask.sum()) * math.prod(float(v) for v in voxel_size)
    if volume >= _SMALL_BRAIN:
        return ""
    return (
        f"the mask has {volume / 1000:.2g} cm³ only, and the lengths of trimming (in mm) are "
        "those of a human head: of a small head enlarge the voxels of all images; else "
    )


def _ball_mean(x: Tensor, mask: Tensor, voxel_size: Sequence[float], radius: float) -> Tensor:
    """Mean of `x` over the part of a ball of `radius` mm that lies in `mask`."""
    if not mask.any():
        return torch.zeros_like(x)
    grid = working_grid(mask, padding=[round(2 * radius / float(v)) + 2 for v in voxel_size])
    weight = grid.embed(mask.to(x.dtype))
    kernel = sphere_kernel(grid.shape, voxel_size, radius, x)
    total = irfft(rfft(grid.embed(torch.where(mask, x, 0.0))) * kernel, grid.shape)
    count = irfft(rfft(weight) * kernel, grid.shape)
    return grid.restore(total / count.clamp_min(1e-6))


_RADIAL: dict[str, Callable[..., Tensor]] = {
    "erode": morphology.peel,
    "dilate": morphology.grow,
    "open": morphology.opening,
    "close": morphology.closing,
}
_PLAIN: dict[str, Callable[..., Tensor]] = {
    "fill": morphology.fill_holes,
    "largest": morphology.largest_component,
}


def apply_operations(mask: Tensor, voxel_size: Sequence[float], operations: str) -> Tensor:
    """`mask` after the `operations` of the mask language, in their order. Raises UsageError."""
    for operation in parse_operations(operations):
        if operation.name in _RADIAL:
            mask = _RADIAL[operation.name](mask, voxel_size, operation.radius)
        else:
            mask = _PLAIN[operation.name](mask)
    return mask
