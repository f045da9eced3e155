"""Rigid registration of two images of the same head, and resampling with what it found.

SimpleITK works in LPS coordinates; here everything is RAS mm, as in NIfTI affines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import SimpleITK

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Spacings (mm) of the search, coarse to fine; half a millimetre is found well below 2 mm.
_LEVELS = (6.0, 3.0, 2.0)
_BINS = 32


@dataclass(frozen=True)
class Rigid:
    """Where a point of the fixed image lies in the moving one.

    `matrix` (4, 4) maps fixed scanner mm (RAS) onto moving scanner mm. `similarity` is the
    normalised mutual information (Studholme 1999) of the two images after, `before` without
    registration: 1 means unrelated. `overlap` is the share of the fixed image's bright voxels
    that the moving image covers.
    """

    matrix: np.ndarray
    similarity: float
    before: float
    overlap: float

    @property
    def rotation(self) -> float:
        """Angle of the rotation in degrees."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    @property
    def trusted(self) -> bool:
        """Whether the images agree better than chance and no worse than unregistered."""
        return self.similarity > 1.02 and self.similarity >= self.before - 0.005


def rigid(
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    moving: np.ndarray,
    moving_affine: np.ndarray,
    *,
    start: np.ndarray | None = None,
    threads: int = 1,
    max_iterations: int = 80,
) -> Rigid:
    """Rotation and shift that bring `moving` onto `fixed` by mutual information (Mattes 2003).

    Both `(X, Y, Z)` of any contrast; affines voxel → scanner mm (RAS). The search starts from
    `start` (default: same scanner coordinates, as in one session) and, where the centres of mass
    are far apart, from their difference; the better end is returned. Deterministic.
    """
    low, high = (
        _image(_scaled(a), m) for a, m in ((fixed, fixed_affine), (moving, moving_affine))
    )
    here, there = _reduced(low, _LEVELS[-1]), _reduced(high, _LEVELS[-1])
    first = np.eye(4) if start is None else np.asarray(start, dtype=float)
    before, overlap = _similarity(here, there, first)
    best = Rigid(first, before, before, overlap)
    for begin in _starts(fixed, fixed_affine, moving, moving_affine, first):
        found = begin
        for spacing in _LEVELS:
            found = _search(
                _reduced(low, spacing), _reduced(high, spacing), found, spacing, max_iterations,
                threads,
            )  # fmt: skip
        similarity, overlap = _similarity(here, there, found)
        if similarity > best.similarity:
            best = Rigid(found, similarity, before, overlap)
    return best


def resample(
    values: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    onto: np.ndarray,
    matrix: np.ndarray | None = None,
    *,
    labels: bool = False,
) -> np.ndarray:
    """`values` `(X, Y, Z)` with `affine`, read on the grid of `shape` with affine `onto`.

    `matrix` maps scanner mm of the new grid onto those of `values` (default: the same), as
    `Rigid.matrix` of a registration with the new grid fixed. `labels`: nearest neighbour and the
    type kept, else linear and float32. Zero outside.
    """
    import SimpleITK

    kind = values.dtype if labels else np.dtype(np.float32)
    store = np.int32 if labels else np.float32
    reference = _image(np.zeros(shape, dtype=np.uint8), onto)
    how = SimpleITK.sitkNearestNeighbor if labels else SimpleITK.sitkLinear
    image = _image(values.astype(store), affine)
    out = SimpleITK.Resample(
        image, reference, _transform(np.eye(4) if matrix is None else matrix), how
    )
    return np.ascontiguousarray(SimpleITK.GetArrayFromImage(out).transpose(2, 1, 0)).astype(kind)


def _scaled(image: np.ndarray) -> np.ndarray:
    """Float32 with the brightest half percent clipped, so that bins are not spent on vessels."""
    image = np.nan_to_num(image.astype(np.float32))
    inside = image[image > 0]
    top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return np.clip(image, 0, top)


