"""Phase offsets φ0(x) of gradient echoes: MCPC-3D-S, bipolar readouts, uncombined coils.

The model is φ_e(x) = φ0(x) + 2π f(x) t_e, with φ0 smooth in space (receive coil, reconstruction).
A single echo cannot separate φ0 from the field: there the offset is assumed to be zero up to whole
turns, and whatever smooth rest remains is left to background field removal, which takes out
every part without sources inside the brain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.magnitude import combined_magnitude
from qsm_nipype.core.phase import TWO_PI, wrap
from qsm_nipype.core.unwrapping import (
    echo_first,
    echo_last,
    follow_field,
    romeo,
    signal_mask,
)

#: So far (mm) below the outline of a head there is no scalp, marrow or other fat.
CORE_DEPTH = 18.0
#: Bend of the phase over echoes (rad) from which on an alternating readout is believed.
ALTERNATION_LIMIT = 0.1


@dataclass(frozen=True)
class Offsets:
    """`phase` `(X, Y, Z, E)` with the offset removed (wrapped, rad) and what was removed.

    `offset` `(X, Y, Z)` is φ0, `alternating` `(X, Y, Z)` the odd/even part of a bipolar readout
    (added to odd, subtracted from even echoes; None for monopolar data). `notes` say what was
    decided, `warnings` what a reader must look at.
    """

    phase: Tensor
    offset: Tensor
    alternating: Tensor | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def mcpc3ds(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor | None = None,
    bipolar: bool | None = None,
    smoothing: float = 5.0,
) -> Offsets:
    """Remove the smooth phase offset by MCPC-3D-S [Eckstein2018]_.

    The phase difference between echoes (summed over neighbouring pairs when they are equally
    spaced) is unwrapped and extrapolated to t = 0; what the first echo has beyond that is the
    offset. It is smoothed with magnitude weights by a Gaussian of `smoothing` mm, then refined
    from the intercept of a straight line through all echoes. `phase`, `magnitude`
    `(X, Y, Z, E)`; `echo_times` in s. `bipolar` says whether the readout direction alternates
    between echoes; None leaves that to the data (`measure_alternation`). Raises ValueError
    for bipolar data of fewer than three echoes.
    """
    if phase.shape[3] == 1:
        return Offsets(wrap(phase), torch.zeros_like(phase[..., 0]))
    keep = signal_mask(magnitude) if mask is None else mask.bool()
    alternating, notes, warnings = None, tuple[str, ...](), tuple[str, ...]()
    if bipolar is None:
        size, opposite = measure_alternation(
            phase, magnitude, echo_times, voxel_size, mask=keep, smoothing=smoothing
        )
        bipolar, notes, warnings = _judge_readout(size, opposite)
    if bipolar:
        alternating = bipolar_phase(
            phase, magnitude, echo_times, voxel_size, mask=keep, smoothing=smoothing
        )
        signs = phase.new_tensor([1.0 if e % 2 == 0 else -1.0 for e in range(phase.shape[3])])
        phase = wrap(phase - alternating.unsqueeze(-1) * signs)
    difference, spacing = _phase_difference(phase, magnitude, echo_times, keep)

    # φ0 = φ1 − Δφ t1/Δt
    raw = phase[..., 0] - difference * (float(echo_times[0]) / spacing)
    weight = magnitude[..., 0] * magnitude[..., 1] * keep
    water = continues_core(raw, weight, voxel_size, smoothing)
    offset = smooth_phase(raw, weight * water, voxel_size, smoothing)
    corrected = wrap(phase - offset.unsqueeze(-1))
    if phase.shape[3] > 2:
        field = difference / spacing
        intercept, weight = _intercept(corrected, magnitude, echo_times, field, keep)
        offset = offset + smooth_phase(intercept, weight * water, voxel_size, smoothing)
        corrected = wrap(phase - offset.unsqueeze(-1))
    return Offsets(corrected, wrap(offset), alternating, notes, warnings)


def measure_alternation(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor,
    smoothing: float = 5.0,
) -> tuple[float, bool | None]:
    """How far (rad) the phase bends from echo to echo, and whether it does so to and fro.

    d1 = φ1 + φ3 − 2φ2 and d2 = φ2 + φ4 − 2φ3 vanish where phase is linear in time; ±β of
    alternating readout gradients makes them 4β and −4β. Both are smoothed over `smoothing` mm
    as phasors, so that wraps do not matter. Returned are the median of |d1| and whether that of
    |d1 + d2| is less than 0.4 of it, which is a correlation below −0.92 (0 to 0.1 and −0.6 for
    noise alone). `phase`, `magnitude` `(X, Y, Z, E)`. None without four, 0 without three echoes
    at equal steps from the first on.
    """
    steps = np.diff(np.asarray(echo_times, float))
    uneven = np.flatnonzero(np.abs(steps - steps[:1]) >= 0.01 * steps[:1])
    even = 1 + (int(uneven[0]) if uneven.size else steps.size)
    bends = []
    where = mask
    for e in range(min(even, 4) - 2):
        weight = magnitude[..., e : e + 3].prod(-1).pow(1 / 3) * mask
        raw = phase[..., e] + phase[..., e + 2] - 2 * phase[..., e + 1]
        bends.append(smooth_phase(raw, weight, voxel_size, smoothing))
        where = where & (weight > 0.5 * weight[mask].mean())
    if not bends or not where.any():
        return 0.0, None
    size = float(bends[0][where].abs().median())
    if len(bends) < 2:
        return size, None
    return size, float(wrap(bends[0] + bends[1])[where].abs().median()) < 0.4 * size


def _judge_readout(
    size: float, opposite: bool | None
) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """Whether to take a readout for bipolar, and the notes and warnings that go with it."""
    option = "--set offset.mcpc3ds.bipolar"
    if opposite and size > ALTERNATION_LIMIT:
        text = (
            f"the readout alternates between echoes (φ1 + φ3 − 2φ2 is {size:.2f} rad in the "
            f"median, φ2 + φ4 − 2φ3 its opposite): corrected; {option}=false leaves it"
        )
        return True, (text,), ()
    if opposite is None and size > 2 * ALTERNATION_LIMIT:
        text = (
            f"the phase is not linear over the first three echoes (φ1 + φ3 − 2φ2 is {size:.2f} "
            f"rad in the median): if the readout alternates between echoes, {option}=true "
            "corrects it"
        )
        return False, (), (text,)
    return False, (), ()


def bipolar_phase(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor,
    smoothing: float = 5.0,
) -> Tensor:
    """Smooth phase β `(X, Y, Z)` that a bipolar readout adds to odd and takes from even echoes.

    From three echoes, φ1 + (φ3 − φ1) s − φ2 = 2β with s = (t2 − t1)/(t3 − t1). For equal spacing
    its double φ1 + φ3 − 2 φ2 = 4β needs no unwrapping in space. The constant part of β is taken
    as the one nearest to zero. Raises ValueError for fewer than three echoes.
    """
    if phase.shape[3] < 3:
        raise ValueError("a bipolar readout is corrected from at least three echoes")
    t1, t2, t3 = (float(t) for t in echo_times[:3])
    weight = magnitude[..., 0] * magnitude[..., 1] * mask
    if abs((t2 - t1) - (t3 - t2)) < 0.01 * (t2 - t1):
        multiple = 4.0
        raw = phase[..., 0] + phase[..., 2] - 2 * phase[..., 1]
    else:
        multiple = 2.0
        lapse = wrap(phase[..., 2] - phase[..., 0]).unsqueeze(-1)
        pair = (magnitude[..., 2] * magnitude[..., 0]).unsqueeze(-1)
        long = romeo(lapse, [t3 - t1], magnitude=pair, mask=mask).phase[..., 0]
        raw = phase[..., 0] + long * (t2 - t1) / (t3 - t1) - phase[..., 1]
    smooth = smooth_phase(raw, weight, voxel_size, smoothing).unsqueeze(-1)
    whole, signal = torch.ones_like(mask), weight.sqrt().unsqueeze(-1)
    smooth = romeo(smooth, [t2 - t1], magnitude=signal, mask=whole).phase[..., 0]
    level = (smooth * weight).sum() / weight.sum().clamp_min(1e-30)
    return (smooth - TWO_PI * torch.round(level / TWO_PI)) / multiple


def combine_coils(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    *,
    mask: Tensor | None = None,
    smoothing: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """Combine uncombined coils `(X, Y, Z, E, C)` → phase and magnitude `(X, Y, Z, E)`.

    The phase difference of the first two echoes, summed over coils, does not depend on the
    coils; extrapolated to t = 0 it yields each coil's own offset, which is smoothed and removed
    before the coils are added with their magnitudes as weights [Eckstein2018]_.
    """
    combined = combined_magnitude(magnitude)
    keep = signal_mask(combined) if mask is None else mask.bool()
    real, imaginary = torch.zeros(2, *phase.shape[:4]).to(magnitude).unbind(0)
    if phase.shape[3] > 1:
        step = phase[..., 1, :] - phase[..., 0, :]
        pair = magnitude[..., 1, :] * magnitude[..., 0, :]
        step = torch.atan2((pair * step.sin()).sum(-1), (pair * step.cos()).sum(-1))
        spacing = float(echo_times[1]) - float(echo_times[0])
        signal = pair.sum(-1).sqrt().unsqueeze(-1)
        step = romeo(step.unsqueeze(-1), [spacing], magnitude=signal, mask=keep).phase[..., 0]
        evolution = step * (float(echo_times[0]) / spacing)
    else:
        # one echo: the coil with the most signal carries the common phase
        lead = int(magnitude.square().sum((0, 1, 2, 3)).argmax())
        evolution = phase[..., 0, lead]
    for coil in range(phase.shape[4]):
        weight = magnitude[..., 0, coil].square() * keep
        raw = phase[..., 0, coil] - evolution
        offset = smooth_phase(raw, weight, voxel_size, smoothing).unsqueeze(-1)
        turned = phase[..., coil] - offset
        strength = magnitude[..., coil].square()
        real = real + strength * turned.cos()
        imaginary = imaginary + strength * turned.sin()
    return torch.atan2(imaginary, real), combined


def smooth_phase(
    phase: Tensor, weight: Tensor, voxel_size: Sequence[float], sigma: float
) -> Tensor:
    """Smooth a (wrapped) phase map `(X, Y, Z)` with `weight` by a Gaussian of `sigma` mm.

    Works on complex numbers, so that wraps do not matter, and on blocks of about σ/2, so that
    its time does not grow with σ. What the Gaussian leaves behind is smoothed and added four
    times, without blocks off by over 1 rad: this takes the bias at borders and of curvature away,
    and outliers with it.
    """
    blocks, edges = _blocks(voxel_size, sigma)
    small = _block_phasor(phase, weight, blocks)
    smooth = _smooth_phasor(small, [sigma / edge for edge in edges])
    return _upsample(smooth, blocks, phase.shape).angle()


def _blocks(voxel_size: Sequence[float], sigma: float) -> tuple[list[int], list[float]]:
    """Voxels and mm along the edges of a block of about σ/2.

    Odd and padded alike on both sides, so that flipping the volume flips the result.
    """
    counts = [2 * round((0.5 * sigma / float(step) - 1) / 2) + 1 for step in voxel_size]
    counts = [max(1, n) for n in counts]
    return counts, [n * float(step) for n, step in zip(counts, voxel_size, strict=True)]


def _block_phasor(phase: Tensor, weight: Tensor, blocks: Sequence[int]) -> Tensor:
    weight = weight / weight.amax().clamp_min(1e-30)
    parts = block_mean(torch.stack([weight * phase.cos(), weight * phase.sin()]), blocks)
    return torch.complex(parts[0], parts[1])


def _smooth_phasor(z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Unit phasor of the smoothed `z`, what is left behind smoothed and added four times."""
    estimate = _gauss(z, sigmas)
    estimate = estimate / estimate.abs().clamp_min(1e-20)
    for _ in range(4):
        rest = z * estimate.conj()
        rest = rest * (rest.real > 0.54 * rest.abs())  # cos(1 rad)
        correction = _gauss(rest, sigmas)
        strength = correction.abs()
        turn = torch.where(strength > 1e-12, correction / strength.clamp_min(1e-20), 1.0)
        estimate = estimate * turn
    return torch.where(estimate.abs() > 0.5, estimate, torch.ones_like(estimate))


