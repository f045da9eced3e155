"""Fat: six spectral lines, and an image shifted along the readout."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO

#: Hz per voxel along the readout, usual for multi-echo gradient echoes (200 to 500)
BANDWIDTH = 400.0
#: the axis along which the echoes are read (that of `Protocol.bipolar`)
READOUT = 0
#: ppm against water → share of the signal, six peaks [Hamilton2011]_ as in the fat–water toolbox
PEAKS = {-3.80: 0.087, -3.40: 0.693, -2.60: 0.128, -1.94: 0.004, -0.39: 0.039, 0.60: 0.049}
#: ppm of the main peak, by which the image is displaced
MAIN = -3.40


def fat_factor(echo_time: float, b0: float) -> complex:
    """Σ aₚ exp(i 2π γ B0 δₚ TE): what the spectrum makes of one unit of fat."""
    turns = GYROMAGNETIC_RATIO * b0 * echo_time
    angles = ((share, 2 * math.pi * peak * turns) for peak, share in PEAKS.items())
    return sum((share * complex(math.cos(a), math.sin(a)) for share, a in angles), 0j)


def displacement(b0: float, *, bandwidth: float = BANDWIDTH) -> float:
    """Voxels by which fat is seen off its place along the readout: 1.1 at 3 T."""
    return MAIN * GYROMAGNETIC_RATIO * b0 / bandwidth


def shifted(image: Tensor, voxels: float, *, axis: int = READOUT) -> Tensor:
    """Complex `image` `(X, Y, Z)` moved by a fraction of voxels along `axis`, circularly."""
    n = image.shape[axis]
    view = [-1 if a == axis else 1 for a in range(3)]
    ramp = torch.exp(-2j * math.pi * voxels * torch.fft.fftfreq(n)).view(view)
    return torch.fft.ifft(torch.fft.fft(image, dim=axis) * ramp, dim=axis)
