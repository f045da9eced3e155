"""Total variation and total generalised variation, as splits of ∇χ.

|∇χ| of a voxel is √(½ Σₖ(s₊² + s₋²)) over the steps s of χ to its two neighbours along each axis
k. One-sided differences, joined at one corner, would make χ depend on how the axes are stored;
the mean over both sides has the same Laplacian, so that the χ-update does not change.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsm_nipype.core.inversion.problem import Problem
from qsm_nipype.core.operators import (
    divergence,
    gradient,
    symmetric_divergence,
    symmetric_gradient,
)

#: Voxels that the split of a slab works on: they stay in the processor's cache.
SLAB_VOXELS = 1 << 18
#: Iterations after which a logarithmic tail is drawn again about |∇χ|, and the least weight there.
RENEWALS, LEAST_TAIL = (15, 30), 0.25


class Variation:
    """λ Σ|∇χ|₂ with z₁ = ∇χ; `radius` is λ/μ, `a` the over-relaxation.

    Where `free` (3, box) is true a step of χ to the next voxel costs nothing. Total variation
    takes height from every edge, from a steep one as much as from a faint one. With a `tail` τ
    (ppm) an edge costs τ(1 + log(|∇χ|/τ)) beyond |∇χ| = τ, so that steep ones keep theirs: the
    majorant of that is λ·min(1, τ/|∇χ|)|∇χ| with |∇χ| as it was at the last of `RENEWALS`
    [Candes2008]_. In the data mask only: elsewhere nothing would hold χ.
    """

    def __init__(
        self,
        problem: Problem,
        radius: float,
        *,
        free: Tensor | None = None,
        tail: float | None = None,
        a: float = 1.0,
    ) -> None:
        self._problem, self._voxel_size = problem, problem.voxel_size
        self._radius, self._tail, self._calls = radius, tail, 0
        self._split = TwoSided(problem, radius, free=free, a=a)
        self._faces = problem.D.new_zeros(3, *problem.grid.shape)

    def start(self, x: Tensor) -> Tensor:
        """A step from u₁ = 0 and z₁ = ∇χ."""
        q = self._split.start(gradient(x, self._voxel_size, out=self._faces))
        return divergence(q, self._voxel_size)

    def __call__(self, x: Tensor) -> Tensor:
        faces = gradient(x, self._voxel_size, out=self._faces)
        self._calls += 1
        if self._tail is not None and self._calls in RENEWALS:
            self._split.radius = self._renewed(two_sided_length(faces), self._tail)
        return divergence(self._split(faces), self._voxel_size)

    def _renewed(self, length: Tensor, tail: float) -> Tensor:
        """λ/μ of each voxel for a |∇χ| of this `length`."""
        weight = length.clamp_min_(tail).reciprocal_().mul_(tail).clamp_min_(LEAST_TAIL)
        return torch.where(self._problem.M, weight, 1.0).mul_(self._radius)


def two_sided_length(faces: Tensor) -> Tensor:
    """|∇χ| of each voxel from the steps `(3, X, Y, Z)` of χ to the next along each axis."""
    square = torch.zeros_like(faces[0])
    for k in range(3):
        step = faces[k].square()
        square.add_(step).add_(step.roll(1, k))
    return square.mul_(0.5).sqrt_()


class TwoSided:
    """The split of what is given on faces, whose two-sided length in each voxel is penalised.

    A face is that of a voxel and its next along one axis: s is `(3, X, Y, Z)`, and both of its
    voxels count it, so that z and u have six components in a voxel. With t = a·s + (1 − a)z + u,
    the new u = σt is the projection of t on the ball of `radius`, and z = t − u is t shrunk by it
    (Moreau): t and the share σ are all that is kept. Where `free` holds, u = 0 and z = s. `radius`
    may become a tensor, one for each voxel. The
    result is z − u summed over the two voxels of each face, in the memory of s.
    """

    def __init__(self, problem: Problem, radius: float, *, free: Tensor | None, a: float) -> None:
        shape, like = problem.grid.shape, problem.D
        self.radius: float | Tensor = radius
        self._a = a
        self._t, self._share = like.new_zeros(6, *shape), like.new_zeros(shape)
        area = shape[1] * shape[2]
        self._slab = shape[0] if like.is_cuda else min(shape[0], max(1, SLAB_VOXELS // area))
        self._r = like.new_empty(6, self._slab, *shape[1:])
        none = torch.zeros(0, dtype=torch.long, device=like.device)
        self._free = none if free is None else free.reshape(-1).nonzero().squeeze(1)
        self._z_free = like.new_zeros(self._free.numel())

    def start(self, s: Tensor) -> Tensor:
        """A step from u = 0 and z = s."""
        self._z_free = s.view(-1)[self._free]
        s.view(-1)[self._free] = 0
        for k in range(3):
            torch.mul(s[k], 0.5**0.5, out=self._t[k])
            self._t[3 + k] = self._t[k].roll(1, k)
        s.view(-1)[self._free] = self._z_free
        return self(s)

    def __call__(self, s: Tensor) -> Tensor:
        flat, n = s.view(-1), s.shape[1]
        self._z_free.lerp_(flat[self._free], self._a)
        flat[self._free] = 0
        before, around = s[0, -1:].clone(), torch.empty_like(s[0, :1])
        for first in range(0, n, self._slab):
            slab = slice(first, min(first + self._slab, n))
            after = s[0, slab.stop - 1 : slab.stop].clone()
            r = self._shrink(s[:, slab], before, slab)
            before = after
            # q of a face: what its two voxels say
            q = s[:, slab]
            torch.add(r[0, :-1], r[3, 1:], out=q[0, :-1])
            q[0, -1:] = r[0, -1:]
            (s[0, first - 1 : first].add_ if first else around.copy_)(r[3, :1])
            for k in (1, 2):
                _add_next(r[k], r[3 + k], k, out=q[k])
        s[0, -1:].add_(around)
        s.mul_(0.5**0.5)
        flat[self._free] = self._z_free
        return s

    def _shrink(self, s: Tensor, before: Tensor, slab: slice) -> Tensor:
        """r = z − u of a slab's voxels; `before` is s on the faces before it."""
        t, share, a = self._t[:, slab], self._share[slab], self._a
        # t ← a·s + (1 − a)z + u  with  z = (1 − σ)t,  u = σt
        t.mul_(share.mul_(a).add_(1 - a))
        half = a * 0.5**0.5
        t[:3].add_(s, alpha=half)
        t[3, :1].add_(before, alpha=half)
        t[3, 1:].add_(s[0, :-1], alpha=half)
        for k in (1, 2):
            n = s.shape[k + 1]
            t[3 + k].narrow(k, 1, n - 1).add_(s[k].narrow(k, 0, n - 1), alpha=half)
            t[3 + k].narrow(k, 0, 1).add_(s[k].narrow(k, n - 1, 1), alpha=half)
        # σ = radius/max(|t|, radius)
        torch.mul(t[0], t[0], out=share)
        for component in t[1:]:
            share.addcmul_(component, component)
        share.sqrt_()
        if isinstance(self.radius, Tensor):
            radius = self.radius[slab]
            torch.maximum(share, radius, out=share).reciprocal_().mul_(radius)
        else:
            share.clamp_min_(self.radius).reciprocal_().mul_(self.radius)
        return torch.mul(t, 1 - 2 * share, out=self._r[:, : t.shape[1]])


