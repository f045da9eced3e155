"""Total variation regularised dipole inversion with a linear data term, by ADMM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.fourier import gradient_spectrum, irfft, rfft, working_grid
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.noise import field_noise, noise_weights
from qsm_nipype.core.operators import divergence, gradient, shrink

#: Empty voxels added to the head's bounding box along each axis.
PADDING = 16

#: prox(v, f, W): the data term's proximal map with penalty 1, on the splitting variable Dχ.
Prox = Callable[[Tensor, Tensor, Tensor], Tensor]


def tv(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Solution:
    """Total variation inversion [Bilgic2014]_ with spatial weights [Milovic2018]_: χ in ppm.

    Minimises ½‖W(Dχ − f)‖² + λ‖∇χ‖₁ over the χ that vanish outside `mask`. The weights W are
    the mask, or σ₀/σ from the map `noise`: where the field is unknown, outside the mask, nothing
    is asked of Dχ. `regularization` λ (ppm·mm) None takes it from the noise by `tv_weight`.
    Stops when χ changes by less than `tolerance`, relative to itself, in an iteration.
    """
    if regularization is None:
        sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = tv_weight(sigma)
    return masked_tv(
        field,
        noise_weights(noise, mask.bool()).to(field),
        mask.bool(),
        (voxel_size, b0_dir),
        _least_squares,
        regularization=regularization,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def tv_weight(sigma: float) -> float:
    """λ (ppm·mm) of `tv` from the field's noise `sigma` in ppm."""
    return max(0.06 * sigma, 1e-7)


def _least_squares(v: Tensor, f: Tensor, W: Tensor) -> Tensor:
    """argmin ½W²(z − f)² + ½(z − v)²."""
    square = W.square()
    return (square * f + v) / (square + 1)


def masked_tv(
    field: Tensor,
    weights: Tensor,
    mask: Tensor,
    geometry: tuple[Sequence[float], Sequence[float]],
    prox: Prox,
    *,
    regularization: float,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """ADMM for min φ(W(Dχ − f)) + λ‖∇χ‖₁ with χ = 0 outside `mask`, φ given by its `prox`.

    Three splittings: z₁ = ∇χ (penalty μ = 100 λ), z₂ = Dχ (1), z₃ = χ (μ), so that each step is
    closed-form. `geometry` is (voxel size, B0 direction).
    """
    voxel_size, b0_dir = geometry
    chosen = MappingProxyType({"regularization": regularization})
    if not bool(mask.any()):
        return Solution(torch.zeros_like(field), parameters=chosen)
    grid = working_grid(mask, padding=PADDING)
    M = grid.embed(mask)
    f = grid.embed(torch.where(mask, field, field.new_zeros(())))
    W = grid.embed(weights)
    D = dipole_kernel(grid.shape, voxel_size, b0_dir, f)
    mu = 100 * regularization
    denominator = D.square() + mu * (gradient_spectrum(grid.shape, voxel_size, f) + 1)
    threshold = regularization / mu

    x, x_old = torch.zeros_like(f), torch.zeros_like(f)
    u1, u2, u3 = f.new_zeros((3, *f.shape)), torch.zeros_like(f), torch.zeros_like(f)
    r1, r2, r3 = torch.zeros_like(u1), prox(f * 0, f, W), torch.zeros_like(f)  # z − u
    w = torch.empty_like(u1)
    iteration, change = 0, float("inf")
    while iteration < max_iterations and change > tolerance:
        iteration += 1
        # χ-update
        X = rfft((r3 - divergence(r1, voxel_size)).mul_(mu))
        X.add_(rfft(r2).mul_(D)).div_(denominator)
        x, x_old = irfft(X, grid.shape), x
        y = irfft(X.mul_(D), grid.shape)
        # z₁, u₁: gradient
        gradient(x, voxel_size, out=w).add_(u1)
        z = shrink(w, threshold)
        torch.sub(w, z, out=u1)
        torch.sub(z, u1, out=r1)
        # z₂, u₂: data
        y.add_(u2)
        z = prox(y, f, W)
        torch.sub(y, z, out=u2)
        torch.sub(z, u2, out=r2)
        # z₃, u₃: support
        u3.add_(x).masked_fill_(M, 0)
        torch.where(M, x, -u3, out=r3)
        change = _relative_change(x, x_old, M)
    chi = torch.where(M, x, x.new_zeros(()))
    return Solution(grid.restore(chi), iteration, change <= tolerance, chosen)


def _relative_change(x: Tensor, before: Tensor, mask: Tensor) -> float:
    """‖x − before‖/‖x‖ in the mask; 0 where both vanish."""
    size = float((x * mask).norm())
    return float(((x - before) * mask).norm()) / size if size > 0 else 0.0
