"""The public brain extraction deepbet, an optional extra (`pip install qsm-nipype[deepbet]`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.errors import UsageError
from qsm_nipype.models.mask import clean_mask


def deepbet_mask(
    magnitude: Tensor, voxel_size: Sequence[float], *, threshold: float = 0.5
) -> Tensor:
    """Brain mask (bool) of `magnitude` `(X, Y, Z)`, RAS+, by deepbet [Fisch2024]_.

    Its networks know T1-weighted images and any voxel size; they come with its package. Raises
    UsageError where the package is not installed.
    """
    try:
        from deepbet import BrainExtraction
    except ImportError as exc:
        raise UsageError("deepbet is not installed; pip install 'qsm-nipype[deepbet]'") from exc
    found = BrainExtraction(no_gpu=magnitude.device.type == "cpu").run_model(
        magnitude.cpu().numpy().astype(np.float32)
    )
    return clean_mask(torch.from_numpy(found).to(magnitude.device) > threshold)
