"""Every rule for the regularisation weight λ, side by side.

σ is the SD of the field's white noise, S the RMS of its signal, both in ppm.

| rule | λ | for | where it comes from |
|---|---|---|---|
| `l2_weight` | 0.045·max(σ/S, 0.05) | tikhonov | sweeps over textured heads, 0.5 … 10 ppb |
| `tv_weight` | 0.08·σ·(σ/S)^½ | tv, second stage of hdqsm | the same sweeps, scanners |
| | 0.14·σ·(σ/S)^½ | whtv, whose steep edges cost less | scanners, nuclei in vivo |
| `rts_weight` | 1.9·e·(e/S)^¼, e of `with_model_error` | rts | the same sweeps |
| `phase_weight` | 0.1·e·(e/S)^½, e² = σ² | nltv, nltgv | sweeps at 0.5, 2 and 5 ppb |
| | 0.1·e·(e/S)^½, e² = σ² + (S/4)² | tgv | the same, and whtv's misfit |
| | 0.12·e·(e/S)^½, e of `with_model_error` | medi | the same sweeps, edges free |
| `ROBUST_WEIGHT` | 0.07 | l1tv, first stage of hdqsm | both terms grow with the noise |

All but the first and the last have the unit of the field, ppm, because gradients are per mean
voxel edge: scaling field and noise together, or all lengths, changes no decision. Between the σ²
of a Gaussian prior at low signal and the σ of a fixed misfit, σ^1.5/S^0.5 follows the best weight
of a sweep over the noise: less noise permits more than proportionally less smoothing, because the
cone of silence needs less help. The measurements are in docs/inversion.md and
docs/inversion-nonlinear.md.
"""

from __future__ import annotations

import math

from torch import Tensor

#: λ·S/σ of the quadratic penalty, and the least σ/S that it starts from.
L2_FACTOR, L2_LEAST_NOISE = 0.045, 0.05
#: λ·S^½/σ^1.5 of total variation with a linear data term, with a logarithmic tail, and the least
#: λ/S.
TV_FACTOR, TAILED_FACTOR, TV_LEAST = 0.08, 0.14, 1e-5
#: λ·S^¼/σ^1.25 of the second step of RTS, and the least λ/S: it has a cone to fill in any case.
RTS_FACTOR, RTS_LEAST = 1.9, 1e-3
#: λ·S^½/σ^1.5 with the data term in the complex signal (FANSI's TV and TGV), and that of MEDI.
FANSI_FACTOR, MEDI_FACTOR = 0.1, 0.12
#: Least noise, as a share of S, of the rules with the data term in the complex signal.
PHASE_LEAST_NOISE = 0.01
#: Error of the model, as a share of S, that λ accounts for besides the noise where a field still
#: holds background: what h cannot take off is an error of the signal's own size.
BACKGROUND_MISFIT = 0.25
#: White noise that does the harm of a model error of share q of χ's power: q times this, of S,
#: and at most S. Only for methods whose data term has no place for that error.
MODEL_FACTOR = 5.0
#: λ of an ℓ1 data term, a number: both terms grow with the field and its noise.
ROBUST_WEIGHT = 0.07


def with_model_error(sigma: float, share: float, scale: float) -> float:
    """White noise (ppm) as harmful as the noise `sigma` and a model error of `share` together.

    √(σ² + (5·`share`·S)²), the second at most S² = scale² − σ², the power of the signal.
    """
    return math.hypot(sigma, min(MODEL_FACTOR * share, 1.0) * noiseless(sigma, scale))


def l2_weight(sigma: float, scale: float) -> float:
    """λ (a number) of `tikhonov` from the noise `sigma` and the RMS `scale` of the field in ppm.

    λ = 0.045·σ/S, S² = scale² − σ²: it depends on the ratio of noise to signal only.
    """
    signal = noiseless(sigma, scale)
    return L2_FACTOR * max(sigma / signal, L2_LEAST_NOISE) if signal > 0 else L2_FACTOR


def tv_weight(sigma: float, scale: float, factor: float = TV_FACTOR) -> float:
    """λ (ppm) of `tv` from the noise `sigma` and the RMS `scale` of the local field in ppm.

    λ = `factor`·σ·√(σ/S), S² = scale² − σ² the power of the signal: the exponents from sweeps over
    three textured heads at σ from 0.5 to 10 ppb, the factor from those and scanner-like heads,
    with the model's error c beside χ.
    """
    signal = noiseless(sigma, scale)
    if signal == 0:
        return 0.0
    return max(factor * sigma * (sigma / signal) ** 0.5, TV_LEAST * scale)


def rts_weight(sigma: float, scale: float) -> float:
    """λ (ppm) of `rts` from the noise `sigma` and the RMS `scale` of the local field in ppm.

    λ = 1.9·σ·(σ/S)^¼, S² = scale² − σ² the power of the signal, fitted to sweeps.
    """
    signal = noiseless(sigma, scale)
    if signal == 0:
        return 0.0
    return max(RTS_FACTOR * sigma * (sigma / signal) ** 0.25, RTS_LEAST * scale)


def phase_weight(
    sigma: float, size: float, *, factor: float = FANSI_FACTOR, misfit: float = 0.0
) -> float:
    """λ (ppm) of the methods with the data term in the complex signal.

    λ = `factor`·e^1.5/S^0.5 with e² = `sigma`² + (`misfit`·S)² and S² = `size`² − σ², both in
    ppm; `size` is the typical size of the field (1.5 times its median), which wraps and strong
    sources leave alone. A hundredth of S stands for less noise.
    """
    signal = max(size**2 - sigma**2, sigma**2 / 4, 1e-24) ** 0.5
    error = math.hypot(max(sigma, PHASE_LEAST_NOISE * signal), misfit * signal)
    return factor * error**1.5 / signal**0.5


def noiseless(sigma: float, scale: float) -> float:
    """RMS of the signal in a field of RMS `scale` with noise `sigma`; at least a fifth of it."""
    return max(scale**2 - sigma**2, 0.04 * scale**2) ** 0.5


def rms(field: Tensor, mask: Tensor) -> float:
    """RMS of the finite voxels of `field` `(X, Y, Z)` in `mask`; 0 where there are none."""
    inside = field[mask.bool() & field.isfinite()]
    return float(inside.square().mean().sqrt()) if inside.numel() else 0.0
