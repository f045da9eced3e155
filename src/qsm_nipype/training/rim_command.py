"""`qsm-nipype train rim OUT` and `qsm-nipype evaluate rim OUT`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.models import radiomics
from qsm_nipype.system import memory
from qsm_nipype.system.arguments import Parser
from qsm_nipype.training import rim_scores as scores
from qsm_nipype.training.cache import write
from qsm_nipype.training.loop import Plan, run
from qsm_nipype.training.rim import (
    VARIANTS,
    Fold,
    Lesions,
    RimTask,
    Variant,
    assign_folds,
    best_steps,
    inner_split,
    threshold_of,
)

DESCRIPTION = """\
Train QSMRim-Net: simulate a cohort into the cache (or take your own), cross-validate over
patients, then train on all of them. An interrupted training goes on when the same command is
given again. OUT/VARIANT/predictions.csv holds the probability of every lesion by the network that
did not see its patient; OUT/rim.safetensors the network of all patients. Your own cohort: a
qsm-nipype output folder made with -d lesions=PATH, and one reader's tables with the columns
acquisition, index and rim (0 or 1), as the pages of lesions save them.
"""
_COLUMNS = "patient,lesion,rim,probability,threshold,baseline,fold"


def main(argv: Sequence[str]) -> int:
    """`qsm-nipype train rim`; returns 0. Raises UsageError or DataError in one sentence."""
    options = _parser().parse_args(argv)
    radiomics.require()
    if options.steps < 1 or options.folds < 2:
        raise UsageError("--steps must be at least 1 and --folds at least 2")
    if options.use_gpu and not torch.cuda.is_available():
        raise UsageError("--use-gpu: PyTorch sees no CUDA device; leave the option out")
    if options.supplement is None:
        options.supplement = 0 if options.derivatives else 150
    memory.keep_freed()
    torch.set_num_threads(max(1, options.threads))
    options.out.mkdir(parents=True, exist_ok=True)
    lesions = Lesions.load(_cohort(options), None if options.derivatives else options.patients)
    _say("cohort", lesions)
    tested = lesions.labels.size
    if options.supplement:
        more = Lesions.load(_supplement(options), options.supplement)
        _say("supplement", more)
        lesions = lesions.join(more)
    for name in options.variants:
        cross_validate(options, lesions, tested, VARIANTS[name])
    print(table(options.out), flush=True)
    if "full" in options.variants and not options.no_final:
        finish(options, lesions)
    return 0


def _say(title: str, lesions: Lesions) -> None:
    count, rims = lesions.labels.size, int(lesions.labels.sum())
    patients = np.unique(lesions.patients).size
    print(f"{title}: {patients} patients, {count} lesions, {rims} with rim", flush=True)


def _cohort(options: argparse.Namespace) -> Path:
    cache: Path = options.cache or options.out / "cache"
    if options.derivatives:
        from qsm_nipype.training.rim_own_cohort import read_cohort

        if not options.labels:
            raise UsageError("--derivatives needs --labels, the table of which lesions have rims")
        read_cohort(options.derivatives, options.labels, cache)
    else:
        from qsm_nipype.training.rim_cohort import make_cohort

        make_cohort(cache, options.patients, seed=options.seed, workers=options.workers)
    return cache


def _supplement(options: argparse.Namespace) -> Path:
    """Further simulated patients with many rims, for training only."""
    from qsm_nipype.training.rim_cohort import make_cohort

    folder: Path = (options.cache or options.out / "cache") / "supplement"
    make_cohort(
        folder, options.supplement, seed=options.seed + 500, rims=12, workers=options.workers
    )
    return folder


def _plan(options: argparse.Namespace, steps: int) -> Plan:
    return Plan(
        steps=steps,
        learning_rate=options.learning_rate,
        warm_up=min(50, max(1, steps // 10)),
        average=0.99,
        validate_every=max(1, min(options.validate_every, steps)),
        seed=options.seed,
    )


def cross_validate(
    options: argparse.Namespace, lesions: Lesions, tested: int, variant: Variant
) -> None:
    """Train and predict each fold, then write OUT/VARIANT/predictions.csv.

    The first `tested` lesions are the cohort; the others train in every fold.
    """
    folder = options.out / variant.name
    place = assign_folds(
        lesions.patients[:tested], lesions.labels[:tested], options.folds, options.seed
    )
    more = np.arange(tested, lesions.labels.size)
    found = []
    for number in range(options.folds):
        path = folder / f"fold-{number + 1}.npz"
        if not path.exists():
            own, rest = np.flatnonzero(place == number), np.flatnonzero(place != number)
            fold = _one_fold(options, lesions, variant, (rest, own, more), folder / path.stem)
            arrays = {"rows": fold.rows, "scores": fold.scores, "steps": np.array(fold.steps)}
            write(path, {**arrays, "made_with": np.array(_made_with(options, lesions))})
        found.append(_read_fold(path, _made_with(options, lesions)))
    _write_predictions(folder / "predictions.csv", lesions, found)


def _made_with(options: argparse.Namespace, lesions: Lesions) -> str:
    """What decides the result of a fold."""
    names = ("seed", "folds", "steps", "learning_rate", "width")
    known = {name: getattr(options, name) for name in names}
    return json.dumps(known | {"lesions": lesions.labels.size}, sort_keys=True)


def _read_fold(path: Path, made_with: str) -> Fold:
    with np.load(path, allow_pickle=False) as data:
        if str(data["made_with"]) != made_with:
            raise UsageError(
                f"{path} is a fold trained with {data['made_with']}, not {made_with}; "
                "give another OUT"
            )
        return Fold(data["rows"], data["scores"], int(data["steps"]))


def _one_fold(
    options: argparse.Namespace,
    lesions: Lesions,
    variant: Variant,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    folder: Path,
) -> Fold:
    rest, tested, more = rows
    train, held_out = inner_split(lesions, rest, options.seed)
    train = np.concatenate([train, more])
    plan = _plan(options, options.steps)
    task = RimTask(
        lesions, train, held_out, plan, variant, width=options.width, device=_device(options)
    )
    best = run(task, folder, plan, report=lambda text: print(f"{folder.name}: {text}", flush=True))
    task.average.network.load_state_dict(torch.load(best, weights_only=True, map_location="cpu"))
    return Fold(tested, task.predict(tested), best_steps(folder / "log.csv"))


def _device(options: argparse.Namespace) -> torch.device:
    return torch.device("cuda" if options.use_gpu else "cpu")


def _write_predictions(path: Path, lesions: Lesions, folds: Sequence[Fold]) -> None:
    """The threshold of a fold is chosen on the other folds, as the final one is on all of them."""
    lines = [_COLUMNS]
    for number, fold in enumerate(folds, start=1):
        threshold = threshold_of([f for f in folds if f is not fold], lesions.labels)
        for row, score in zip(fold.rows, fold.scores, strict=True):
            lines.append(
                f"{lesions.patients[row]},{row},{int(lesions.labels[row])},{score:.6f},"
                f"{threshold:.6f},{lesions.baseline[row]:.6f},{number}"
            )
    path.write_text("\n".join(lines) + "\n")


def finish(options: argparse.Namespace, lesions: Lesions) -> None:
    """Train on every patient as long as the folds needed, and write the weights."""
    from qsm_nipype.models.weights import save

    known = _made_with(options, lesions)
    folds = [_read_fold(p, known) for p in sorted((options.out / "full").glob("fold-*.npz"))]
    every = np.arange(lesions.labels.size)
    plan = replace(_plan(options, options.steps), validate_every=options.steps)
    task = RimTask(
        lesions,
        every,
        every[:0],
        plan,
        VARIANTS["full"],
        width=options.width,
        device=_device(options),
    )
    best = run(task, options.out / "final", plan)
    network = torch.load(best, weights_only=True, map_location="cpu")
    own = task.classifier()
    tensors = {**network, "features.mean": own.mean, "features.scale": own.scale}
    about = {
        "network": "rim",
        "features": " ".join(lesions.names),
        "threshold": f"{threshold_of(folds, lesions.labels):.4f}",
        "steps": str(options.steps),
        "seed": str(options.seed),
        "data": _data(options),
    }
    path = options.out / "rim.safetensors"
    print(f"{path}: SHA-256 {save(path, tensors, about)}", flush=True)


def _data(options: argparse.Namespace) -> str:
    if not options.derivatives:
        return "simulated only"
    more = f" and {options.supplement} simulated patients" if options.supplement else ""
    return f"the user's cohort{more}"


def evaluate(argv: Sequence[str]) -> int:
    """`qsm-nipype evaluate rim OUT`: print the table and write OUT/evaluation.json; returns 0."""
    parser = Parser(
        prog="qsm-nipype evaluate rim",
        description="How well the cross-validated rim classifiers of OUT do, with 95 % intervals "
        "over patients. OUT is the folder of 'qsm-nipype train rim OUT'.",
    )
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args(argv).out
    print(table(out))
    rows = {name: measures(*columns) for name, columns in _predictions(out).items()}
    (out / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _predictions(out: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Patients, labels, scores and decisions of each variant there, and of the baseline."""
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
    for name in VARIANTS:
        path = out / name / "predictions.csv"
        if not path.exists():
            continue
        data = np.loadtxt(path, delimiter=",", skiprows=1)
        patients, labels, probability = data[:, 0], data[:, 2] > 0, data[:, 3]
        if not found:
            limit = scores.choose_threshold(labels, data[:, 5])
            found["baseline"] = (patients, labels, data[:, 5], data[:, 5] >= limit)
        found[name] = (patients, labels, probability, probability >= data[:, 4])
    if not found:
        raise UsageError(f"{out}: no predictions there; run 'qsm-nipype train rim {out}' first")
    return found


