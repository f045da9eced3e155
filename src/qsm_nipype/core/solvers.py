"""Iterative solvers for linear operators given as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def conjugate_gradient(
    apply: Operator,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    tolerance: float,
    max_iterations: int,
    preconditioner: Operator | None = None,
) -> tuple[Tensor, int]:
    """Solve A x = `b` for a symmetric positive (semi-)definite A [Hestenes1952]_.

    `apply` maps a tensor of `b`'s shape to A·x, `preconditioner` to an approximate A⁻¹·r
    (symmetric and positive too). Stops when ‖b − A x‖ ≤ `tolerance`·‖b‖, after
    `max_iterations` products (one more for a start value `x0`), or where the direction has no
    curvature left, which is how float32 rounding or an indefinite A shows. Returns x and the
    number of iterations.
    """
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - apply(x)
    goal = (tolerance * _norm(b)) ** 2
    p, rho, iterations = torch.zeros_like(b), 1.0, 0
    while iterations < max_iterations and _dot(r, r) > goal:
        z = r if preconditioner is None else preconditioner(r)
        rho, before = _dot(r, z), rho
        p.mul_(rho / before if iterations else 0.0).add_(z)
        q = apply(p)
        curvature = _dot(p, q)
        if not (curvature > 0 and rho > 0):
            break
        x.add_(p, alpha=rho / curvature)
        r.sub_(q, alpha=rho / curvature)
        iterations += 1
    return x, iterations


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))


def _norm(a: Tensor) -> float:
    return _dot(a, a) ** 0.5
