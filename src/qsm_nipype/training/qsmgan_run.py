"""`qsm-nipype train qsmgan`: volumes or pairs, the U-Net, its refinement, weights and a table."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.models.qsmgan import load_network
from qsm_nipype.models.registry import read_weights
from qsm_nipype.models.weights import Weights, read
from qsm_nipype.simulation.colin import TEMPLATES, brain_and_regions
from qsm_nipype.training import own_pairs, qsmgan, qsmgan_data
from qsm_nipype.training.loop import Task, run
from qsm_nipype.training.qsmgan_evaluation import write_table
from qsm_nipype.training.weight_files import finish, plan_of

#: What the network may be given: the published form, and ours.
INPUTS = ("field", "field,first-guesses")
#: Noise (ppm) at which the simulated held-out volumes are judged.
NOISES = (0.0005, 0.002, 0.005)


def train(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    """Do what the command line asks for. Raises UsageError, DataError, WeightsError."""
    if options.inputs not in INPUTS:
        raise UsageError(f"--inputs {options.inputs}: choose from {' and '.join(INPUTS)}")
    guesses = options.inputs != INPUTS[0]
    start = _start(options.start, 3 if guesses else 1)
    if options.data is None:
        paths, kept = _simulated(options, cache, guesses)
        about: dict[str, str] = {}
    else:
        paths, kept, about = _own(options, cache, guesses)
    about |= {"inputs": options.inputs}
    if start is not None:
        about["start"] = Path(start.path).name
    learned = qsmgan_data.Patches.load(paths)
    held_out = qsmgan_data.Patches.load(kept)
    plan = plan_of(options, options.steps, options.learning_rate)
    begin = None if start is None else start.tensors
    task: Task = qsmgan.UNetTask(learned, held_out, plan, device, start=begin)
    best = run(task, options.out / "unet", plan)
    finish(options, best, "unet", **about)
    if options.refine_steps:
        plan = plan_of(options, options.refine_steps, options.refine_rate)
        found = torch.load(best, weights_only=True, map_location="cpu")
        task = qsmgan.AdversarialTask(learned, held_out, plan, device, start=found)
        best = run(task, options.out / "wgan", plan)
        finish(options, best, "wgan", **about)
    generator = load_network(read(options.out / "qsmgan.safetensors"))
    noises = NOISES if options.data is None else (None,)
    write_table(options.out / "evaluation.csv", generator, held_out.volumes, noises=noises)


def _simulated(
    options: argparse.Namespace, cache: Path, guesses: bool
) -> tuple[list[Path], list[Path]]:
    """Simulated volumes to train on, and those held out."""
    anatomy = brain_and_regions(options.anatomy or TEMPLATES)
    if anatomy is None:
        print("mricron-data is not installed: training without the Colin27 brain", flush=True)
    paths = qsmgan_data.make_cache(
        cache,
        options.volumes,
        seed=options.seed,
        edge=options.edge,
        held_out=options.held_out,
        anatomy=anatomy,
        guesses=guesses,
        workers=options.workers,
    )
    return paths[options.held_out :], paths[: options.held_out]


def _own(
    options: argparse.Namespace, cache: Path, guesses: bool
) -> tuple[list[Path], list[Path], dict[str, str]]:
    """The user's pairs to train on, those held out, and what to say of them."""
    pairs = own_pairs.find_pairs(options.data)
    learn, keep = own_pairs.split(pairs, options.held_out)
    paths = own_pairs.make_cache(cache, pairs, guesses=guesses, workers=options.workers)
    people = len({pairs[n].participant for n in learn})
    said = f"own pairs: {len(learn)}, participants: {people}"
    print(f"training on {said}; {len(keep)} pairs are held out", flush=True)
    return [paths[n] for n in learn], [paths[n] for n in keep], {"data": said}


def _start(name: str | None, inputs: int) -> Weights | None:
    """The weights to start from: "shipped", a file, or None. Raises WeightsError, UsageError."""
    if name is None:
        return None
    weights = read_weights("qsmgan", None if name == "shipped" else name)
    found = load_network(weights).network.inputs
    if found != inputs:
        raise UsageError(
            f"--start {name}: this network has {found} input channels, and --inputs asks for "
            f"{inputs}; give {INPUTS[found > 1]} to --inputs, or other weights"
        )
    return weights
