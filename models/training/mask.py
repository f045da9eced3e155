"""Training of QSMmask-net: simulated whole-head magnitudes, a new one at every step [Lee2025]_.

Beyond the paper: coarse voxels of varying size, so that a patch holds nearly the whole head;
Dice and cross-entropy against the coverage of the voxel by brain; averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.models.mask import NETWORK_VOXEL, MaskNet
from qsm_nipype.models.training import losses
from qsm_nipype.models.training.heads import Anatomy
from qsm_nipype.models.training.loop import Average, Plan, to_device
from qsm_nipype.models.training.qsmgan import descend, set_rate
from qsm_nipype.models.training.synthesis import example

#: Until which share of the steps: patches and voxel sizes (mm), drawn anew at every step.
STAGES = (
    (0.8, ((48, 64, 48),), (2.6, 4.2)),
    (1.0, ((64, 80, 64),), (2.2, 3.4)),
)
#: Shape of the patches in validation.
CHECK = (80, 96, 80)


class MaskTask:
    """Dice and cross-entropy with Adam, one random image of one random head a step."""

    def __init__(
        self,
        train: Sequence[Path],
        held_out: Sequence[Path],
        plan: Plan,
        device: torch.device,
        *,
        check: Sequence[int] | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.device, self.train, self.plan = device, list(train), plan
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
            example(rng, Anatomy.load(path), check or CHECK, voxel=NETWORK_VOXEL)
            for path in held_out
        ]

    def step(self, step: int, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """One update on a fresh image."""
        anatomy = Anatomy.load(self.train[int(rng.integers(len(self.train)))])
        patches, voxels = next(rest for end, *rest in STAGES if step < end * self.plan.steps)
        patch = patches[int(rng.integers(len(patches)))]
        pair = example(rng, anatomy, patch, voxel=float(rng.uniform(*voxels)))
        image, truth = to_device(self.device, *pair)
        set_rate(self.optimizer, rate)
        self.network.train()
        loss = mask_loss(self._logits(self.network, image), truth[None, None])
        descend(self.optimizer, self.network, loss)
        return {"loss": loss.item(), "rate": rate}

    @torch.no_grad()
    def validate(self) -> float:
        """1 − mean Dice of the thresholded masks of held-out heads."""
        errors = []
        for image, coverage in self.checks:
            found = self._logits(self.average.network, image.to(self.device))[0, 0].cpu() > 0
            truth = coverage > 0.5
            errors.append(1 - 2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
        return float(np.mean(errors))

    def _logits(self, network: torch.nn.Module, image: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            return network(image[None, None]).float()


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
