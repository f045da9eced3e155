"""One magnitude from that of several echoes or coils."""

from __future__ import annotations

from torch import Tensor


def combined_magnitude(magnitude: Tensor) -> Tensor:
    """Root of the sum of squares over the last axis: `(X, Y, Z, E)` → `(X, Y, Z)`.

    One echo `(X, Y, Z)` stays as it is, without its sign.
    """
    if magnitude.dim() == 3:
        return magnitude.abs()
    return magnitude.square().sum(dim=-1).sqrt()