def _image(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    import SimpleITK

    size = np.linalg.norm(affine[:3, :3], axis=0)
    axes = _LPS[:3, :3] @ affine[:3, :3] / size
    left, _, right = np.linalg.svd(axes)  # shears that rounding makes are refused by ITK
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(size.tolist())
    image.SetOrigin((_LPS[:3, :3] @ affine[:3, 3]).tolist())
    image.SetDirection((left @ right).ravel().tolist())
    return image


def _reduced(image: Any, spacing: float) -> Any:
    """Smoothed and sampled at about `spacing` mm, never finer than it is."""
    import SimpleITK

    factors = [max(1, round(spacing / s)) for s in image.GetSpacing()]
    widths = [
        0.4 * f * s if f > 1 else 1e-3 for f, s in zip(factors, image.GetSpacing(), strict=True)
    ]
    factors = [min(f, max(1, n // 8)) for f, n in zip(factors, image.GetSize(), strict=True)]
    return SimpleITK.Shrink(SimpleITK.SmoothingRecursiveGaussian(image, widths), factors)


def _starts(
    fixed: np.ndarray, a: np.ndarray, moving: np.ndarray, b: np.ndarray, first: np.ndarray
) -> list[np.ndarray]:
    """The given start, and the difference of the centres of mass where it is large."""
    here, there = _centre(fixed, a), _centre(moving, b)
    shift = there - (first[:3, :3] @ here + first[:3, 3])
    if np.linalg.norm(shift) < 15.0:
        return [first]
    other = first.copy()
    other[:3, 3] += shift
    return [first, other]


def _centre(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    weights = np.clip(np.nan_to_num(image), 0, None).astype(float)
    total = max(weights.sum(), 1e-12)
    index = []
    for axis, n in enumerate(image.shape):
        others = tuple(i for i in range(3) if i != axis)
        index.append(float(weights.sum(others) @ np.arange(n)) / total)
    return affine[:3, :3] @ np.array(index) + affine[:3, 3]


def _search(
    fixed: Any, moving: Any, start: np.ndarray, spacing: float, iterations: int, threads: int
) -> np.ndarray:
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=spacing / 2,
        minStep=0.01,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetNumberOfThreads(max(1, threads))
    transform = SimpleITK.Euler3DTransform()
    middle = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    transform.SetCenter(middle)
    given = _LPS @ start @ _LPS
    transform.SetMatrix(given[:3, :3].ravel().tolist(), 1e-4)
    offset = given[:3, 3] + given[:3, :3] @ middle - middle
    transform.SetTranslation(offset.tolist())
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # no overlap: ITK gives up, the caller compares similarities
        return start
    return _matrix(transform)


def _matrix(transform: Any) -> np.ndarray:
    """RAS matrix of an ITK rigid transform."""
    found = np.eye(4)
    found[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    found[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return _LPS @ found @ _LPS


def _transform(matrix: np.ndarray) -> SimpleITK.AffineTransform:
    import SimpleITK

    given = _LPS @ matrix @ _LPS
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(given[:3, :3].ravel().tolist())
    transform.SetTranslation(given[:3, 3].tolist())
    return transform


def _similarity(fixed: Any, moving: Any, matrix: np.ndarray) -> tuple[float, float]:
    """Normalised mutual information (1 to 2) over the overlap, and the overlap."""
    import SimpleITK

    transform = _transform(matrix)
    a = SimpleITK.GetArrayViewFromImage(fixed)
    b = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(moving, fixed, transform, SimpleITK.sitkLinear, -1.0)
    )
    both = b >= 0
    bright = a > 0.1 * float(a.max())
    overlap = float((both & bright).sum() / max(int(bright.sum()), 1))
    if both.sum() < 100:
        return 1.0, overlap
    joint, _, _ = np.histogram2d(a[both], b[both], bins=_BINS)
    p = joint / joint.sum()
    together = _entropy(p)
    return (_entropy(p.sum(0)) + _entropy(p.sum(1))) / max(together, 1e-12), overlap


def _entropy(p: np.ndarray) -> float:
    q = p[p > 0]
    return float(-(q * np.log(q)).sum())
