"""Losses of the training commands, each a pure function of tensors giving a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def weighted_l1(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference, weighted voxel by voxel."""
    return ((output - target).abs() * weight).sum() / weight.sum().clamp_min(1e-6)


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """1 − Dice of sigmoid(`logits`) and `target` `(B, 1, X, Y, Z)`, the mean over the batch."""
    p, t = torch.sigmoid(logits).flatten(1), target.flatten(1)
    overlap = 2 * (p * t).sum(1) + smooth
    return (1 - overlap / (p.sum(1) + t.sum(1) + smooth)).mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein critic: high scores on real patches, low on generated ones [Arjovsky2017]_."""
    return fake.mean() - real.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """Mean (‖∇critic‖ − 1)² between real and fake [Gulrajani2017]_; `mix` `(B,)` in [0, 1]."""
    share = mix.view(-1, *[1] * (real.ndim - 1))
    between = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
