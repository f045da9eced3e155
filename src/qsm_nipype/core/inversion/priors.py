"""Total variation and total generalised variation, as splits of ∇χ."""

from __future__ import annotations

import torch
from torch import Tensor

from qsm_nipype.core.inversion.problem import Problem
from qsm_nipype.core.operators import (
    divergence,
    gradient,
    shrink_vector,
    symmetric_divergence,
    symmetric_gradient,
)


class Variation:
    """λ Σ|∇χ|₂ with z₁ = ∇χ; `radius` is λ/μ, `a` the over-relaxation.

    With t = a∇χ + (1 − a)z₁ + u₁, the new u₁ is the projection of t on the ball of `radius`, and
    z₁ = t − u₁ is t shrunk by it (Moreau). So r = z₁ − u₁ = t − 2u₁, and z₁ = r + u₁ need not be
    kept. Where `faces` (3, box) is false a step of χ costs nothing: u₁ = 0 and z₁ = ∇χ.
    """

    def __init__(
        self,
        problem: Problem,
        radius: float,
        *,
        faces: Tensor | None = None,
        a: float = 1.0,
        shrink_first: bool = False,
    ) -> None:
        self._shrink_first = shrink_first
        self._voxel_size, self._radius, self._faces, self._a = problem.voxel_size, radius, faces, a
        self._u, self._r = torch.zeros(2, 3, *problem.grid.shape).to(problem.D).unbind(0)
        self._slope = torch.empty_like(self._r) if a != 1 else self._r

    def start(self, x: Tensor) -> Tensor:
        """u₁ = 0 and z₁ = ∇χ, which `shrink_first` shrinks."""
        gradient(x, self._voxel_size, out=self._r)
        if self._shrink_first:
            self._r = shrink_vector(self._r, self._radius)
        return divergence(self._r, self._voxel_size)

    def __call__(self, x: Tensor) -> Tensor:
        u, r, a, vox = self._u, self._r, self._a, self._voxel_size
        if a == 1:
            t = gradient(x, vox, out=r).add_(u)
        else:
            t = r.mul_(1 - a).add_(u, alpha=2 - a)
            t.add_(gradient(x, vox, out=self._slope), alpha=a)
        _project(t, self._radius, out=u)
        if self._faces is not None:
            u.mul_(self._faces)
        return divergence(t.sub_(u, alpha=2), vox)


class GeneralisedVariation:
    """λ·min over w of Σ|∇χ − w| + 2Σ|ℰw| with z₁ = ∇χ − w, z₀ = ℰw and a linearised w-step.

    `radius` is λ/μ; only where `faces` (3, box) holds is something asked.
    """

    STEPS = 1

    def __init__(self, problem: Problem, radius: float, *, faces: Tensor) -> None:
        self._voxel_size, self._radius, self._faces = problem.voxel_size, radius, faces
        whole = faces.all(dim=0)  # ℰw is asked for where all its differences are inside
        for axis in range(3):
            whole = whole & whole.roll(1, axis)
        self._whole = whole
        shape, like = problem.grid.shape, problem.D
        self._u1, self._w, self._r1 = torch.zeros(3, 3, *shape).to(like).unbind(0)
        self._u0, self._r0 = torch.zeros(2, 6, *shape).to(like).unbind(0)  # r₀ = z₀ − u₀
        self._lipschitz = 1 + sum(4 / v**2 for v in problem.voxel_size)

    def start(self, x: Tensor) -> Tensor:
        """All zero, as χ has to be."""
        return torch.zeros_like(x)

    def __call__(self, x: Tensor) -> Tensor:
        t = gradient(x, self._voxel_size)
        # w-update: descend ½|∇χ − w − r₁|² + ½|ℰw − r₀|²
        goal = t - self._r1
        for _ in range(self.STEPS):
            strain = symmetric_gradient(self._w, self._voxel_size).sub_(self._r0)
            slope = symmetric_divergence(strain, self._voxel_size).neg_().add_(self._w).sub_(goal)
            self._w.sub_(slope, alpha=1 / self._lipschitz)
        # z₁, u₁: u₁ = projection of ∇χ − w + u₁,  r₁ = z₁ − u₁
        t.sub_(self._w).add_(self._u1)
        _project(t, self._radius, out=self._u1).mul_(self._faces)
        torch.sub(t, self._u1, alpha=2, out=self._r1)
        # z₀, u₀: the same for ℰw + u₀
        t0 = symmetric_gradient(self._w, self._voxel_size).add_(self._u0)
        _project(t0, 2 * self._radius, out=self._u0).mul_(self._whole)
        torch.sub(t0, self._u0, alpha=2, out=self._r0)
        return divergence(self._r1 + self._w, self._voxel_size)


def _project(t: Tensor, radius: float, *, out: Tensor) -> Tensor:
    """Voxel-wise projection onto the ball of `radius` in ℝ³ (or of symmetric 3 × 3 tensors)."""
    length = t[0].square()
    for k in range(1, t.shape[0]):
        length.addcmul_(t[k], t[k], value=1.0 if k < 3 else 2.0)
    factor = length.sqrt_().clamp_min_(radius).reciprocal_().mul_(radius)
    return torch.mul(t, factor, out=out)
