"""The maps of an acquisition as volumes for the page's viewer, each in a script of its own.

A page opened from a disk may not fetch files, but it may load scripts: each volume is a gzipped
NIfTI image inside one. All lie on the maps' own grid, turned upright and cut to the head.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

from qsm_nipype.report.display import Upright, crop, cropped, upright
from qsm_nipype.report.styles import MapStyle

#: Steps of stored values by unit; a value under the cursor is off by half of one at most.
STEPS = {"ppm": 0.0008, "rad": 0.001, "1/s": 0.2, "s": 0.0002}
#: Largest value that int16 stores, and what stands outside the mask: black in every window.
_LARGEST, OUTSIDE = 32767, -32768
_MARGIN = 12.0  # mm
LIBRARY = "niivue.umd.js"


@dataclass(frozen=True)
class Layer:
    """One map of the viewer, (X, Y, Z) on the grid of all; `over`: may lie over others, too.

    A map that is shown inside a mask only is shown inside `mask`, where it is given.
    """

    name: str
    data: np.ndarray
    style: MapStyle
    mask: np.ndarray | None = None
    over: bool = False


@dataclass(frozen=True)
class Overlay:
    """Regions that are outlined over the maps: integer labels (X, Y, Z), and their names."""

    name: str
    title: str
    labels: np.ndarray
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Viewer:
    """`manifest` for the page (see `render_viewer`), `files` file name → bytes."""

    manifest: dict[str, Any]
    files: dict[str, bytes]


def render_viewer(
    layers: Sequence[Layer], overlays: Sequence[Overlay], affine: np.ndarray, mask: np.ndarray
) -> Viewer:
    """The maps and regions for the page, cut to `mask` and 12 mm around it.

    Maps that are shown inside the mask only are `OUTSIDE` beyond it. The manifest has `layers`
    (name, label, unit, window, colours, step, file) and `overlays` (name, label, names, file);
    files are scripts.
    """
    inside = upright(np.asarray(mask) > 0.5, affine)
    box = cropped(inside, inside.data, margin=_MARGIN)
    inside = crop(inside, box)
    files: dict[str, bytes] = {}
    shown = []
    for layer in layers:
        own = inside
        if layer.mask is not None:
            own = crop(upright(np.asarray(layer.mask) > 0.5, affine), box)
        shown.append(_layer(layer, crop(upright(layer.data, affine), box), own, files))
    over = [_overlay(one, crop(upright(one.labels, affine), box), files) for one in overlays]
    over += [
        {**entry, "name": f"{entry['name']}-over", "names": {}, "window": _upper(entry["window"])}
        for layer, entry in zip(layers, shown, strict=True)
        if layer.over
    ]
    return Viewer({"layers": shown, "overlays": over}, files)


@lru_cache(maxsize=1)
def read_library() -> bytes:
    """NiiVue, as its authors published it, behind its licence; see niivue/README."""
    folder = resources.files("qsm_nipype.report") / "niivue"
    return b"/*!\n" + (folder / "LICENSE").read_bytes() + b"*/\n" + (folder / LIBRARY).read_bytes()


def _upper(window: Sequence[float]) -> list[float]:
    """The part of a window that is drawn over another map: its lowest fifth is seen through."""
    low, high = window
    return [low + 0.2 * (high - low), high]


def _layer(
    layer: Layer, volume: Upright, inside: Upright, files: dict[str, bytes]
) -> dict[str, Any]:
    data = np.array(volume.data, np.float32)
    np.nan_to_num(data, copy=False, posinf=0.0, neginf=0.0)
    low, high = layer.style.limits(data, inside.data)
    stored, step = counted(data, layer.style.unit, high)
    if layer.style.masked:
        stored[~inside.data] = OUTSIDE if stored.dtype == np.int16 else 0
    file = f"{layer.name}.js"
    files[file] = _script(layer.name, nifti(stored, volume.affine, step))
    return {
        "name": layer.name,
        "label": layer.style.label,
        "unit": layer.style.unit,
        "window": [low, high],
        "colours": layer.style.cmap,
        "step": step,
        "file": file,
    }


def counted(data: np.ndarray, unit: str, high: float) -> tuple[np.ndarray, float]:
    """`data` in steps, and the step: as fine as the `unit` asks, coarser for the largest value.

    A map without unit has 160 steps up to the window's upper end, `high`, 255 at most.
    """
    if unit not in STEPS:
        step = max(high / 160, 1e-30)
        return np.rint(np.clip(data / step, 0, 255)).astype(np.uint8), step
    step = max(STEPS[unit], float(np.abs(data).max()) / _LARGEST)
    return np.rint(data / step).astype(np.int16), step


def _overlay(overlay: Overlay, volume: Upright, files: dict[str, bytes]) -> dict[str, Any]:
    file = f"{overlay.name}.js"
    labels = np.rint(np.nan_to_num(volume.data)).clip(0, 255).astype(np.uint8)
    files[file] = _script(overlay.name, nifti(labels, volume.affine))
    return {
        "name": overlay.name,
        "label": overlay.title,
        "names": {str(number): name for number, name in overlay.names.items()},
        "file": file,
    }


def nifti(data: np.ndarray, affine: np.ndarray, step: float = 1.0) -> bytes:
    """A gzipped NIfTI-1 image of integers that are counted in `step`; the same bytes each time."""
    header = Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_sform(affine, "scanner")
    header.set_qform(affine, "scanner", strip_shears=True)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = step, 0.0
    header["vox_offset"], header["magic"] = 352, b"n+1"
    squeeze = zlib.compressobj(6 if data.itemsize == 1 else 1, wbits=31)
    body = squeeze.compress(header.binaryblock + bytes(4) + data.tobytes(order="F"))
    return body + squeeze.flush()


def _script(name: str, image: bytes) -> bytes:
    """A script that hands `image` to the page, by `name`."""
    text = base64.b64encode(image).decode("ascii")
    return f'qsmVolume({json.dumps(name)}, "{text}");\n'.encode()
