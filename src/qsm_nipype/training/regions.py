"""Training of the deep grey nuclei: localiser of their place, then nnU-Net around them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.errors import UsageError
from qsm_nipype.models.regions import COARSE_LIMIT
from qsm_nipype.models.window import Window
from qsm_nipype.training import nnunet
from qsm_nipype.training import region_data as data
from qsm_nipype.training.dentate_data import Case, cut_slab, read_case, with_dura

LOCALISER = nnunet.Stage(
    903,
    "RegionsPlace",
    {"place of the deep grey nuclei": data.PLACE},
    data.COARSE,
    (48, 56, 48),
    (8, 16, 32),
    mirrored=True,
)
NUCLEI = nnunet.Stage(
    904,
    "Regions",
    {name: number for number, name in enumerate(KINDS, start=1)},
    2.0,
    (40, 56, 48),
    (16, 32, 64, 96),
    batch=1,
    normalization="CTNormalization",
    mirrored=True,
)
#: Steps of an epoch, after which nnU-Net validates and writes a checkpoint.
EPOCH = 25
#: Share of the neighbourhoods that a field of view cuts.
CUT = 0.2
#: Where the samples of each neighbourhood begin (mm), for a network coarser than the voxels.
STARTS = (0.0, 1.0)


def run(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    """Simulate `options.volumes` neighbourhoods and half as many heads, train and export both.

    `options.steps` iterations of the second network, half of them of the first.
    """
    if options.volumes < 2 * options.held_out:
        raise UsageError("--volumes must be at least twice --held-out; give more volumes")
    atlas = options.atlas
    if atlas is None:
        print("without --atlas the shapes are formulas and, if installed, AAL's", flush=True)
    common = {"seed": options.seed, "atlas": atlas, "workers": options.workers}
    heads = data.make_cache(cache, "head", max(2, options.volumes // 2), **common)
    coarse = coarse_cases([read_case(path) for path in heads], options.seed)
    held_out = min(options.held_out, len(heads) // 2) * (1 + data.SLABS)
    _train(LOCALISER, coarse, options, device, held_out, max(1, options.steps // 2))
    paths = data.make_cache(cache, "neighbourhood", options.volumes, **common)
    near = near_cases([read_case(path) for path in paths], options.seed)
    samples = [sampled(case, start) for case in near for start in STARTS]
    _train(NUCLEI, samples, options, device, options.held_out * len(STARTS), options.steps)


def coarse_cases(heads: Sequence[Case], seed: int) -> list[Case]:
    """Whole heads, two in three with dura, each followed by a slab that is cut from it.

    As `locate` shows them to the network: cut off at its limit.
    """
    cases = []
    for number, whole in enumerate(heads):
        rng = np.random.default_rng([seed, number, 3])
        if number % 3:
            whole = with_dura(whole, rng)
        cases += [whole, *(cut_slab(whole, rng, place=data.PLACE) for _ in range(data.SLABS))]
    return [
        Case(case.chi.clip(-COARSE_LIMIT, COARSE_LIMIT), case.labels, case.voxel_size)
        for case in cases
    ]


def near_cases(cases: Sequence[Case], seed: int) -> list[Case]:
    """Neighbourhoods, some of them cut below or above as a field of view does."""
    found = []
    for number, case in enumerate(cases):
        rng = np.random.default_rng([seed, number, 5])
        if rng.random() < CUT:
            height = case.chi.shape[2]
            kept = np.zeros(height, dtype=bool)
            if rng.random() < 0.6:
                kept[round(height * rng.uniform(0.1, 0.45)) :] = True
            else:
                kept[: round(height * rng.uniform(0.55, 0.9))] = True
            chi, labels = case.chi * kept, case.labels * kept
            case = Case(chi.astype(np.float32), labels.astype(np.uint8), case.voxel_size)
        found.append(case)
    return found


def sampled(case: Case, start: float) -> Case:
    """A neighbourhood as the second network reads it, its samples moved by `start` mm.

    A sample has the label with the largest share around it.
    """
    shape = np.array(case.chi.shape)
    window = Window.around(
        (shape - 1) / 2 + start / case.voxel_size,
        shape * case.voxel_size,
        [NUCLEI.spacing] * 3,
        [case.voxel_size] * 3,
        case.chi.shape,
    )
    shares = [
        window.sample((case.labels == kind).astype(np.float32))
        for kind in range(1, len(KINDS) + 1)
    ]
    shares.insert(0, 1 - np.sum(shares, axis=0))
    labels = np.argmax(shares, axis=0).astype(np.uint8)
    return Case(window.sample(case.chi), labels, NUCLEI.spacing)


def _train(
    stage: nnunet.Stage,
    cases: Sequence[Case],
    options: argparse.Namespace,
    device: torch.device,
    held_out: int,
    steps: int,
) -> Path:
    root, iterations = options.out / "nnunet", min(EPOCH, steps)
    nnunet.prepare(stage, [(c.chi, c.labels) for c in cases], root)
    epochs = max(1, steps // iterations)
    final = nnunet.train(
        stage,
        root,
        epochs=epochs,
        iterations=iterations,
        held_out=held_out,
        device=device,
        seed=options.seed,
    )
    count = len(cases) - held_out
    about = f"{epochs * iterations} iterations on {count} simulated cases, seed {options.seed}"
    path = nnunet.export(stage, root, final, options.out / f"{stage.name.lower()}.zip", about)
    print(f"{path}: {about}", flush=True)
    return path