def continues_core(
    phase: Tensor, weight: Tensor, voxel_size: Sequence[float], sigma: float
) -> Tensor:
    """1 where `phase` `(X, Y, Z)` (rad) is within 0.55 of what the object's core leads to, else 0.

    A phase extrapolated to t = 0 is wrong in fat, which is shifted by 3.4 ppm, hence throughout
    scalp and marrow. From the core, CORE_DEPTH below the surface, it is continued outwards: a
    polynomial of second order is fitted there, and what that leaves is smoothed by Gaussians of
    6 to 2 times `sigma` mm; each lets in the blocks that are near it. Where that loses 40 % of
    the core itself, the phase is too steep to be followed so, and everything stays.
    """
    blocks, edges = _blocks(voxel_size, sigma)
    z = _block_phasor(phase, weight, blocks)
    z = z / z.abs().clamp_min(0.05)  # one vote for each block with signal: fat is bright
    core = _core(z.abs() > 0.5, edges)
    course = _quadratic(z, core)
    z = z * course.conj()
    inside, smooth = core, z
    for multiple in (6, 4, 3, 2):  # a block may be off by 0.38 rad, a voxel by 0.55
        smooth = _smooth_phasor(z * inside, [multiple * sigma / edge for edge in edges])
        inside = (z * smooth.conj()).real > 0.93 * z.abs()
    if (inside & core).sum() < 0.6 * core.sum():
        return torch.ones_like(weight)
    wide = _upsample(smooth * course, blocks, phase.shape)
    near = phase.cos() * wide.real + phase.sin() * wide.imag
    return (near > 0.85 * wide.abs()).to(weight)


