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
    902,
    "Dentate",
    {"left": data.LEFT, "right": data.RIGHT},
    1.0,
    (40, 48, 72),
    (8, 16, 32, 64),
    normalization="CTNormalization",
)


def run(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    """Simulate `options.volumes` coarse heads and as many neighbourhoods, train and export both.

    `options.steps` iterations of each network, in epochs of 25.
    """
    if options.volumes < 2 * options.held_out:
        raise UsageError("--volumes must be at least twice --held-out; give more volumes")
    for stage, kind in ((LOCALISER, "head"), (NUCLEI, "neighbourhood")):
        paths = data.make_cache(cache, kind, options.volumes, seed=options.seed)
        cases = [data.read_case(path) for path in paths]
        root = options.out / "nnunet"
        nnunet.prepare(stage, [(c.chi, c.labels) for c in cases], root)
        iterations = min(25, options.steps)
        final = nnunet.train(
            stage,
            root,
            epochs=options.steps // iterations,
            iterations=iterations,
            held_out=options.held_out,
            device=device,
            seed=options.seed,
        )
        count = options.volumes - options.held_out
        about = f"{options.steps} iterations on {count} simulated cases, seed {options.seed}"
        path = nnunet.export(stage, root, final, options.out / f"{stage.name.lower()}.zip", about)
        print(f"{path}: {about}", flush=True)
