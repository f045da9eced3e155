"""`qsm-nipype evaluate NETWORK …`: how well a trained network does."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from qsm_nipype.errors import UsageError

#: network → function that takes the rest of the command line
NETWORKS = {"rim": "qsm_nipype.models.training.rim_command:evaluate"}


def main(argv: Sequence[str]) -> int:
    """Run the evaluation of the network named first; returns its exit code. Raises UsageError."""
    name = argv[0] if argv else ""
    if name not in NETWORKS:
        raise UsageError(
            f"qsm-nipype evaluate: name a network first ({', '.join(NETWORKS)}), then its folder"
        )
    module, function = NETWORKS[name].split(":")
    return int(getattr(importlib.import_module(module), function)(argv[1:]))