def _quadratic(z: Tensor, where: Tensor) -> Tensor:
    """Phasor of the polynomial of second order that follows the phase of `z` in `where`."""
    axes = [torch.linspace(-1, 1, n, device=z.device, dtype=z.real.dtype) for n in z.shape]
    x, y, w = torch.meshgrid(*axes, indexing="ij")
    steps = []
    for axis, n in enumerate(z.shape):
        both = where.narrow(axis, 1, n - 1) & where.narrow(axis, 0, n - 1)
        turn = z.narrow(axis, 1, n - 1) * z.narrow(axis, 0, n - 1).conj()
        steps.append((turn * both).sum().angle() * (n - 1) / 2)
    slope = steps[0] * x + steps[1] * y + steps[2] * w
    found = torch.polar(torch.ones_like(slope), slope)
    terms = torch.stack([torch.ones_like(x), x, y, w, x * y, y * w, x * w, x**2, y**2, w**2])
    at = terms[:, where].double()
    normal = at @ at.T + 1e-6 * torch.eye(len(at), dtype=at.dtype, device=at.device)
    for _ in range(5):
        level = (z * found.conj() * where).sum()
        rest = (z * found.conj() * level.conj())[where].angle().double()
        fit = torch.linalg.solve(normal, at @ (rest * (rest.abs() < 1.5)))
        course = (fit.to(terms.dtype)[:, None, None, None] * terms).sum(0) + level.angle()
        found = found * torch.polar(torch.ones_like(course), course)
    return found


