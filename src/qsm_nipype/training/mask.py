"""Training of QSMmask-net: simulated whole-head magnitudes, a new one at every step [Lee2025]_.

Beyond the paper: coarse voxels of varying size, so that a patch holds most of the head; Dice and
cross-entropy against the coverage of the voxel by brain; averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.models.mask import NETWORK_VOXEL, NETWORK_WINDOW, MaskNet
from qsm_nipype.training import losses
from qsm_nipype.training.heads import Anatomy
from qsm_nipype.training.loop import Average, Plan, to_device
from qsm_nipype.training.qsmgan import set_rate, take_step
from qsm_nipype.training.synthesis import example

#: Smallest and largest voxel of a training image, mm.
VOXELS = (1.7, 2.6)


class MaskTask:
    """Dice and cross-entropy with Adam, `batch` random images of random heads a step."""

    def __init__(
        self,
        train: Sequence[Path],
        held_out: Sequence[Path],
        plan: Plan,
        device: torch.device,
        *,
        batch: int = 1,
        patch: Sequence[int] = NETWORK_WINDOW,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.device, self.train = device, list(train)
        self.count, self.patch = batch, tuple(patch)
        self.half = has_bfloat16(device)
        self.network = MaskNet().to(device)
        self.average = Average(self.network, plan.average)
        self.optimizer = torch.optim.Adam(self.network.parameters(), plan.learning_rate)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
        }
        rng = np.random.default_rng([plan.seed, 1 << 30])
        self.checks = [
            example(rng, Anatomy.load(path), patch, voxel=NETWORK_VOXEL) for path in held_out
        ]

    def draw(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Fresh images and their coverage by brain, `(batch, 1, X, Y, Z)`."""
        pairs = []
        for _ in range(self.count):
            anatomy = Anatomy.load(self.train[int(rng.integers(len(self.train)))])
            pairs.append(example(rng, anatomy, self.patch, voxel=float(rng.uniform(*VOXELS))))
        images, truths = zip(*pairs, strict=True)
        return torch.stack(images)[:, None], torch.stack(truths)[:, None]

    def step(self, batch: tuple[Tensor, Tensor], rate: float) -> dict[str, float]:
        """One update on fresh images."""
        images, truth = to_device(self.device, *batch)
        set_rate(self.optimizer, rate)
        self.network.train()
        loss = mask_loss(self._logits(self.network, images), truth)
        take_step(self.optimizer, self.network, loss)
        return {"loss": loss.item(), "rate": rate}

    @torch.no_grad()
    def validate(self) -> float:
        """1 − mean Dice of the thresholded masks of held-out heads."""
        errors = []
        for image, coverage in self.checks:
            (image,) = to_device(self.device, image[None, None])
            found = self._logits(self.average.network, image)[0, 0].cpu() > 0
            truth = coverage > 0.5
            errors.append(1 - 2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
        return float(np.mean(errors))

    def _logits(self, network: torch.nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            return network(images).float()


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss plus mean binary cross-entropy."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth)
    return losses.dice_loss(logits, truth) + entropy


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16: three times faster where it does."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
