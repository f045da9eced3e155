"""QSMRim-Net [Zhang2022]_: does a lesion have a paramagnetic rim?

A 3-D ResNet-18 looks at susceptibility and FLAIR around the lesion's centre, a fully connected
branch at its radiomics; their sum is what synthetic minority oversampling and the head work on.
Layers and parameter names are the published ones, so that a published checkpoint loads; `width`
(64 as published) scales all of them, and the shipped model is slimmer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import find_objects
from torch import Tensor, nn
from torch.nn import functional

from qsm_nipype.core.lesions import cut_patches, unit_grid
from qsm_nipype.core.registration import resample
from qsm_nipype.errors import WeightsError
from qsm_nipype.models.radiomics import features
from qsm_nipype.models.untrusted import stated_number
from qsm_nipype.models.weights import Weights, fill

#: 1 mm voxels along an edge of the patch that the network sees
EDGE = 28
FEATURES = 527
#: susceptibility (ppm) at which the input is cut
CHI_LIMIT = 0.3


class Block(nn.Module):
    """Two 3³ convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(x)) + shortcut)


class Encoder(nn.Module):
    """ResNet-18 in three dimensions whose last stage keeps the resolution."""

    def __init__(self, width: int = 64, channels: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.BatchNorm3d(width)
        stages = [(1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 1)]
        for number, (a, b, stride) in enumerate(stages, start=1):
            blocks = Block(a * width, b * width, stride), Block(b * width, b * width)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(x)))
        x = functional.max_pool3d(x, 3, stride=2, padding=1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3, 4))


class Latent(nn.Module):
    """The space in which minority samples are made: two fully connected layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Linear(size, size), nn.BatchNorm1d(size), nn.SiLU()]
        self.fea_transform = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.fea_transform(x)


class RimNet(nn.Module):
    """Patches `(B, 2, X, Y, Z)` and radiomics `(B, features)` → logits `(B,)` of a rim.

    Channels are susceptibility and FLAIR, scaled as by `scale_images`. `image` and `radiomics`
    switch the branches (for ablation).
    """

    def __init__(
        self,
        width: int = 64,
        features: int = FEATURES,
        *,
        image: bool = True,
        radiomics: bool = True,
    ) -> None:
        super().__init__()
        size = 8 * width
        self.encoder = Encoder(width) if image else None
        self.encode_rad = None
        if radiomics:
            self.encode_rad = nn.Sequential(
                nn.Linear(features, 2 * size),
                nn.BatchNorm1d(2 * size),
                nn.SiLU(),
                nn.Dropout(0.3),
                nn.Linear(2 * size, size),
                nn.BatchNorm1d(size),
                nn.SiLU(),
            )
        self.classifier = nn.Sequential(
            nn.Linear(size, 2 * width), nn.SiLU(), nn.Dropout(0.5), nn.Linear(2 * width, 1)
        )
        self.smote = Latent(size)

    def embed(self, images: Tensor, radiomics: Tensor) -> Tensor:
        """The lesions' places in the latent space, `(B, 8·width)`."""
        parts = []
        if self.encoder is not None:
            parts.append(self.encoder(images))
        if self.encode_rad is not None:
            parts.append(self.encode_rad(radiomics))
        return self.smote(torch.stack(parts).sum(dim=0))

    def classify(self, latent: Tensor) -> Tensor:
        """Logits `(B,)` of places in the latent space."""
        return self.classifier(latent).squeeze(-1)

    def forward(self, images: Tensor, radiomics: Tensor) -> Tensor:
        return self.classify(self.embed(images, radiomics))