def _core(signal: Tensor, edges: Sequence[float]) -> Tensor:
    """Blocks of `signal` (bool) deep below the object's surface; the volume's border is none."""
    filled = ndimage.binary_fill_holes(signal.cpu().numpy())
    depth = ndimage.distance_transform_edt(filled, sampling=edges)
    deep = depth > min(CORE_DEPTH, 0.5 * float(depth.max()))
    return torch.from_numpy(deep).to(signal.device) & signal


def _phase_difference(
    phase: Tensor, magnitude: Tensor, echo_times: Sequence[float], keep: Tensor
) -> tuple[Tensor, float]:
    """Unwrapped phase difference (rad) of neighbouring echoes, and their spacing in s."""
    times = [float(t) for t in echo_times]
    spacing = times[1] - times[0]
    pairs = [
        e for e in range(len(times) - 1) if abs(times[e + 1] - times[e] - spacing) < 0.01 * spacing
    ]
    real, imaginary = torch.zeros_like(phase[..., 0]), torch.zeros_like(phase[..., 0])
    for e in pairs:
        step = phase[..., e + 1] - phase[..., e]
        strength = magnitude[..., e + 1] * magnitude[..., e]
        real += strength * step.cos()
        imaginary += strength * step.sin()
    signal = torch.hypot(real, imaginary).sqrt().unsqueeze(-1)
    wrapped = torch.atan2(imaginary, real).unsqueeze(-1)
    return romeo(wrapped, [spacing], magnitude=signal, mask=keep).phase[..., 0], spacing


