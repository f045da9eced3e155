"""Total variation regularised dipole inversion with a linear data term, by ADMM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import pad

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_noise import field_noise, noise_weights
from qsm_nipype.core.fourier import fast_length, gradient_spectrum, working_grid
from qsm_nipype.core.geometry import relative_voxel_size
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.weights import tv_weight
from qsm_nipype.core.operators import divergence, gradient, shrink_vector

#: Empty voxels between the head's box and its periodic image.
PADDING = 16
#: Over-relaxation of the splittings; between 1.5 and 1.8 halves the iterations of plain ADMM.
RELAXATION = 1.7
#: Penalty of the splitting z₂ = Dχ, against the data term's 1.
DATA_PENALTY = 0.5

#: prox(v, f, W): argmin_z φ(W, z − f) + ½·DATA_PENALTY·(z − v)².
Prox = Callable[[Tensor, Tensor, Tensor], Tensor]


def tv(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
    regularization: float | None = None,
    tolerance: float = 5e-3,
    max_iterations: int = 60,
) -> Solution:
    """Total variation inversion [Bilgic2014]_ with spatial weights [Milovic2018]_: χ in ppm.

    Minimises ½‖W(Dχ − f)‖² + λ Σ|∇χ|₂ over the χ that vanish outside `mask`; f is the local
    `field` `(X, Y, Z)` in ppm. The weights W are the mask, or σ₀/σ from the map `noise` (SD in
    ppm): where the field is unknown, outside the mask, nothing is asked of Dχ.
    `regularization` λ (ppm, ∇ being per mean voxel edge) None takes it from the noise by
    `tv_weight`. Stops when χ changes by less than `tolerance`, relative to itself, in an
    iteration.
    """
    problem = split_problem(field, mask, voxel_size, b0_dir, weights=noise_weights(noise, mask))
    sigma = 0.0
    if regularization is None:
        sigma = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
        regularization = tv_weight(sigma, problem.scale)
    return solve(
        problem,
        least_squares,
        regularization,
        tolerance=tolerance,
        max_iterations=max_iterations,
        chosen={"regularization": regularization, **({"noise": sigma} if sigma else {})},
    )


def least_squares(v: Tensor, f: Tensor, W: Tensor) -> Tensor:
    """Proximal map of ½W²(z − f)²."""
    square = W.square()
    return (square * f + DATA_PENALTY * v) / (square + DATA_PENALTY)


@dataclass(frozen=True)
class SplitProblem:
    """Field, weights and mask cut to the head's box with one empty voxel around, and D(k).

    `voxel_size` is relative to the mean voxel: gradients are per voxel, and scaling all lengths
    changes nothing. `shape` is the padded grid of the transforms, `volume` and `box` say where
    the cut came from. Cutting first makes the result independent of where the head lies.
    """

    f: Tensor
    W: Tensor
    M: Tensor
    D: Tensor
    voxel_size: tuple[float, float, float]
    shape: tuple[int, int, int]
    volume: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    outer: float | None = None

    @property
    def scale(self) -> float:
        """Weighted RMS of the field in the mask (ppm)."""
        total = float(self.W.norm())
        return float((self.W * self.f).norm()) / total if total > 0 else 0.0

    def transform(self, x: Tensor) -> Tensor:
        """Half-grid spectrum of a box tensor, zeros around it."""
        return torch.fft.rfftn(x, s=self.shape)

    def inverse(self, X: Tensor) -> Tensor:
        """The box part of a half-grid spectrum's inverse transform."""
        x, y, z = self.f.shape
        return torch.fft.irfftn(X, s=self.shape)[:x, :y, :z]

    def cut(self, x: Tensor) -> Tensor:
        """A volume cut to the box, with one voxel of zeros around."""
        return pad(x[self.box], (1,) * 6)

    def restore(self, x: Tensor) -> Tensor:
        """A box tensor put back into the volume, zero outside the mask."""
        out = x.new_zeros(self.volume)
        out[self.box] = torch.where(self.M, x, x.new_zeros(()))[1:-1, 1:-1, 1:-1]
        return out


