"""What a finished training of QSMGAN or QSMmask-net leaves: weights that say what they are."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from qsm_nipype.models.weights import save
from qsm_nipype.training.loop import Plan


def plan_of(options: argparse.Namespace, steps: int, rate: float) -> Plan:
    """The plan that the command line asks for."""
    return Plan(
        steps=steps,
        learning_rate=rate,
        warm_up=min(50, max(1, steps // 10)),
        average=options.average,
        validate_every=options.validate_every,
        seed=options.seed,
        workers=options.workers,
    )


def finish(options: argparse.Namespace, best: Path, stage: str, **more: str) -> None:
    """Write the `best` weights as safetensors, with what a model card must say."""
    path = options.out / f"{options.network}.safetensors"
    about = {
        "network": options.network,
        "stage": stage,
        "steps": str(options.steps),
        "refine_steps": str(options.refine_steps) if stage == "wgan" else "0",
        "seed": str(options.seed),
        "data": "simulated only",
        **more,
    }
    checksum = save(path, torch.load(best, weights_only=True, map_location="cpu"), about)
    print(f"{path}: SHA-256 {checksum}", flush=True)