def _intercept(
    phase: Tensor, magnitude: Tensor, echo_times: Sequence[float], field: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Intercept (rad) of a weighted line through all echoes, and its inverse variance."""
    times = np.asarray(echo_times, np.float32)
    echoes, weights = echo_first(phase), echo_first(magnitude)
    inside = keep.cpu().numpy().reshape(-1)
    expected = field.cpu().numpy().reshape(-1) * times[0]
    first = echoes[0] + np.float32(TWO_PI) * np.rint((expected - echoes[0]) / np.float32(TWO_PI))
    unwrapped = follow_field(echoes, weights, times, 0, first, inside)
    phi = echo_last(unwrapped, phase.shape[:3]).to(phase)
    t = phase.new_tensor(times)
    w = magnitude.square()
    w0, w1, w2 = w.sum(-1), w @ t, w @ t**2
    y0, y1 = (w * phi).sum(-1), (w * phi) @ t
    determinant = (w0 * w2 - w1**2).clamp_min(0)
    intercept = (y0 * w2 - y1 * w1) / determinant.clamp_min(1e-30)
    weight = determinant / w2.clamp_min(1e-30) * keep
    good = torch.isfinite(intercept) & (weight > 1e-6 * weight.amax())
    return torch.where(good, intercept, 0.0), torch.where(good, weight, 0.0)


def block_mean(x: Tensor, blocks: Sequence[int]) -> Tensor:
    """Mean over blocks of voxels of `(C, X, Y, Z)`, filled up with zeros around."""
    (ax, bx), (ay, by), (az, bz) = (
        _margins(n, b) for n, b in zip(x.shape[1:], blocks, strict=True)
    )
    return functional.avg_pool3d(functional.pad(x, (az, bz, ay, by, ax, bx)), tuple(blocks))


def _margins(n: int, block: int) -> tuple[int, int]:
    """Voxels to add before and after `n` for whole blocks; equal for odd blocks."""
    missing = (-n) % block
    if missing % 2 and block % 2:
        missing += block
    return missing // 2, missing - missing // 2


def _gauss(z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Separable Gaussian of a complex volume, zeros beyond the border."""
    x = torch.stack([z.real, z.imag])
    for axis, sigma in enumerate(sigmas, start=1):
        at = torch.arange(x.shape[axis], device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
        kernel = kernel / (sigma * math.sqrt(2 * math.pi))
        x = (x.movedim(axis, -1) @ kernel).movedim(-1, axis)
    return torch.complex(x[0], x[1])


def _upsample(z: Tensor, blocks: Sequence[int], shape: Sequence[int]) -> Tensor:
    """A block-wise complex volume, interpolated to the voxels."""
    x = torch.stack([z.real, z.imag]).unsqueeze(0)
    full = [n * b for n, b in zip(z.shape, blocks, strict=True)]
    x = functional.interpolate(x, size=full, mode="trilinear", align_corners=False)[0]
    x = x[
        (slice(None), *(slice(_margins(n, b)[0], _margins(n, b)[0] + n)
                        for n, b in zip(shape, blocks, strict=True)))
    ]  # fmt: skip
    return torch.complex(x[0], x[1])
