"""QSMmask-net: brain mask of the whole-head gradient-echo magnitude [Lee2025]_.

The five-level U-Net of the paper, MONAI's `BasicUNet` layout with MONAI's parameter names
(5,700,465 parameters), so that the published weights load without MONAI.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from qsm_nipype.models.inference import sliding_window
from qsm_nipype.models.resize import resize
from qsm_nipype.models.untrusted import stated_number
from qsm_nipype.models.weights import Weights, fill

#: Share of the volume that one window covers, along x, y, z.
WINDOW = (0.7, 0.7, 0.5)
OVERLAP = 0.5
#: Edge of the voxels, mm, on which weights trained here work.
NETWORK_VOXEL = 2.0
#: Window there, voxels, as in training; and the share of voxels that are clipped.
NETWORK_WINDOW = (80, 96, 80)
BRIGHTEST = 0.0005
STRIDE = 16
#: mm³ that no healthy brain exceeds: a larger mask is of a head that hangs upside down.
LARGEST_BRAIN = 1.9e6
FEATURES = (16, 32, 64, 128, 256, 32)


class _Normalised(nn.Sequential):
    """Instance normalisation and LeakyReLU 0.1, under the names N and A."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("N", nn.InstanceNorm3d(channels, affine=True))
        self.add_module("A", nn.LeakyReLU(0.1, inplace=True))


class _Convolution(nn.Sequential):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv3d(n, m, 3, padding=1))
        self.add_module("adn", _Normalised(m))


class _TwoConvolutions(nn.Sequential):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.add_module("conv_0", _Convolution(n, m))
        self.add_module("conv_1", _Convolution(m, m))


class _Down(nn.Sequential):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.add_module("max_pooling", nn.MaxPool3d(2))
        self.add_module("convs", _TwoConvolutions(n, m))


class _Rise(nn.Sequential):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.add_module("deconv", nn.ConvTranspose3d(n, m, 2, stride=2))


class _UpAndJoin(nn.Module):
    """Upsample, append the encoder's features, two convolutions."""

    def __init__(self, n: int, risen: int, skip: int, m: int) -> None:
        super().__init__()
        self.upsample = _Rise(n, risen)
        self.convs = _TwoConvolutions(risen + skip, m)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, self.upsample(x)], dim=1))


class MaskNet(nn.Module):
    """`(B, 1, X, Y, Z)` in [0, 1], edges divisible by 16, → logits of the brain, same shape."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e, f = FEATURES
        self.conv_0 = _TwoConvolutions(1, a)
        self.down_1 = _Down(a, b)
        self.down_2 = _Down(b, c)
        self.down_3 = _Down(c, d)
        self.down_4 = _Down(d, e)
        self.upcat_4 = _UpAndJoin(e, e // 2, d, d)
        self.upcat_3 = _UpAndJoin(d, d // 2, c, c)
        self.upcat_2 = _UpAndJoin(c, c // 2, b, b)
        self.upcat_1 = _UpAndJoin(b, b, a, f)
        self.final_conv = nn.Conv3d(f, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.conv_0(x)
        x1 = self.down_1(x0)
        x2 = self.down_2(x1)
        x3 = self.down_3(x2)
        u = self.upcat_4(self.down_4(x3), x3)
        u = self.upcat_3(u, x2)
        u = self.upcat_2(u, x1)
        return self.final_conv(self.upcat_1(u, x0))


def scale_magnitude(magnitude: Tensor) -> Tensor:
    """Minimum-maximum scaling to [0, 1]; a constant image becomes zero."""
    low, high = magnitude.min(), magnitude.max()
    return (magnitude - low) / (high - low).clamp_min(1e-12)


def segment(
    magnitude: Tensor,
    voxel_size: Sequence[float],
    network: nn.Module,
    network_voxel: float | None = None,
    *,
    threshold: float = 0.5,
) -> Tensor:
    """Brain mask (bool) of a whole-head `magnitude` `(X, Y, Z)` in any unit, RAS+.

    A head may lie tilted by 45°, and be seen in a mirror; upside down it gives a mask that is too
    large for a brain, so then the image is turned about and the smaller mask taken.
    With `network_voxel` (mm) the image is brought to voxels of that edge, its brightest voxels
    (0.05 %) are clipped, and the logits of windows as large as in training come back by linear
    interpolation. Without, the network
    sees the image as it is, in a sliding window of (0.7, 0.7, 0.5) of the volume with half
    overlap, as published. Then sigmoid, threshold, holes filled, largest component.
    """

    def found(image: Tensor) -> Tensor:
        logits = _logits(image, voxel_size, network, network_voxel)
        return clean_mask(functional.sigmoid(logits) > threshold)

    mask = found(magnitude)
    if float(mask.sum()) * math.prod(float(v) for v in voxel_size) > LARGEST_BRAIN:
        other = found(magnitude.flip(2)).flip(2)
        mask = other if other.any() and other.sum() < mask.sum() else mask
    return mask


def _logits(
    magnitude: Tensor,
    voxel_size: Sequence[float],
    network: nn.Module,
    network_voxel: float | None,
) -> Tensor:
    """The network's answer on the voxels of `magnitude`."""
    if network_voxel is None:
        window = [_rounded(w * n) for w, n in zip(WINDOW, magnitude.shape, strict=True)]
        return _windows(scale_magnitude(magnitude), network, window)
    extent = [n * v for n, v in zip(magnitude.shape, voxel_size, strict=True)]
    image = resize(magnitude, [max(1, round(mm / network_voxel)) for mm in extent])
    brightest = max(1, round(BRIGHTEST * image.numel()))
    limit = image.flatten().topk(brightest).values[-1]
    edges = zip(NETWORK_WINDOW, image.shape, strict=True)
    window = [min(w, STRIDE * max(2, -(-n // STRIDE))) for w, n in edges]
    logits = _windows(scale_magnitude(image.clamp_max(limit)), network, window)
    return resize(logits, magnitude.shape)


def _windows(image: Tensor, network: nn.Module, window: Sequence[int]) -> Tensor:
    overlap = [int(OVERLAP * w) for w in window]
    return sliding_window(image, network, patch=window, overlap=overlap)


def load_network(weights: Weights) -> tuple[nn.Module, float | None]:
    """The network with `weights`, and the voxel (mm) that they were trained on, if they say."""
    said = weights.about.get("voxel_size")
    edge = stated_number(weights.about, "voxel_size", 1.0, weights.path) if said else None
    return fill(MaskNet(), weights), edge


def clean_mask(mask: Tensor) -> Tensor:
    """The largest face-connected component of `mask`, with its holes filled."""
    labels, count = ndimage.label(mask.cpu().numpy())
    if count == 0:
        return mask
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled = ndimage.binary_fill_holes(labels == largest)
    return torch.from_numpy(np.asarray(filled)).to(mask.device)


def _rounded(edge: float) -> int:
    """The nearest multiple of the network's stride, at least one."""
    return max(STRIDE, STRIDE * round(edge / STRIDE))