def oversample(
    latent: Tensor,
    labels: Tensor,
    *,
    neighbours: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Add synthetic positives on the segments between positives (DeepSMOTE) [Dablain2023]_.

    `latent` `(B, C)`, `labels` `(B,)` 0 or 1. Each positive is joined with its `neighbours`
    nearest other positives, and a point is drawn uniformly on each segment. With fewer than three
    positives nothing is added.
    """
    positives = latent[labels > 0.5]
    count = len(positives)
    if count < 3:
        return latent, labels
    distance = torch.cdist(positives.detach(), positives.detach())
    distance.fill_diagonal_(float("inf"))
    nearest = distance.topk(min(neighbours, count - 1), largest=False).indices
    alpha = torch.rand(
        *nearest.shape, 1, generator=generator, device=latent.device, dtype=latent.dtype
    )
    starts = positives[:, None].expand(-1, nearest.shape[1], -1)
    made = torch.lerp(starts, positives[nearest], alpha)
    made = made.reshape(-1, latent.shape[1])
    return torch.cat([latent, made]), torch.cat([labels, labels.new_ones(len(made))])


def scale_images(chi: Tensor, flair: Tensor) -> Tensor:
    """Patches of susceptibility (ppm) and FLAIR (relative to its median in the brain) → input.

    Both `(…, X, Y, Z)` → `(…, 2, X, Y, Z)` of order one.
    """
    cut = chi.clamp(-CHI_LIMIT, CHI_LIMIT) * 10.0
    return torch.stack([cut, (flair.clamp(0.0, 4.0) - 1.0)], dim=-4)


def compress(features: Tensor) -> Tensor:
    """Signed logarithm: radiomics span eight decades."""
    return features.sign() * features.abs().log1p()


@dataclass(frozen=True)
class Classifier:
    """A trained network and all that belongs to it.

    `names` of the features in their order, `mean` and `scale` of their `compress`ed values, and
    the `threshold` (probability) that kept the false-positive rate below 0.1 in validation.
    """

    network: RimNet
    names: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    threshold: float = 0.5

    def normalise(self, features: Tensor) -> Tensor:
        """Features `(L, F)` as the network takes them, cut at five standard deviations."""
        return ((compress(features) - self.mean) / self.scale).clamp(-5.0, 5.0)

    @torch.no_grad()
    def probability(self, chi: Tensor, flair: Tensor, features: Tensor) -> Tensor:
        """Probability `(L,)` of a rim for patches `(L, EDGE, EDGE, EDGE)`.

        The mean over the patch and its mirror images along the axes.
        """
        if not len(chi):
            return chi.new_zeros(0)
        network = self.network.eval()
        images, radiomics = scale_images(chi, flair), self.normalise(features)
        out = []
        for part, rows in zip(images.split(16), radiomics.split(16), strict=True):
            views = [part, *(part.flip(axis) for axis in (2, 3, 4))]
            out.append(torch.stack([network(v, rows).sigmoid() for v in views]).mean(dim=0))
        return torch.cat(out)

    def to(self, device: str) -> Classifier:
        """The same on another device."""
        return Classifier(
            self.network.to(device),
            self.names,
            self.mean.to(device),
            self.scale.to(device),
            self.threshold,
        )


def predict_rims(
    chi: np.ndarray,
    flair: np.ndarray,
    known: np.ndarray,
    instances: np.ndarray,
    affine: np.ndarray,
    classifier: Classifier,
    *,
    device: str = "cpu",
) -> np.ndarray:
    """Probability of a rim `(L,)` for the lesions 1 … L of `instances`.

    `chi` (ppm), `flair` and `known` (where χ is known), all `(X, Y, Z)` with the same `affine`.
    Other grids than 1 mm with axes to the right, front and top are interpolated there first, as
    the network and its features know no other. A lesion that vanishes there has NaN.
    """
    count = int(instances.max(initial=0))
    shape, onto = unit_grid(chi.shape, affine)
    chi, flair, trusted, labels = (
        v if onto is affine else resample(v, affine, shape, onto, labels=kept)
        for v, kept in (
            (chi, False),
            (flair, False),
            (known.astype(np.uint8), True),
            (instances, True),
        )
    )
    inside = trusted > 0
    level = float(np.median(flair[inside])) if inside.any() else 1.0
    bright = flair / max(level, 1e-6)
    found = find_objects(labels, max_label=count) if count else []
    rows = [number for number, box in enumerate(found, start=1) if box is not None]
    centers = [np.argwhere(labels == number).mean(0) for number in rows]
    table = features(chi, labels, (1.0, 1.0, 1.0), names=classifier.names)
    patches, gray = (
        torch.from_numpy(cut_patches(v, centers, EDGE, fill=f)).to(device)
        for v, f in ((chi, 0.0), (bright, 1.0))
    )
    taken = torch.from_numpy(table[[r - 1 for r in rows]]).to(device)
    out = np.full(count, np.nan)
    if rows:
        chances = classifier.to(device).probability(patches, gray, taken)
        out[[r - 1 for r in rows]] = chances.cpu().double().numpy()
    return out


def load_network(weights: Weights, names: Sequence[str] = ()) -> Classifier:
    """The classifier that `weights` belong to, its width read off their shapes.

    The file of our training holds the features' normalisation and, in what it says about itself,
    their names and the threshold. A published checkpoint has neither: `names` are taken then, and
    the features are not normalised. Raises WeightsError.
    """
    tensors = dict(weights.tensors)
    mean, scale = tensors.pop("features.mean", None), tensors.pop("features.scale", None)
    first, rad = tensors.get("encoder.conv1.weight"), tensors.get("encode_rad.0.weight")
    if first is None or rad is None or first.ndim != 5 or rad.ndim != 2:
        raise WeightsError(
            f"{weights.path}: these are not the weights of a QSMRim-Net; "
            "give the file of the right network"
        )
    if max(first.shape[0], rad.shape[1]) > 1024:
        raise WeightsError(f"{weights.path}: too large for a QSMRim-Net; give another file")
    network = RimNet(first.shape[0], rad.shape[1])
    fill(network, Weights(tensors, weights.about, weights.path))
    own = weights.about.get("features", "")
    known = tuple(own.split(" ")) if own else tuple(names)
    if len(known) != rad.shape[1]:
        raise WeightsError(
            f"{weights.path}: it takes {rad.shape[1]} features but names {len(known)}; "
            "give a weight file that names its features"
        )
    zero = torch.zeros(rad.shape[1])
    return Classifier(
        network,
        known,
        zero if mean is None else mean,
        zero + 1 if scale is None else scale,
        stated_number(weights.about, "threshold", 0.5, weights.path),
    )
