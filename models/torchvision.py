"""torchvision beside a torch of another build: made importable, since nnU-Net imports it."""

from __future__ import annotations

import sys
from typing import Any

#: Keeps the declared operators alive.
_KEPT: list[Any] = []
_MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def make_importable() -> None:
    """Import torchvision, declaring operators whose compiled code cannot be loaded.

    PyPI's torchvision beside a CPU-only torch fails with "operator torchvision::nms does not
    exist". nnU-Net imports it by way of timm and uses none of those operators.
    """
    import torch

    try:
        import torchvision
    except RuntimeError as exc:
        if "torchvision::nms" not in str(exc):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _MISSING:
            library.define(operator)
        _KEPT.append(library)
        import torchvision  # noqa: F401
