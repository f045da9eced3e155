"""What the values of a mask or a segmentation mean: one rule for all that a user brings."""

from __future__ import annotations

import numpy as np

from qsm_nipype.errors import DataError

#: Values up to which a float counts as 1, and the probability from which a voxel is inside.
_ONE, _INSIDE = 1.001, 0.5
#: Largest deviation from a whole number, and most labels that a segmentation has.
_WHOLE, _MOST_LABELS = 1e-3, 3000
#: Largest share of neighbours with different labels, looked at from so many pairs.
_MOST_DIFFERENT, _PAIRS = 0.7, 20
#: Left and right white matter and lesions in FreeSurfer's table of labels.
_WHITE_MATTER, _LESION = (2, 41), 99
_CURE = "give 0 outside and 1 inside"


def binary(values: np.ndarray, name: str) -> np.ndarray:
    """A mask `(X, Y, Z)` as bool: 0 and one other value, or probabilities from 0 to 1 (≥ ½).

    Two values may be 0 and 1, 0 and 255, 0 and any other label. Raises DataError, in which `name`
    says whose values are something else, or who has no voxel.
    """
    values = _plain(values, name)
    if values.dtype == bool:
        inside = values
    else:
        low, high = values.min(initial=0), values.max(initial=0)
        if low < 0:
            raise DataError(f"{name}: it has negative values ({_few(values)}); {_CURE}")
        if 0 < high < _INSIDE:
            raise DataError(
                f"{name}: no voxel reaches 0.5 (largest {high:.3g}), so none is inside; {_CURE}"
            )
        top = values == high
        if high > 0 and bool((top | (values == 0)).all()):
            inside = top
        elif high <= _ONE:
            inside = values >= _INSIDE
        else:
            raise DataError(
                f"{name}: it has values ({_few(values)}) that are neither 0 and one other nor "
                f"probabilities from 0 to 1; {_CURE}"
            )
    if not inside.any():
        raise DataError(f"{name}: it has no voxel; give one that is not empty")
    return inside


def labels(values: np.ndarray, name: str) -> np.ndarray:
    """A segmentation `(X, Y, Z)` as int32: whole numbers from 0 up. Raises DataError."""
    values = _plain(values, name)
    whole = values if values.dtype.kind in "bui" else np.rint(values)
    if whole is not values and bool((np.abs(whole - values) > _WHOLE).any()):
        raise DataError(
            f"{name}: not a segmentation: it has values ({_few(values)}) that are no whole "
            f"numbers; give labels from 0 up, resampled by the nearest neighbour"
        )
    if whole.min(initial=0) < 0 or whole.max(initial=0) > np.iinfo(np.int32).max:
        raise DataError(
            f"{name}: not a segmentation: its values reach from {whole.min():g} to "
            f"{whole.max():g}; give labels, whole numbers from 0 up"
        )
    found = whole.astype(np.int32)
    if (count := _count(found)) > _MOST_LABELS:
        raise DataError(
            f"{name}: not a segmentation: it has {count} different values; give labels, not the "
            f"intensities of an image"
        )
    if (share := _different(found)) > _MOST_DIFFERENT:
        raise DataError(
            f"{name}: not a segmentation: {100 * share:.0f} % of neighbouring voxels have other "
            f"values; give labels of regions, not percentages or the intensities of an image"
        )
    return found


def lesions(values: np.ndarray, name: str) -> np.ndarray:
    """Lesions `(X, Y, Z)` as int32: see `read_lesions`. Raises DataError."""
    return read_lesions(values, name)[0]


def read_lesions(values: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Lesions `(X, Y, Z)` as int32, and a sentence where something was decided; else "".

    1 in a mask (see `binary`), else the labels of instances. An image without lesions is one of
    zeros, or of probabilities below a half. Of FreeSurfer's labels of a whole brain (SAMSEG) only
    the lesions are taken. Raises DataError.
    """
    values = _plain(values, name)
    if not values.any():
        return np.zeros(values.shape, np.int32), ""
    high = values.max()
    if values.dtype == bool or not ((values != 0) & (values != high)).any():
        return binary(values, name).astype(np.int32), ""
    if high <= _ONE:
        said = f"{name}: probabilities (up to {high:.3g}), taken as lesions from 0.5 on."
        if high < _INSIDE and values.min() >= 0:
            return np.zeros(values.shape, np.int32), said
        return binary(values, name).astype(np.int32), said
    found = labels(values, name)
    if all((found == label).any() for label in _WHITE_MATTER):
        said = f"{name}: FreeSurfer's labels of a whole brain; label {_LESION} is the lesions."
        return (found == _LESION).astype(np.int32), said
    return found, ""


def _plain(values: np.ndarray, name: str) -> np.ndarray:
    """Real numbers with three axes, 0 for NaN (as SPM marks the outside). Raises DataError."""
    shape = tuple(int(n) for n in np.shape(values))
    values = np.reshape(values, (*shape[:3], *(n for n in shape[3:] if n != 1)))
    if values.ndim != 3:
        shown = "×".join(str(n) for n in values.shape)
        raise DataError(
            f"{name}: its shape is {shown}, {values.ndim} axes; give one volume of three"
        )
    if values.dtype.kind not in "buif":
        raise DataError(f"{name}: it has colours or complex numbers; give plain numbers")
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise DataError(f"{name}: it has infinite values; give 0 there")
    return np.nan_to_num(values) if values.dtype.kind == "f" else values


def _different(whole: np.ndarray) -> float:
    """Share of neighbours inside regions whose labels differ; 0 where there are few neighbours.

    It is 0.02 in atlases to 0.47 in tissue of 4 mm voxels, and 0.9 in T1-weighted images.
    """
    one, other = whole[:-1], whole[1:]
    inside = (one > 0) & (other > 0)
    pairs = int(np.count_nonzero(inside))
    return float(np.count_nonzero(inside & (one != other))) / pairs if pairs >= _PAIRS else 0.0


def _count(whole: np.ndarray) -> int:
    if whole.max(initial=0) < 10_000_000:
        return int(np.count_nonzero(np.bincount(whole.ravel())))
    return len(np.unique(whole))


def _few(values: np.ndarray) -> str:
    """Up to five of the values, smallest first."""
    flat = values.ravel()
    some = np.unique(np.concatenate([flat[:: max(1, flat.size // 200_000)],
                                     [flat.min(), flat.max()]]))  # fmt: skip
    shown = some if len(some) <= 5 else [*some[:3], *some[-2:]]
    between = "" if len(some) <= 5 else ", …"
    return ", ".join(f"{float(v):.4g}" for v in shown) + between
