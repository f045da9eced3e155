"""`qsm-nipype train NETWORK OUT`: simulate, train or go on training, write the weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.system import memory
from qsm_nipype.system.arguments import Parser
from qsm_nipype.training.loop import run

DESCRIPTION = """\
For the rim network of MS lesions see: qsm-nipype train rim --help.

Train a network on simulated data. The volumes are simulated into the cache folder first (those
already there are kept); an interrupted training goes on from OUT's last checkpoint when the same
command is given again. qsmgan and mask: OUT/NETWORK.safetensors holds the averaged weights of the
best validation, OUT/evaluation.csv the errors of the QSMGAN and of direct inversion on the
held-out volumes; --data trains on your own pairs of local field and χ (docs/networks.md), whole
participants of which are held out. dentate: two nnU-Nets, OUT/cerebellum.zip and OUT/dentate.zip.
regions: two of the deep grey nuclei, OUT/regionsplace.zip and OUT/regions.zip; --atlas names the
folder of the CIT168 subcortical atlas (Pauli 2018, CC BY 4.0), whose shapes are used beside ours.
"""
#: Options that only some networks have: which, and what they are where they are not given.
_OWN: dict[str, tuple[tuple[str, ...], Any]] = {
    "edge": (("qsmgan",), 112),
    "anatomy": (("qsmgan", "mask"), None),
    "learning_rate": (("qsmgan", "mask"), 1e-3),
    "refine_steps": (("qsmgan",), 0),
    "refine_rate": (("qsmgan",), 1e-4),
    "inputs": (("qsmgan",), "field,first-guesses"),
    "data": (("qsmgan",), None),
    "start": (("qsmgan",), None),
    "average": (("qsmgan", "mask"), 0.998),
    "validate_every": (("qsmgan", "mask"), 100),
    "batch": (("mask",), 1),
    "atlas": (("regions",), None),
}


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises UsageError or DataError in one sentence."""
    if argv and argv[0] == "rim":
        from qsm_nipype.training import rim_command

        return rim_command.main(argv[1:])
    options = _parser().parse_args(argv)
    _take_own(options)
    if options.steps < 1 or options.volumes <= options.held_out or options.held_out < 1:
        raise UsageError("--steps must be at least 1 and --volumes larger than --held-out ≥ 1")
    if min(options.validate_every, options.batch) < 1 or min(options.workers, options.seed) < 0:
        raise UsageError(
            "--validate-every and --batch must be at least 1, --workers and --seed not negative"
        )
    if options.use_gpu and not torch.cuda.is_available():
        raise UsageError("--use-gpu: PyTorch sees no CUDA device; leave the option out")
    memory.keep_freed()
    torch.set_num_threads(max(1, options.threads))
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if options.use_gpu else "cpu")
    train = {
        "mask": _train_mask,
        "qsmgan": _train_qsmgan,
        "dentate": _train_dentate,
        "regions": _train_regions,
    }
    train[options.network](options, options.cache or options.out / "cache", device)
    return 0


def _take_own(options: argparse.Namespace) -> None:
    """Fill in the options of this network alone. Raises UsageError for those of another."""
    for name, (networks, default) in _OWN.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif options.network not in networks:
            raise UsageError(
                f"--{name.replace('_', '-')} is an option of {' and '.join(networks)}, not of "
                f"{options.network}; leave it out"
            )


def _train_qsmgan(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    from qsm_nipype.training import qsmgan_run

    qsmgan_run.train(options, cache, device)


def _train_mask(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    from qsm_nipype.models.mask import NETWORK_VOXEL
    from qsm_nipype.simulation.colin import TEMPLATES
    from qsm_nipype.training import heads, mask
    from qsm_nipype.training.weight_files import finish, plan_of

    templates = options.anatomy or TEMPLATES
    if options.anatomy is None and not (templates / "ch2.nii.gz").is_file():
        print("mricron-data is not installed: training without the Colin27 head", flush=True)
        templates = None
    paths = heads.make_cache(
        cache,
        options.volumes,
        seed=options.seed,
        templates=templates,
        workers=options.workers,
    )
    plan = plan_of(options, options.steps, options.learning_rate)
    task = mask.MaskTask(
        paths[options.held_out :],
        paths[: options.held_out],
        plan,
        device,
        batch=options.batch,
    )
    best = run(task, options.out / "mask", plan)
    finish(options, best, "mask", voxel_size=str(NETWORK_VOXEL))


def _train_dentate(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    from qsm_nipype.training import dentate

    dentate.run(options, cache, device)


def _train_regions(options: argparse.Namespace, cache: Path, device: torch.device) -> None:
    from qsm_nipype.training import regions

    regions.run(options, cache, device)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="qsm-nipype train", description=DESCRIPTION)
    parser.add_argument("network", choices=["qsmgan", "mask", "dentate", "regions"])
    parser.add_argument("out", type=Path, help="folder for checkpoints, logs and weights")
    parser.add_argument("--cache", type=Path, help="folder of simulated volumes (OUT/cache)")
    parser.add_argument("--volumes", type=int, default=64, help="how many to simulate (64)")
    parser.add_argument("--held-out", type=int, default=8, help="of them for validation (8)")
    parser.add_argument("--steps", type=int, default=20000, help="of each network (20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--workers", type=int, default=0, help="processes that simulate (0)")
    parser.add_argument("--use-gpu", action="store_true", help="train on the CUDA device")

    def own(name: str, kind: type, text: str) -> None:
        networks, default = _OWN[name]
        known = f" ({default})" if default is not None else ""
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, help=f"{', '.join(networks)}: {text}{known}")

    own("edge", int, "edge of a volume, voxels")
    own("anatomy", Path, "folder of the images ch2, ch2bet and aal")
    own("atlas", Path, "folder of the CIT168 atlas")
    own("batch", int, "images in a step")
    own("learning_rate", float, "its peak")
    own("average", float, "decay of the mean weights")
    own("validate_every", int, "steps between validations")
    own("refine_steps", int, "steps of WGAN-GP after the U-Net")
    own("refine_rate", float, "their peak rate")
    own("inputs", str, "field, the published form; or field,first-guesses")
    own("data", Path, "folder of your own pairs of local field and Chimap, instead of simulation")
    own("start", str, 'weights to start from: "shipped" or a file')
    return parser
