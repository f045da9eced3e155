"""NIfTI files ↔ arrays and tensors, with voxel size and the direction of B0."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from qsm_nipype.core.geometry import b0_direction, displacement, voxel_axes, voxel_size
from qsm_nipype.errors import DataError
from qsm_nipype.system.files import atomic, missing_content

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes that deflate can make of one, at most.
_MOST_PACKED = 1032


@dataclass(frozen=True)
class Volume:
    """A NIfTI image in memory: `data` as stored by us (float32 or integer), `affine` in mm."""

    data: np.ndarray
    affine: np.ndarray
    path: str = ""

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm."""
        return voxel_size(self.affine)

    @property
    def b0_dir(self) -> tuple[float, float, float]:
        """Unit direction of B0 along the voxel axes: see `core.geometry.b0_direction`."""
        return b0_direction(self.affine)

    def tensor(self, device: str = "cpu") -> Tensor:
        """The data as a float32 tensor."""
        import torch

        return torch.as_tensor(np.ascontiguousarray(self.data, dtype=np.float32), device=device)

    def mask(self, device: str = "cpu") -> Tensor:
        """The data as a boolean tensor: true above one half."""
        import torch

        return torch.as_tensor(np.ascontiguousarray(self.data > 0.5), device=device)


def canonical(volume: Volume) -> tuple[Volume, Callable[[np.ndarray], np.ndarray]]:
    """The volume with axes to the right, front and top (RAS+), and what turns arrays back.

    Axes are exchanged and flipped only; an oblique slab stays oblique.
    """
    from nibabel import orientations as turn

    here, ras = turn.io_orientation(volume.affine), turn.axcodes2ornt("RAS")
    there, home = turn.ornt_transform(here, ras), turn.ornt_transform(ras, here)
    affine = volume.affine @ turn.inv_ornt_aff(there, volume.data.shape[:3])
    turned = np.ascontiguousarray(turn.apply_orientation(volume.data, there))
    return Volume(turned, affine, volume.path), lambda a: turn.apply_orientation(a, home)


def along_axes_of(volume: Volume, affine: np.ndarray) -> Volume:
    """The volume with its axes exchanged and flipped to run as those of `affine` do."""
    from nibabel import orientations as turn

    change = turn.ornt_transform(*(turn.io_orientation(a) for a in (volume.affine, affine)))
    data = np.ascontiguousarray(turn.apply_orientation(volume.data, change))
    moved = volume.affine @ turn.inv_ornt_aff(change, volume.data.shape[:3])
    return replace(volume, data=data, affine=moved)


def check_orientation(image: Any, name: str) -> list[str]:
    """What the header of the NIfTI `image` leaves unclear about the direction of B0, in sentences.

    Raises DataError where the voxels lie in a template's space or along sheared axes.
    """
    (sform, s_code), (qform, q_code) = image.get_sform(coded=True), image.get_qform(coded=True)
    if (s_code or q_code) >= 3:
        raise DataError(
            f"{name}: its {'sform' if s_code else 'qform'} leads to a template (code "
            f"{s_code or q_code}), which hides the direction of B0; give the image in the "
            "scanner's coordinates, or convert it again"
        )
    axes = voxel_axes(image.affine)
    skew = np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1)))
    if not skew <= 0.5:
        raise DataError(
            f"{name}: its voxel axes are {skew:.1f}° off a right angle; give the image as "
            "acquired, or resample it to a grid of right angles (magnitude and phase as complex "
            "numbers)"
        )
    if not (s_code or q_code):
        return [
            f"{name}: the header does not tell the orientation (qform and sform codes are 0): B0 "
            "is taken along the third voxel axis; convert the image again if it is not"
        ]
    return _disagreement(name, sform, qform) if s_code and q_code else []


def _disagreement(name: str, sform: np.ndarray, qform: np.ndarray) -> list[str]:
    """One sentence where `qform` turns the voxels by over 1° or scales them by over 1 %."""
    cosines = (voxel_axes(sform) * voxel_axes(qform)).sum(axis=0).clip(-1, 1)
    turn = float(np.degrees(np.arccos(cosines)).max())
    ours, theirs = (np.array(voxel_size(a)) for a in (sform, qform))
    if turn <= 1 and np.all(np.abs(ours / theirs - 1) <= 0.01):
        return []
    sizes = [" × ".join(f"{v:.3g}" for v in size) + " mm" for size in (ours, theirs)]
    return [
        f"{name}: sform ({sizes[0]}) and qform ({sizes[1]}) of the header differ, by {turn:.1f}° "
        "in direction: the sform is used; if the qform is the scanner's, copy it to the sform"
    ]


def load(path: str | os.PathLike[str], *, dtype: Any = np.float32) -> Volume:
    """Read an image with its slope applied. Raises DataError with the file's name and the cure."""
    image = open_image(path)
    try:
        data = np.asanyarray(image.dataobj).astype(dtype, copy=False)
    except (OSError, EOFError, ValueError, zlib.error) as exc:
        raise DataError(f"{path}: the image data are cut short; copy the file again") from exc
    return Volume(data, np.asarray(image.affine, dtype=float), str(path))


def first_volume(path: str | os.PathLike[str]) -> np.ndarray:
    """The first volume `(X, Y, Z)` of an image as float32, NaN as 0. Raises DataError."""
    image = open_image(path)
    try:
        first = image.dataobj[(..., *[0] * (len(image.shape) - 3))]
    except (OSError, EOFError, ValueError) as exc:
        raise DataError(f"{path}: the image data are cut short; copy the file again") from exc
    return np.nan_to_num(np.asarray(first, dtype=np.float32))


