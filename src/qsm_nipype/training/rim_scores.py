"""How well a rare finding is separated from the rest: ROC, precision–recall, counts per patient.

Plain functions of arrays: `labels` (bool or 0/1) and `scores` (higher means more likely), one for
each lesion. Ties are handled as one step, so that the order of equal scores does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: false-positive rate up to which the partial area is taken, and the threshold's limit
RATE = 0.1


def roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False- and true-positive rates from (0, 0) to (1, 1), and their thresholds (≥).

    Raises ValueError unless both classes are there.
    """
    hits, misses, thresholds = _counts(labels, scores)
    zero = np.zeros(1)
    return (
        np.concatenate([zero, misses / misses[-1]]),
        np.concatenate([zero, hits / hits[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def _counts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives above each distinct score, highest first."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    if labels.all() or not labels.any():
        raise ValueError("lesions with and without a rim are needed")
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    hits = np.cumsum(positive)[last]
    return hits, last + 1 - hits, ranked[last]


def roc_auc(labels: np.ndarray, scores: np.ndarray, limit: float = 1.0) -> float:
    """Area under the ROC curve up to the false-positive rate `limit`, divided by `limit`.

    1 for a perfect classifier; `limit` / 2 for guessing.
    """
    fpr, tpr, _ = roc(labels, scores)
    last = int((fpr < limit).sum())  # the first point at the limit or beyond
    share = (limit - fpr[last - 1]) / (fpr[last] - fpr[last - 1])
    x = np.append(fpr[:last], limit)
    y = np.append(tpr[:last], tpr[last - 1] + share * (tpr[last] - tpr[last - 1]))
    return float(np.trapezoid(y, x) / limit)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision–recall curve (as a step function)."""
    hits, misses, _ = _counts(labels, scores)
    steps = np.diff(hits, prepend=0) / hits[-1]
    return float((steps * hits / (hits + misses)).sum())


def choose_threshold(labels: np.ndarray, scores: np.ndarray, limit: float = RATE) -> float:
    """The score with the largest F1 among those whose false-positive rate is below `limit`."""
    hits, misses, thresholds = _counts(labels, scores)
    f1 = 2 * hits / (hits + misses + hits[-1])
    f1[misses / misses[-1] >= limit] = -1
    return float(thresholds[f1.argmax()]) if f1.max() >= 0 else float("inf")


def sensitivity(labels: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Sensitivity and specificity of the decisions `found`."""
    labels, found = np.asarray(labels, bool), np.asarray(found, bool)
    return float(found[labels].mean()), float((~found[~labels]).mean())


@dataclass(frozen=True)
class Counts:
    """Agreement of a patient's counts: mean squared error, correlation and its 95 % interval."""

    mse: float
    correlation: float
    low: float
    high: float


def compare_counts(truth: np.ndarray, found: np.ndarray) -> Counts:
    """Counts for each patient, true and found; the interval is Fisher's."""
    truth, found = np.asarray(truth, float), np.asarray(found, float)
    mse = float(np.square(truth - found).mean())
    if truth.size < 4 or truth.std() == 0 or found.std() == 0:
        return Counts(mse, float("nan"), float("nan"), float("nan"))
    r = float(np.corrcoef(truth, found)[0, 1])
    z, width = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), 1.959964 / np.sqrt(truth.size - 3)
    return Counts(mse, r, float(np.tanh(z - width)), float(np.tanh(z + width)))


def per_patient(patients: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Number of positives of each patient, in the order of their sorted names."""
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.bincount(index, weights=np.asarray(positive, float))


def bootstrap(
    patients: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], float],
    *,
    repeats: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of `measure(labels, scores)` when patients are drawn anew."""
    rng = np.random.default_rng(seed)
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(index == p) for p in range(index.max() + 1)]
    values: list[float] = []
    while len(values) < repeats:
        rows = np.concatenate([members[p] for p in rng.integers(0, len(members), len(members))])
        if 0 < np.asarray(labels)[rows].sum() < rows.size:
            values.append(measure(labels[rows], scores[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
