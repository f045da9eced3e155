"""Training of the dentate segmentation: localiser of the cerebellum, then nnU-Net on the crop."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.models.dentate import COARSE_LIMIT
from qsm_nipype.training import dentate_data as data
from qsm_nipype.training import nnunet

LOCALISER = nnunet.Stage(
    901,
    "Cerebellum",
    {"cerebellum": data.CEREBELLUM, "place of the dentate nuclei": data.NUCLEI_PLACE},
    data.COARSE,
    (48, 56, 48),
    (8, 16, 32, 64),
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
#: Steps of an epoch, after which nnU-Net validates and writes a checkpoint.
EPOCH = 25


def run(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    """Simulate `options.volumes` coarse heads and as many neighbourhoods, train and export both.

    `options.steps` iterations of each network, in epochs of `EPOCH`.
    """
    if options.volumes < 2 * options.held_out:
        raise UsageError("--volumes must be at least twice --held-out; give more volumes")
    if options.steps > EPOCH and options.steps % EPOCH:
        raise UsageError(f"--steps must be a multiple of {EPOCH}, the steps of an epoch")
    coarse = coarse_cases(cache, options.volumes, options.seed, options.workers)
    _train(LOCALISER, coarse, options, device, held_out=options.held_out * (1 + data.SLABS))
    paths = data.make_cache(
        cache, "neighbourhood", options.volumes, seed=options.seed, workers=options.workers
    )
    near = [data.read_case(path) for path in paths]
    _train(NUCLEI, near, options, device, held_out=options.held_out)


def coarse_cases(cache: Path, count: int, seed: int, workers: int = 0) -> list[data.Case]:
    """`count` whole heads, two in three with dura, each followed by slabs that are cut from it.

    As `locate` shows them to the network: cut off at its limit.
    """
    cases = []
    paths = data.make_cache(cache, "head", count, seed=seed, workers=workers)
    for number, path in enumerate(paths):
        whole, rng = data.read_case(path), np.random.default_rng([seed, number, 3])
        if number % 3:
            whole = data.with_dura(whole, rng)
        cases += [whole, *(data.cut_slab(whole, rng) for _ in range(data.SLABS))]
    return [replace(case, chi=case.chi.clip(-COARSE_LIMIT, COARSE_LIMIT)) for case in cases]


def _train(
    stage: nnunet.Stage,
    cases: Sequence[data.Case],
    options: argparse.Namespace,
    device: torch.device,
    *,
    held_out: int,
) -> Path:
    root, iterations = options.out / "nnunet", min(EPOCH, options.steps)
    nnunet.prepare(stage, [(c.chi, c.labels) for c in cases], root)
    final = nnunet.train(
        stage,
        root,
        epochs=options.steps // iterations,
        iterations=iterations,
        held_out=held_out,
        device=device,
        seed=options.seed,
    )
    count = len(cases) - held_out
    about = f"{options.steps} iterations on {count} simulated cases, seed {options.seed}"
    path = nnunet.export(stage, root, final, options.out / f"{stage.name.lower()}.zip", about)
    print(f"{path}: {about}", flush=True)
    return path
