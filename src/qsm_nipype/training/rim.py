"""Training of QSMRim-Net: patients dealt into folds, minority oversampling in the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_nipype.core.lesions import baseline, cut_patches, describe
from qsm_nipype.errors import UsageError
from qsm_nipype.models import radiomics
from qsm_nipype.models.rim import (
    EDGE,
    Classifier,
    RimNet,
    compress,
    oversample,
    scale_images,
)
from qsm_nipype.training.cache import write
from qsm_nipype.training.loop import Average, Plan, to_device
from qsm_nipype.training.qsmgan import set_rate, take_step
from qsm_nipype.training.rim_cohort import VOXEL, read_patient
from qsm_nipype.training.rim_scores import average_precision, choose_threshold

#: voxels by which a patch may be displaced in training
JITTER = 2
BATCH = 40
#: positives in a stratified batch
POSITIVES = 6


@dataclass(frozen=True)
class Variant:
    """What a training leaves out: a branch, or the oversampling with its stratified batches."""

    name: str = "full"
    image: bool = True
    radiomics: bool = True
    oversampling: bool = True


_ARRAYS = ("chi", "flair", "features", "labels", "patients", "baseline")
VARIANTS = {
    v.name: v
    for v in (
        Variant(),
        Variant("image", radiomics=False),
        Variant("radiomics", image=False),
        Variant("no-oversampling", oversampling=False),
    )
}


@dataclass(frozen=True)
class Lesions:
    """Lesions of a cohort: `chi` (ppm) and `flair` patches `(L, E, E, E)` float16 with a border.

    `features` `(L, F)`, `labels` bool `(L,)`, `patients` (number) `(L,)`, `baseline` `(L,)` the
    one-feature score.
    """

    chi: np.ndarray
    flair: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    baseline: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, count: int | None = None) -> Lesions:
        """The first `count` (None: all) `patient-*.npz` of a cache.

        Raises UsageError when there is none.
        """
        paths = sorted(folder.glob("patient-*.npz"))[:count]
        if not paths:
            raise UsageError(f"{folder}: no patients there; make them with --patients N first")
        names = radiomics.feature_names()
        rows = [_read(path, number, names) for number, path in enumerate(paths)]
        arrays = {f: np.concatenate([row[i] for row in rows]) for i, f in enumerate(_ARRAYS)}
        return cls(**arrays, names=names)

    def join(self, other: Lesions) -> Lesions:
        """These and then those of `other`, whose patients are others."""
        apart = other.patients + (self.patients.max() + 1)
        more = {f: getattr(other, f) for f in _ARRAYS} | {"patients": apart}
        arrays = {f: np.concatenate([getattr(self, f), more[f]]) for f in _ARRAYS}
        return Lesions(**arrays, names=self.names)

    def batch(
        self, rows: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images, features and labels of `rows`; displaced and mirrored at random with `rng`."""
        pairs = []
        for row in rows:
            pair = np.stack([self.chi[row], self.flair[row]])
            pairs.append(_crop(pair) if rng is None else _augment(pair, rng))
        pixels = torch.from_numpy(np.stack(pairs).astype(np.float32))
        images = scale_images(pixels[:, 0], pixels[:, 1])
        return (
            images,
            torch.from_numpy(self.features[rows]),
            torch.from_numpy(self.labels[rows].astype(np.float32)),
        )