def split_problem(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    weights: Tensor | None = None,
) -> SplitProblem:
    """The `SplitProblem` of a local `field` `(X, Y, Z)`; an empty mask becomes all zeros."""
    mask = mask.bool() & torch.isfinite(field)
    weights = mask if weights is None else weights * mask
    everything = mask if bool(mask.any()) else torch.ones_like(mask)
    box = working_grid(everything).box
    M = pad(mask[box], (1,) * 6)
    shape = tuple(fast_length(n + PADDING) for n in M.shape)
    inside = torch.where(mask, field, field.new_zeros(()))
    return SplitProblem(
        f=pad(inside[box], (1,) * 6),
        W=pad(weights[box].to(field), (1,) * 6),
        M=M,
        D=dipole_kernel(shape, voxel_size, b0_dir, field),
        voxel_size=relative_voxel_size(voxel_size),
        shape=shape,  # type: ignore[arg-type]
        volume=tuple(mask.shape),  # type: ignore[arg-type]
        box=box,
    )


def solve(
    problem: SplitProblem,
    prox: Prox,
    regularization: float,
    *,
    tolerance: float,
    max_iterations: int,
    start: Tensor | None = None,
    chosen: dict[str, float],
) -> Solution:
    """ADMM for min Σφ(W, Dχ − f) + λ Σ|∇χ|₂ with χ = 0 outside the mask; `prox` is that of φ.

    Three splittings make each step closed-form: z₁ = ∇χ (penalty μ), z₂ = Dχ (ν) and z₃ = χ
    (μ). Of each, only the scaled multiplier u and the difference r = z − u are kept.
    Outside the box z₂ is Dχ itself, which the spectrum Y = DX already holds, so transforms see
    the box only. Four transforms an iteration. `start` is a volume of χ to begin from.
    """
    f, W, M, D, vox = problem.f, problem.W, problem.M, problem.D, problem.voxel_size
    if problem.scale == 0:
        return Solution(problem.restore(torch.zeros_like(f)), 0, True, MappingProxyType(chosen))
    threshold = 1.5 * problem.scale  # λ/μ: of the order of χ's gradients
    mu, nu, a = regularization / threshold, DATA_PENALTY, RELAXATION
    denominator = nu * D.square() + mu * (gradient_spectrum(problem.shape, vox, f) + 1)

    x = torch.zeros_like(f) if start is None else problem.cut(start)
    X = problem.transform(x)
    Y = X.mul_(D)
    y = problem.inverse(Y)
    z1 = gradient(x, vox)
    r1, u1 = z1.clone(), torch.zeros_like(z1)
    z2, u2 = prox(y, f, W), torch.zeros_like(f)
    z3, r3, u3 = x.clone(), x.clone(), torch.zeros_like(f)
    q = z2 - y
    iteration, change = 0, float("inf")
    while iteration < max_iterations and change > tolerance:
        iteration += 1
        # χ-update
        Y.add_(problem.transform(q)).mul_(D).mul_(nu)
        X = problem.transform(r3.sub_(divergence(r1, vox, out=q)).mul_(mu))
        X.add_(Y).div_(denominator)
        x_old, x = x, problem.inverse(X)
        Y = X.mul_(D)
        y = problem.inverse(Y)
        # z₁, u₁: gradient
        u1.add_(gradient(x, vox, out=r1), alpha=a).add_(z1, alpha=1 - a)
        z1 = shrink_vector(u1, threshold)
        torch.sub(z1, u1.sub_(z1), out=r1)
        # z₂, u₂: data
        u2.add_(y, alpha=a).add_(z2, alpha=1 - a)
        z2 = prox(u2, f, W)
        torch.sub(z2, u2.sub_(z2), out=q).sub_(y)
        # z₃, u₃: support
        u3.add_(x, alpha=a).add_(z3, alpha=1 - a)
        z3 = u3 * M
        torch.sub(z3, u3.sub_(z3), out=r3)
        change = relative_change(x, x_old, M)
    return Solution(problem.restore(x), iteration, change <= tolerance, MappingProxyType(chosen))


def relative_change(x: Tensor, before: Tensor, mask: Tensor) -> float:
    """‖x − before‖/‖x‖ in the mask; 0 where both vanish."""
    size = float((x * mask).norm())
    return float(((x - before) * mask).norm()) / size if size > 0 else 0.0
