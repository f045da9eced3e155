"""Training of the dentate segmentation: localiser of the cerebellum, then nnU-Net on the crop."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.models.training import dentate_data as data
from qsm_nipype.models.training import nnunet

LOCALISER = nnunet.Stage(
    901, "Cerebellum", {"cerebellum": 1}, data.COARSE, (48, 56, 48), (8, 16, 32, 64)
)
NUCLEI = nnunet.Stage(
    902, "Dentate", {"left": data.LEFT, "right": data.RIGHT}, 1.0, (40, 48, 72), (8, 16, 32, 64)
)
#: Share of the iterations that the localiser gets; it is the easier half.
LOCALISER_SHARE = 0.25


def run(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    """Simulate `options.volumes` neighbourhoods and half as many heads, train both, export both.

    `options.steps` iterations of the nuclei's network, in epochs of 25.
    """
    if options.volumes < 2 * options.held_out:
        raise UsageError("--volumes must be at least twice --held-out; give more volumes")
    stages = (
        (LOCALISER, "head", options.volumes // 2, LOCALISER_SHARE),
        (NUCLEI, "neighbourhood", options.volumes, 1.0),
    )
    for stage, kind, count, share in stages:
        paths = data.make_cache(cache, kind, count, seed=options.seed)
        cases = [data.read_case(path) for path in paths]
        root = options.out / "nnunet"
        nnunet.prepare(stage, [(c.chi, c.labels) for c in cases], root)
        steps = max(1, round(share * options.steps))
        iterations = min(25, steps)
        final = nnunet.train(
            stage,
            root,
            epochs=max(1, steps // iterations),
            iterations=iterations,
            held_out=max(1, round(options.held_out * count / options.volumes)),
            device=device,
            seed=options.seed,
        )
        about = f"{steps} iterations on {count} simulated cases, seed {options.seed}"
        path = nnunet.export(stage, root, final, options.out / f"{stage.name.lower()}.zip", about)
        print(f"{path}: {about}", flush=True)