def measures(
    patients: np.ndarray, labels: np.ndarray, score: np.ndarray, positive: np.ndarray
) -> dict[str, float | tuple[float, float]]:
    """The measures of the paper, with intervals over patients for the areas."""

    def partial(y: np.ndarray, s: np.ndarray) -> float:
        return scores.roc_auc(y, s, scores.RATE)

    counts = scores.compare_counts(
        scores.per_patient(patients, labels), scores.per_patient(patients, positive)
    )
    sensitivity, specificity = scores.sensitivity(labels, positive)
    areas = {
        "pROC AUC": partial,
        "PR AUC": scores.average_precision,
        "ROC AUC": scores.roc_auc,
    }
    found: dict[str, float | tuple[float, float]] = {}
    for name, area in areas.items():
        found[name] = area(labels, score)
        found[f"{name} interval"] = scores.bootstrap(patients, labels, score, area)
    return found | {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "count MSE": counts.mse,
        "count correlation": counts.correlation,
        "count correlation interval": (counts.low, counts.high),
    }


def table(out: Path) -> str:
    """The measures of every variant in OUT as a Markdown table."""
    names = ["pROC AUC", "PR AUC", "ROC AUC", "sensitivity", "specificity", "count MSE",
             "count correlation"]  # fmt: skip
    lines = ["| | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for variant, columns in _predictions(out).items():
        found = measures(*columns)
        cells = []
        for name in names:
            text = f"{found[name]:.3f}"
            if f"{name} interval" in found:
                low, high = found[f"{name} interval"]  # type: ignore[misc]
                text += f" ({low:.2f}–{high:.2f})"
            cells.append(text)
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype train rim",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("out", type=Path, help="folder for checkpoints, predictions and weights")
    add("--cache", type=Path, help="folder of the cohort (OUT/cache)")
    add("--patients", type=int, default=150, help="how many to simulate (150)")
    add("--supplement", type=int,
        help="simulated patients with many rims that only train (150; own data: 0)")  # fmt: skip
    add("--derivatives", type=Path, help="your own cohort: a qsm-nipype output folder")
    add("--labels", type=Path, nargs="+",
        help="your own cohort: tables of acquisition, index, rim, as pages save them")  # fmt: skip
    add("--folds", type=int, default=5, help="of the cross-validation (5)")
    add("--variants", nargs="+", choices=list(VARIANTS), default=["full"],
        help="what to cross-validate: the whole network and its ablations")  # fmt: skip
    add("--width", type=int, default=12, help="channels of the first stage (12; published: 64)")
    add("--steps", type=int, default=3000, help="of each training (3000)")
    add("--learning-rate", type=float, default=1e-3, help="its peak (1e-3)")
    add("--validate-every", type=int, default=250, help="steps between validations (250)")
    add("--seed", type=int, default=0, help="of simulation, folds and training")
    add("--no-final", action="store_true", help="only cross-validate")
    add("--workers", type=int, default=0, help="processes that simulate (0)")
    add("--threads", type=int, default=1, help="CPU threads (1)")
    add("--use-gpu", action="store_true", help="train on the CUDA device")
    return parser
