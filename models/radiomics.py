"""Radiomics of lesions on susceptibility maps: PyRadiomics' features, by a fixed list.

Shape, first order, co-occurrence (GLCM) and run lengths (GLRLM) [Griethuysen2017]_ of the
susceptibility in ppb, bin width 25 ppb, on the image and its eight wavelet bands (coif1). Without
the maximal correlation coefficient there are 14 + 9·(18 + 23 + 16) = 527, the number in
[Zhang2022]_. Only the lesion's box with a margin is looked at, so what lies further away (padding,
cropping) changes nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from qsm_nipype.errors import UsageError

BIN_WIDTH = 25.0  # ppb
#: voxels around the lesion's box: more than the wavelet's filters reach
MARGIN = 6
#: features that PyRadiomics has and this list has not
_LEFT_OUT = {"glcm": ("MCC",)}
_CLASSES = ("shape", "firstorder", "glcm", "glrlm")


def available() -> bool:
    """Whether PyRadiomics is installed."""
    return importlib.util.find_spec("radiomics") is not None


def require() -> None:
    """Raises UsageError with the cure when PyRadiomics is missing."""
    if not available():
        raise UsageError(
            "rim classification needs PyRadiomics, which is not installed; "
            "run: pip install 'qsm-nipype[rim]'"
        )


def feature_names() -> tuple[str, ...]:
    """The features in the order of `features`."""
    require()
    import radiomics

    classes = radiomics.getFeatureClasses()
    names = []
    for image in ("original", *_bands()):
        for kind in _CLASSES:
            if kind == "shape" and image != "original":
                continue
            names += [f"{image}_{kind}_{feature}" for feature in _enabled(classes, kind)]
    return tuple(names)


def _bands() -> list[str]:
    """Wavelet bands: low or high pass along each axis."""
    bands = [a + b + c for a in "LH" for b in "LH" for c in "LH"]
    return [f"wavelet-{band}" for band in sorted(bands)]


def _enabled(classes: Any, kind: str) -> list[str]:
    """Features of a class that are neither deprecated nor left out, sorted."""
    every = classes[kind].getFeatureNames()
    left = _LEFT_OUT.get(kind, ())
    return sorted(n for n, deprecated in every.items() if not deprecated and n not in left)


def features(
    chi: np.ndarray,
    instances: np.ndarray,
    voxel_size: Sequence[float],
    *,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Features `(L, F)` float32 of the lesions 1 … L in `instances` on `chi`, both `(X, Y, Z)`.

    `chi` in ppm, `voxel_size` in mm. `names` selects and orders the features (None: all of
    `feature_names`). A lesion too small or flat for a feature has 0 there; one without voxels has
    zeros only. Raises UsageError when PyRadiomics is missing or does not know a name.
    """
    known = feature_names()
    names = known if names is None else tuple(names)
    unknown = [n for n in names if n not in set(known)]
    if unknown:
        raise UsageError(
            f"{unknown[0]}: the installed PyRadiomics has no such feature; "
            "install the version in constraints.txt"
        )
    extractor = _extractor()
    count = int(instances.max(initial=0))
    table = np.zeros((count, len(names)), np.float32)
    for row, found in enumerate(_boxes(instances, count)):
        if found is not None:
            values = _one(extractor, chi, instances == row + 1, voxel_size, found)
            table[row] = [values.get(name, 0.0) for name in names]
    return np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)


def _boxes(instances: np.ndarray, count: int) -> list[tuple[slice, ...] | None]:
    from scipy.ndimage import find_objects

    return list(find_objects(instances.astype(np.int32), max_label=count)) if count else []


def _one(
    extractor: Any,
    chi: np.ndarray,
    lesion: np.ndarray,
    voxel_size: Sequence[float],
    box: tuple[slice, ...],
) -> dict[str, float]:
    """Features of one lesion by name; none where PyRadiomics refuses it (a line, a voxel)."""
    import SimpleITK as sitk  # noqa: N813  its own documentation's name

    image, mask = (_cut(volume, box) for volume in (1e3 * chi, lesion))
    pair = [sitk.GetImageFromArray(np.ascontiguousarray(v.T)) for v in (image, mask)]
    for volume in pair:
        volume.SetSpacing([float(v) for v in voxel_size])
    try:
        found = extractor.execute(*pair, label=1)
    except (ValueError, RuntimeError, IndexError):
        return {}
    # eigenvalues of a rounded matrix come out complex now and then
    return {name: float(np.real(value)) for name, value in found.items()}


def _cut(volume: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """The box and its margin; beyond the volume's end its last voxels are repeated."""
    index = np.ix_(
        *(
            np.clip(np.arange(s.start - MARGIN, s.stop + MARGIN), 0, n - 1)
            for s, n in zip(box, volume.shape, strict=True)
        )
    )
    cut = volume[index]
    if volume.dtype != bool:
        return cut.astype(np.float32)
    inner = tuple(slice(MARGIN, -MARGIN) for _ in box)
    own = np.zeros(cut.shape, np.uint8)
    own[inner] = cut[inner]
    return own


def _extractor() -> Any:
    import radiomics
    import SimpleITK as sitk  # noqa: N813
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    radiomics.setVerbosity(60)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    extractor = RadiomicsFeatureExtractor(
        binWidth=BIN_WIDTH, additionalInfo=False, minimumROIDimensions=1
    )
    extractor.disableAllFeatures()
    classes = radiomics.getFeatureClasses()
    extractor.enableFeaturesByName(**{kind: _enabled(classes, kind) for kind in _CLASSES})
    extractor.enableImageTypes(Original={}, Wavelet={})
    return extractor