def load_one(path: str | os.PathLike[str]) -> Volume:
    """Read an image of one volume `(X, Y, Z)`; further axes of length one are dropped.

    Raises DataError for several volumes.
    """
    volume = load(path)
    shape = volume.data.shape
    data = volume.data.reshape((*shape[:3], *(n for n in shape[3:] if n > 1)))
    if data.ndim != 3:
        raise DataError(f"{path}: it has {data.ndim} axes; give one volume of three")
    return replace(volume, data=data)


def stored_values(proxy: Any, path: str | os.PathLike[str]) -> np.ndarray:
    """The values of an image's `dataobj` before slope and intercept.

    A compressed file is read to its end, where its checksum stands: a damaged stream may unpack
    to wrong numbers. Raises DataError for such a file, and for one that is cut short.
    """
    try:
        if str(path).endswith(".gz"):
            return _unpacked(proxy, path)
        return np.asanyarray(proxy.get_unscaled() if hasattr(proxy, "get_unscaled") else proxy)
    except (OSError, EOFError, ValueError, zlib.error) as exc:
        raise DataError(
            f"{path}: the image data are cut short or damaged; copy the file again"
        ) from exc


def _unpacked(proxy: Any, path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a compressed NIfTI, first index fastest, read once and to the end."""
    values = np.empty(proxy.shape, proxy.dtype, order="F")
    room = values.reshape(-1, order="F").view(np.uint8).data
    with gzip.open(path) as stream:
        stream.read(proxy.offset)
        filled = 0
        while filled < len(room) and (count := stream.readinto(room[filled:])):  # type: ignore[attr-defined]
            filled += count
        while stream.read(1 << 20):
            pass
    if filled < len(room):
        raise EOFError
    return values


def load_like(
    reference: Volume, path: str | os.PathLike[str], *, dtype: Any = np.float32
) -> Volume:
    """Read an image that must lie on the grid of `reference`, one or several volumes of it.

    Raises DataError naming both files where shape or affine differ.
    """
    volume = load(path, dtype=dtype)
    if not same_grid(volume, reference):
        raise DataError(
            f"{volume.path}: its grid (shape or affine) differs from that of "
            f"{reference.path or 'the data'}; resample it to that grid"
        )
    return volume


def open_image(path: str | os.PathLike[str]) -> Any:
    """Open an image without reading its data. Raises DataError."""
    if lacking := missing_content(Path(path)):
        raise DataError(f"{path}: {lacking}")
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; check the path")
    if Path(path).stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; convert or copy it again")
    try:
        image = _loaded(Path(path))
        shape, affine = image.shape, np.asarray(image.affine, dtype=float)
    except Exception as exc:  # headers of noise raise whatever they run into
        raise DataError(f"{path}: not a readable NIfTI image; convert it again") from exc
    _check_header(path, image, shape, affine)
    return image


def _loaded(path: Path) -> Any:
    """The image at `path`: as NIfTI-1 where it is, which nibabel tries ten formats to find out."""
    if path.name.endswith((".nii", ".nii.gz")):
        with suppress(Exception):
            image = nib.Nifti1Image.from_filename(path)
            if image.header["magic"].item() == b"n+1":
                return image
    return nib.load(path)


def _check_header(path: Any, image: Any, shape: Sequence[int], affine: np.ndarray) -> None:
    """Refuse a header that no file can keep what it promises. Raises DataError."""
    if not (all(n > 0 for n in shape) and np.isfinite(affine).all()):
        raise DataError(
            f"{path}: its header gives no grid (shape {tuple(shape)}, or an affine that is not "
            f"finite); convert it again"
        )
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: the affine of its header is singular; convert it again")
    kind = image.get_data_dtype() if hasattr(image, "get_data_dtype") else np.dtype(np.uint8)
    if kind.names is None and kind.kind not in "iufbc":
        raise DataError(f"{path}: its voxels are no numbers ({kind}); convert it again")
    promised = math.prod(int(n) for n in shape) * kind.itemsize
    packed = str(path).endswith((".gz", ".mgz", ".bz2"))
    held = os.path.getsize(path) * (_MOST_PACKED if packed else 1)
    if promised > held:
        raise DataError(
            f"{path}: its header promises {promised / 1e6:.4g} MB, and the file cannot hold more "
            f"than {held / 1e6:.4g}; it is cut short or damaged: copy it again"
        )


def save(path: str | os.PathLike[str], data: Any, like: Volume) -> str:
    """Write `data` (array or tensor) in the geometry of `like`: masks as uint8, the rest float32.

    The file appears under its name only when complete. Returns the path.
    """
    array = data.detach().cpu().numpy() if hasattr(data, "detach") else np.asarray(data)
    kind: Any = np.uint8 if array.dtype == bool else np.float32
    if np.issubdtype(array.dtype, np.integer):
        kind = array.dtype.type if array.dtype.itemsize <= 2 else np.int32
    image = nib.Nifti1Image(array.astype(kind, copy=False), like.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(like.affine, code=1)
    image.set_qform(like.affine, code=1)
    with atomic(path) as partial:
        nib.save(image, partial)
    return str(path)


#: Largest shift (voxels) at which two grids count as the same: what rounding leaves in headers.
SAME_GRID = 0.05


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes share their voxels: shape, and corners within a twentieth of a voxel."""
    shape = a.data.shape[:3]
    return shape == b.data.shape[:3] and same_space(a.affine, b.affine, shape)


def same_space(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether two affines place the corners of `shape` within a twentieth of a voxel."""
    return displacement(a, b, shape) <= SAME_GRID
