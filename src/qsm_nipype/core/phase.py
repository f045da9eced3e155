"""Arithmetic of wrapped phase."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TWO_PI = 2.0 * math.pi

_Phase = TypeVar("_Phase", "Tensor", "np.ndarray")


def wrap(phase: _Phase) -> _Phase:
    """`phase` (rad), a tensor or an array, brought into [−π, π] by whole turns.

    What lies on the border may lie beyond it by rounding.
    """
    return phase - TWO_PI * (phase / TWO_PI).round()