def _read(path: Path, number: int, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The lesions of one patient; radiomics are kept beside its file."""
    patient = read_patient(path)
    store = path.with_name(f"{path.stem}.features.npy")
    if store.exists():
        features = np.load(store, allow_pickle=False)
    else:
        features = radiomics.features(patient.chi, patient.instances, VOXEL, names=names)
        write(store, {"arr": features}, np.save)
    lesions = describe(patient.instances, patient.chi, patient.mask, VOXEL)
    centers = [lesion.center for lesion in lesions]
    rows = [lesion.index - 1 for lesion in lesions]
    bright = patient.flair / np.median(patient.flair[patient.mask])
    wide = EDGE + 2 * JITTER
    return (
        cut_patches(patient.chi, centers, wide).astype(np.float16),
        cut_patches(bright, centers, wide, fill=1.0).astype(np.float16),
        features[rows],
        patient.rim[rows],
        np.full(len(rows), number),
        baseline(lesions),
    )


def _crop(pair: np.ndarray) -> np.ndarray:
    inner = (slice(JITTER, JITTER + EDGE),) * 3
    return pair[(slice(None), *inner)]


def _augment(pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Displace, mirror, swap the axes across B0, scale, shift and blur the values a little."""
    start = rng.integers(0, 2 * JITTER + 1, 3)
    pair = pair[(slice(None), *(slice(s, s + EDGE) for s in start))].astype(np.float32)
    axes = tuple(axis + 1 for axis in range(3) if rng.random() < 0.5)
    pair = np.flip(pair, axes) if axes else pair
    if rng.random() < 0.5:
        pair = pair.swapaxes(1, 2)
    gains = np.exp(0.1 * rng.normal(size=2)).reshape(2, 1, 1, 1).astype(np.float32)
    offsets = np.array([0.006, 0.04]).reshape(2, 1, 1, 1) * rng.normal(size=(2, 1, 1, 1))
    return pair * gains + offsets.astype(np.float32)


def assign_folds(patients: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (0 …) of each lesion: whole patients, with like numbers of positives in each.

    Raises UsageError when there are fewer patients with positives than folds.
    """
    names, index = np.unique(patients, return_inverse=True)
    positives = np.bincount(index, weights=labels.astype(float))
    if (positives > 0).sum() < folds:
        raise UsageError(
            f"{folds}-fold cross-validation needs {folds} patients with rim lesions and there are "
            f"{int((positives > 0).sum())}; add patients"
        )
    order = np.random.default_rng(seed).permutation(names.size)
    order = order[np.argsort(-positives[order], kind="stable")]
    place = np.empty(names.size, int)
    for start in range(0, order.size, folds):  # back and forth, so that the sums agree
        group = order[start : start + folds]
        turn = np.arange(folds) if (start // folds) % 2 == 0 else np.arange(folds)[::-1]
        place[group] = turn[: group.size]
    return place[index]


class RimTask:
    """One training for `loop.run`: validation error is 1 − area under precision–recall."""

    def __init__(
        self,
        lesions: Lesions,
        train: np.ndarray,
        held_out: np.ndarray,
        plan: Plan,
        variant: Variant,
        *,
        width: int = 16,
        device: torch.device | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self._lesions, self._train, self._held_out = lesions, train, held_out
        self._variant, self._device = variant, device or torch.device("cpu")
        network = RimNet(
            width,
            lesions.features.shape[1],
            image=variant.image,
            radiomics=variant.radiomics,
        )
        self.network = network.to(self._device)
        self.average = Average(self.network, plan.average)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=0.05)
        self.state = {
            "network": self.network,
            "average": self.average,
            "optimizer": self._optimizer,
        }
        known = compress(torch.from_numpy(lesions.features[train]))
        self._mean, self._scale = known.mean(dim=0), known.std(dim=0).clamp_min(1e-3)
        self._positive = train[lesions.labels[train]]
        self._negative = train[~lesions.labels[train]]
        self._checks = lesions.batch(held_out, None) if held_out.size else None

    def classifier(self, threshold: float = 0.5) -> Classifier:
        """The averaged network with the normalisation of its training lesions."""
        names = self._lesions.names
        return Classifier(self.average.network, names, self._mean, self._scale, threshold)

    def _rows(self, rng: np.random.Generator) -> np.ndarray:
        if not self._variant.oversampling:
            return rng.choice(self._train, BATCH, replace=self._train.size < BATCH)
        few = min(POSITIVES, self._positive.size)
        many = min(BATCH - POSITIVES, self._negative.size)
        return np.concatenate(
            [
                rng.choice(self._positive, few, replace=False),
                rng.choice(self._negative, many, replace=False),
            ]
        )

    def draw(self, step: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Images, features and labels of a batch of lesions."""
        return self._lesions.batch(self._rows(rng), rng)

    def step(self, batch: tuple[Tensor, ...], rate: float) -> dict[str, float]:
        """One update; see `loop.Task`."""
        set_rate(self._optimizer, rate)
        self.network.train()
        images, features, labels = to_device(self._device, *batch)
        normal = self.classifier().normalise(features)
        normal = normal + 0.1 * torch.randn_like(normal)
        latent = self.network.embed(images, normal)
        if self._variant.oversampling:
            latent, labels = oversample(latent, labels)
        logits = self.network.classify(latent)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        take_step(self._optimizer, self.network, loss)
        return {"loss": float(loss.detach()), "rate": rate}

    def validate(self) -> float:
        """1 − area under the precision–recall curve on the held-out lesions (0: none there)."""
        if self._checks is None:
            return 0.0
        labels = self._lesions.labels[self._held_out]
        images, features, _ = self._checks
        scores = self._forward(images, features, mirror=False)
        return 1 - average_precision(labels, scores) if labels.any() else 0.0

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities of `rows` by the averaged network, over mirror images."""
        images, features, _ = self._lesions.batch(rows, None)
        return self._forward(images, features, mirror=True)

    @torch.no_grad()
    def _forward(self, images: Tensor, features: Tensor, *, mirror: bool) -> np.ndarray:
        own, network = self.classifier(), self.average.network.eval()
        flips: list[tuple[int, ...]] = [(), (2,), (3,), (4,)] if mirror else [()]
        out = []
        for start in range(0, len(images), 64):
            part, rows = to_device(
                self._device, images[start : start + 64], features[start : start + 64]
            )
            normal = own.normalise(rows)
            views = [network(part.flip(f) if f else part, normal).sigmoid() for f in flips]
            out.append(torch.stack(views).mean(dim=0).cpu())
        return torch.cat(out).double().numpy()


@dataclass(frozen=True)
class Fold:
    """Predictions of one fold: `rows` tested, their probabilities, the steps trained."""

    rows: np.ndarray
    scores: np.ndarray
    steps: int


def inner_split(lesions: Lesions, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows: a sixth of the patients validates."""
    patients, labels = lesions.patients[rows], lesions.labels[rows]
    with_rim = np.unique(patients[labels]).size
    parts = assign_folds(patients, labels, max(2, min(6, with_rim)), seed)
    return rows[parts > 0], rows[parts == 0]


def best_steps(log: Path) -> int:
    """The step of the smallest validation error in a training's log."""
    import csv

    with log.open(newline="") as stream:
        checks = [(float(r["validation"]), int(r["step"])) for r in csv.DictReader(stream)
                  if r["validation"]]  # fmt: skip
    return min(checks)[1]


def threshold_of(folds: Sequence[Fold], labels: np.ndarray) -> float:
    """The threshold chosen on the lesions of `folds`, rated by networks that had not seen them.

    `labels` are those of all lesions.
    """
    rows = np.concatenate([fold.rows for fold in folds])
    return choose_threshold(labels[rows], np.concatenate([fold.scores for fold in folds]))
