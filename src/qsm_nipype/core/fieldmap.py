"""Total field from unwrapped multi-echo phase: weighted fits, their noise, repair of 2π outliers.

Noise model: complex Gaussian noise of SD σ in each of the real and imaginary parts gives the
phase of echo e the SD σ/|S_e|, so that the best weight of an echo in the fit is |S_e|² and the
field through the origin, 2π f = Σ |S_e|² t_e φ_e / Σ |S_e|² t_e², has the SD σ / √Σ |S_e|² t_e².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.phase import TWO_PI
from qsm_nipype.core.romeo import wrap_number
from qsm_nipype.core.signal_noise import filled_share, noise_level, single_echo_noise
from qsm_nipype.core.unwrapping import echo_first, signal_mask

#: RMS residual (rad) at which a voxel counts as half reliable: the consensus limit [Bilgic2024]_.
RESIDUAL_LIMIT = 0.3


@dataclass(frozen=True)
class FieldMap:
    """The fitted field `(X, Y, Z)` and how far to trust it; everything is finite.

    `field` and its SD `noise` in ppm; `residual` is the magnitude-weighted RMS of the echoes
    about the fit in rad; `reliability` in [0, 1] is 0.5 where the residual is 0.3 rad or the
    expected phase SD of the best echo is 0.3 rad, and 0 outside the mask. `phase_offset` is the
    fitted intercept in rad (None without), `sigma` the noise SD of the magnitude in its own
    units, `repaired` the number of voxels whose turns were changed.
    """

    field: Tensor
    noise: Tensor
    residual: Tensor
    reliability: Tensor
    mask: Tensor
    sigma: float
    repaired: int = 0
    phase_offset: Tensor | None = None


def linear_fit(
    unwrapped: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    b0: float,
    *,
    mask: Tensor | None = None,
    intercept: bool = False,
    repair: bool = True,
) -> FieldMap:
    """Magnitude-weighted straight line through the unwrapped phase `(X, Y, Z, E)` in rad.

    `magnitude` `(X, Y, Z, E)`, `echo_times` in s, `b0` in T. Without `intercept` the line passes
    through zero at t = 0 (offset removed before). With `repair`, each voxel's turns are chosen
    anew among the fields that its wrapped phase allows, by residual and by agreement with its
    neighbours; this needs a line through zero. The result holds the smooth continuation of the
    field in the few voxels around and between those of the mask, with reliability 0.
    """
    return _fit(unwrapped, magnitude, echo_times, b0, mask, intercept, repair, iterations=0)


def nonlinear_fit(
    phase: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    b0: float,
    *,
    mask: Tensor | None = None,
    intercept: bool = False,
    repair: bool = True,
    max_iterations: int = 20,
) -> FieldMap:
    """Complex fit: minimise Σ|S_e − |S_e| exp(i(φ0 + 2π f t_e))|² by Gauss-Newton [Liu2013]_.

    Starts from `linear_fit` of the unwrapped `phase` `(X, Y, Z, E)`; the fit itself does not
    depend on whole turns, and outliers pull less on it. φ0 is 0 unless `intercept`.
    """
    return _fit(phase, magnitude, echo_times, b0, mask, intercept, repair, max_iterations)


def _fit(
    unwrapped: Tensor,
    magnitude: Tensor,
    echo_times: Sequence[float],
    b0: float,
    mask: Tensor | None,
    intercept: bool,
    repair: bool,
    iterations: int,
) -> FieldMap:
    shape, device = tuple(unwrapped.shape[:3]), unwrapped.device
    times = np.asarray(echo_times, np.float32)
    if intercept and times.size < 2:
        raise ValueError("an intercept is fitted from at least two echoes")
    keep = signal_mask(magnitude) if mask is None else mask.bool()
    phi, amplitude = echo_first(unwrapped), echo_first(magnitude)
    inside = keep.cpu().numpy().reshape(-1)
    omega, offset, residual, info = _solve(phi, amplitude, times, inside, intercept, 0)
    sigma = _sigma(phi, magnitude, residual, amplitude, inside, keep, intercept)

    repaired = 0
    if repair and not intercept:
        phi = phi.copy()
        for _ in range(2):
            trust = _reliability(residual, amplitude, sigma, inside)
            expected = _neighbourhood(omega, trust, inside, shape)
            changed = np.zeros(inside.size, np.bool_)
            _repair(phi, amplitude, times, sigma, inside, omega, expected, changed)
            repaired = max(repaired, int(changed.sum()))
            if not changed.any():
                break
            omega, offset, residual, info = _solve(phi, amplitude, times, inside, intercept, 0)
    if iterations:
        solution = _solve(phi, amplitude, times, inside, intercept, iterations)
        omega, offset, residual, info = solution
    trust = _reliability(residual, amplitude, sigma, inside)
    omega = _continue(omega, inside, shape)
    hertz_per_ppm = GYROMAGNETIC_RATIO * b0
    result = FieldMap(
        field=torch.from_numpy(omega.reshape(shape)) / (TWO_PI * hertz_per_ppm),
        noise=torch.from_numpy(
            _noise(info, residual, amplitude, sigma, times, inside).reshape(shape)
        )
        / (TWO_PI * hertz_per_ppm),
        residual=torch.from_numpy(residual.reshape(shape)),
        reliability=torch.from_numpy(trust.reshape(shape)),
        mask=keep.cpu(),
        sigma=sigma,
        repaired=repaired,
        phase_offset=torch.from_numpy(offset.reshape(shape)) if intercept else None,
    )
    return _to(result, device)


@njit(cache=True, nogil=True, inline="always")
def _line(phi, amplitude, times, v, intercept):
    """Weighted line of voxel `v`: slope, intercept, information of the slope, Σ|S|²."""
    s0, s1, s2, y0, y1 = 0.0, 0.0, 0.0, 0.0, 0.0
    for e in range(times.size):
        w = amplitude[e, v] ** 2
        t = times[e]
        s0 += w
        s1 += w * t
        s2 += w * t * t
        y0 += w * phi[e, v]
        y1 += w * t * phi[e, v]
    if not s2 > 0:
        return 0.0, 0.0, 0.0, 0.0
    if not intercept:
        return y1 / s2, 0.0, s2, s0
    determinant = s0 * s2 - s1 * s1
    if not determinant > 1e-9 * s0 * s2:
        return 0.0, 0.0, 0.0, 0.0
    slope = (s0 * y1 - s1 * y0) / determinant
    return slope, (s2 * y0 - s1 * y1) / determinant, determinant / s0, s0


@njit(cache=True, nogil=True, inline="always")
def _complex_step(phi, amplitude, times, v, slope, offset, intercept):
    """One Gauss-Newton step for the complex residual: changes of slope and offset."""
    s0, s1, s2, g0, g1 = 0.0, 0.0, 0.0, 0.0, 0.0
    for e in range(times.size):
        w = amplitude[e, v] ** 2
        t = times[e]
        sine = math.sin(phi[e, v] - offset - slope * t)
        s0 += w
        s1 += w * t
        s2 += w * t * t
        g0 += w * sine
        g1 += w * t * sine
    if not intercept:
        return g1 / s2, 0.0
    determinant = s0 * s2 - s1 * s1
    return (s0 * g1 - s1 * g0) / determinant, (s2 * g0 - s1 * g1) / determinant


@njit(cache=True, nogil=True, parallel=True)
def _solve(phi, amplitude, times, inside, intercept, iterations):
    """Per voxel: 2πf (rad/s), φ0, weighted RMS residual (rad), information Σ|S|²t² of f."""
    n = inside.size
    omega = np.zeros(n, np.float32)
    offset = np.zeros(n, np.float32)
    residual = np.zeros(n, np.float32)
    information = np.zeros(n, np.float32)
    for v in prange(n):
        if not inside[v]:
            continue
        slope, start, known, total = _line(phi, amplitude, times, v, intercept)
        if not total > 0:
            continue
        for _ in range(iterations):
            step, shift = _complex_step(phi, amplitude, times, v, slope, start, intercept)
            slope += step
            start += shift
            if abs(step) * times[times.size - 1] < 1e-5:
                break
        squared = 0.0
        for e in range(times.size):
            r = phi[e, v] - start - slope * times[e]
            if iterations > 0:
                r = wrap_number(r, TWO_PI)
            squared += amplitude[e, v] ** 2 * r * r
        omega[v] = slope
        offset[v] = start
        residual[v] = math.sqrt(squared / total)
        information[v] = known
    return omega, offset, residual, information


@njit(cache=True, nogil=True, inline="always")
def _nearest_fit(phi, amplitude, times, v, candidate):
    """Weighted fit through zero to the turns of voxel `v` nearest to the field `candidate`."""
    for _ in range(2):
        top, bottom = 0.0, 1e-30
        for e in range(times.size):
            r = wrap_number(phi[e, v] - candidate * times[e], TWO_PI)
            w = amplitude[e, v] ** 2
            top += w * times[e] * r
            bottom += w * times[e] ** 2
        candidate += top / bottom
    return candidate


@njit(cache=True, nogil=True, inline="always")
def _misfit(phi, amplitude, times, sigma, v, candidate):
    """χ² of voxel `v` about `candidate`: the noise's SD, plus 0.2 rad the model leaves out."""
    cost = 0.0
    for e in range(times.size):
        r = wrap_number(phi[e, v] - candidate * times[e], TWO_PI)
        strength = amplitude[e, v] ** 2
        cost += r * r * strength / (sigma * sigma + 0.04 * strength + 1e-30)
    return cost