def _add_next(x: Tensor, y: Tensor, axis: int, *, out: Tensor) -> None:
    """x of each voxel plus y of the next one along a periodic `axis`."""
    n = x.shape[axis]
    for place, next_place, count in ((0, 1, n - 1), (n - 1, 0, 1)):
        torch.add(
            x.narrow(axis, place, count),
            y.narrow(axis, next_place, count),
            out=out.narrow(axis, place, count),
        )


class GeneralisedVariation:
    """λ·min over w of Σ|∇χ − w| + 2Σ|ℰw| with z₁ = ∇χ − w, z₀ = ℰw and a linearised w-step.

    `radius` is λ/μ; nothing is asked beyond the faces `free` (3, box), which are the rim's. w
    lives on faces, ℰw in voxels (diagonal) and on edges (the rest), where its differences meet:
    |ℰw| is the length of the diagonal and √2 times each other component.
    """

    def __init__(self, problem: Problem, radius: float, *, free: Tensor, a: float = 1.0) -> None:
        self._voxel_size, self._radius, self._a = problem.voxel_size, radius, a
        self._split = TwoSided(problem, radius, free=free, a=a)
        self._whole = _whole(problem.S)
        shape, like = problem.grid.shape, problem.D
        self._q, self._w = like.new_zeros(2, 3, *shape).unbind(0)  # q: z₁ − u₁ on faces
        self._u0, self._r0 = like.new_zeros(2, 6, *shape).unbind(0)  # r₀ = z₀ − u₀
        self._lipschitz = 1 + sum(4 / v**2 for v in problem.voxel_size)

    def start(self, x: Tensor) -> Tensor:
        """All zero, as χ has to be."""
        return torch.zeros_like(x)

    def __call__(self, x: Tensor) -> Tensor:
        s, w = gradient(x, self._voxel_size), self._w
        # w-update: descend ½|∇χ − w − r₁|² + ½|ℰw − r₀|²
        strain = symmetric_gradient(w, self._voxel_size).sub_(self._r0)
        slope = symmetric_divergence(strain, self._voxel_size).neg_()
        w.sub_(slope.add_(w).sub_(s).add_(self._q), alpha=1 / self._lipschitz)
        # z₁, u₁: u₁ = projection of ∇χ − w + u₁,  r₁ = z₁ − u₁
        self._q = self._split(s.sub_(w))
        # z₀, u₀: the same for ℰw + u₀
        t0 = symmetric_gradient(w, self._voxel_size, out=strain).add_(self._u0)
        _project_strain(t0, 2 * self._radius, out=self._u0).mul_(self._whole)
        torch.sub(t0, self._u0, alpha=2, out=self._r0)
        return divergence(self._q + w, self._voxel_size)


def _whole(S: Tensor) -> Tensor:
    """Where all the differences of ℰw are inside S: (6, box), bool, in its order."""

    def inside(shifts: list[tuple[int, int]]) -> Tensor:
        found = S
        for shift, axis in shifts:
            found = found & found.roll(shift, axis)
        return found

    cross = S.clone()
    for axis in range(3):
        cross &= S.roll(1, axis) & S.roll(-1, axis)
    edges = [inside([(-1, a), (-1, b)]) for a, b in ((0, 1), (0, 2), (1, 2))]
    return torch.stack([cross, cross, cross, *edges])


def _project_strain(t: Tensor, radius: float, *, out: Tensor) -> Tensor:
    """Projection of the diagonal onto the ball of `radius`, of the rest onto its interval."""
    length = t[0].square().addcmul_(t[1], t[1]).addcmul_(t[2], t[2])
    factor = length.sqrt_().clamp_min_(radius).reciprocal_().mul_(radius)
    torch.mul(t[:3], factor, out=out[:3])
    torch.clamp(t[3:], -radius * 0.5**0.5, radius * 0.5**0.5, out=out[3:])
    return out