@njit(cache=True, nogil=True, parallel=True)
def _repair(phi, amplitude, times, sigma, inside, omega, expected, changed):
    """Choose each voxel's turns anew, in place, by residual and by its neighbours' field.

    `expected` is what `_neighbourhood` returns.
    The candidates are the fields one to three cycles per echo spacing away, and the neighbours'
    own. The neighbours' prediction has an SD of a quarter of a cycle plus their own `spread`. A
    candidate must be better by 9 (three SD) to replace what is there.
    """
    near, spread = expected
    spacing = times[1] - times[0] if times.size > 1 else times[0]
    for e in range(2, times.size):
        spacing = min(spacing, times[e] - times[e - 1])
    cycle = TWO_PI / spacing
    for v in prange(inside.size):
        if not inside[v]:
            continue
        doubt = (0.25 * cycle) ** 2 + spread[v]
        chosen = float(omega[v])
        best = (chosen - near[v]) ** 2 / doubt
        best += _misfit(phi, amplitude, times, sigma, v, chosen) - 9.0
        if best < 0:
            continue
        for k in range(1, 8):
            candidate = float(omega[v]) + ((k + 1) // 2) * cycle * (1.0 if k % 2 else -1.0)
            if k == 7:
                candidate = float(near[v])
            candidate = _nearest_fit(phi, amplitude, times, v, candidate)
            cost = (candidate - near[v]) ** 2 / doubt
            cost += _misfit(phi, amplitude, times, sigma, v, candidate)
            if cost < best:
                best, chosen = cost, candidate
        for e in range(times.size):
            turns = np.rint((phi[e, v] - chosen * times[e]) / TWO_PI)
            if turns != 0:
                phi[e, v] -= np.float32(TWO_PI * turns)
                changed[v] = True


@njit(cache=True, nogil=True, parallel=True)
def _neighbourhood(omega, trust, inside, shape):
    """Mean and variance of `omega` over the 26 neighbours, weighted with `trust`²."""
    nx, ny, nz = shape
    near = omega.copy()
    spread = np.zeros(omega.size, np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                v = (x * ny + y) * nz + z
                if not inside[v]:
                    continue
                w0, w1, w2 = 1e-6, 0.0, 0.0
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    for j in range(max(y - 1, 0), min(y + 2, ny)):
                        row = (i * ny + j) * nz
                        for k in range(max(z - 1, 0), min(z + 2, nz)):
                            u = row + k
                            if u == v:
                                continue
                            w = trust[u] ** 2
                            d = omega[u] - omega[v]
                            w0 += w
                            w1 += w * d
                            w2 += w * d * d
                near[v] += np.float32(w1 / w0)
                spread[v] = np.float32(max(w2 / w0 - (w1 / w0) ** 2, 0.0))
    return near, spread


@njit(cache=True, nogil=True, parallel=True)
def _spill(field, known, shape):
    """One layer of voxels around the `known` ones takes the mean of its known neighbours."""
    nx, ny, nz = shape
    out, reached = field.copy(), known.copy()
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                v = (x * ny + y) * nz + z
                if known[v]:
                    continue
                count, total = 0, 0.0
                for i in range(max(x - 1, 0), min(x + 2, nx)):
                    for j in range(max(y - 1, 0), min(y + 2, ny)):
                        row = (i * ny + j) * nz
                        for k in range(max(z - 1, 0), min(z + 2, nz)):
                            if known[row + k]:
                                count += 1
                                total += field[row + k]
                if count > 0:
                    out[v] = total / count
                    reached[v] = True
    return out, reached


def _sigma(
    phi: np.ndarray,
    magnitude: Tensor,
    residual: np.ndarray,
    amplitude: np.ndarray,
    inside: np.ndarray,
    keep: Tensor,
    intercept: bool,
) -> float:
    """Noise SD of the signal: from the fit's residuals in the median voxel, or from differences.

    E·(mean |S|² r²) / σ² is χ² distributed with E − 1 (E − 2 with intercept) degrees of freedom.
    The differences of neighbours bound it, because residuals hold more than noise.
    """
    first = (magnitude[..., 0] if magnitude.dim() == 4 else magnitude).float()
    unwrapped = torch.from_numpy(phi[0].reshape(first.shape)).to(first)
    if phi.shape[0] == 1:
        return single_echo_noise(unwrapped, first, keep)
    freedom = phi.shape[0] - (2 if intercept else 1)
    spatial = noise_level(first, keep, filled_share(unwrapped, first))
    if freedom < 1 or not inside.any():
        return spatial
    sample = np.flatnonzero(inside)
    sample = sample[:: max(1, sample.size // 300_000)]
    energy = residual[sample] ** 2 * (amplitude[:, sample] ** 2).sum(0)
    median_chi2 = freedom * (1 - 2 / (9 * freedom)) ** 3
    estimate = math.sqrt(float(np.median(energy)) / median_chi2)
    return min(estimate, spatial) if spatial > 0 else estimate


def _reliability(
    residual: np.ndarray, amplitude: np.ndarray, sigma: float, inside: np.ndarray
) -> np.ndarray:
    """1 where residual and expected phase SD are small, 0.5 where one is `RESIDUAL_LIMIT`."""
    spread = np.float32(sigma) / np.maximum(amplitude.max(0), np.float32(1e-30))
    value = 1 / (1 + (residual / np.float32(RESIDUAL_LIMIT)) ** 4)
    value /= 1 + np.minimum(spread / np.float32(RESIDUAL_LIMIT), np.float32(1e6)) ** 4
    return np.where(inside, value, 0).astype(np.float32)


def _noise(
    information: np.ndarray,
    residual: np.ndarray,
    amplitude: np.ndarray,
    sigma: float,
    times: np.ndarray,
    inside: np.ndarray,
) -> np.ndarray:
    """SD of 2πf (rad/s): σ/√information, more where the residual is beyond what noise explains.

    A measured |S|² holds noise, too: σ² of it tells nothing about the field. Never more than the
    SD of a field known up to a cycle only, which is also the value outside.
    """
    spacing = float(np.diff(times).min()) if times.size > 1 else float(times[0])
    unknown = np.float32(TWO_PI / spacing / math.sqrt(12.0))
    own = np.float32(sigma**2 * np.square(times.astype(np.float64)).sum())
    signal = np.maximum(information - own, information / 4)
    noise = np.float32(sigma) / np.sqrt(np.maximum(signal, np.float32(1e-30)))
    if times.size > 1:
        chi2 = residual**2 * (amplitude**2).sum(0) / max(sigma, 1e-15) ** 2
        noise *= np.sqrt(np.maximum(1, chi2 / (4 * (times.size - 1))))
    return np.where(inside, np.minimum(noise, unknown), unknown).astype(np.float32)


def _continue(omega: np.ndarray, inside: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`omega`, continued into the four layers of voxels around (and in holes of) `inside`."""
    known = inside
    for _ in range(4):
        omega, known = _spill(omega, known, shape)
    return omega


def _to(result: FieldMap, device: torch.device) -> FieldMap:
    if device.type == "cpu":
        return result
    moved: dict[str, Any] = {
        k: v.to(device) for k, v in vars(result).items() if isinstance(v, Tensor)
    }
    return replace(result, **moved)
