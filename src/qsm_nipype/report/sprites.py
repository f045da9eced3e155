"""Sheets of pre-rendered slices for the page's viewer: all maps cut in the same places.

The viewer swaps maps in the same slice, which is how a reader checks a χ map. Windows are those
of the figures. Nothing is written here: the sheets come back as bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from qsm_nipype.report.display import (
    PLANES,
    Upright,
    crop,
    cropped,
    edges,
    extent,
    upright,
)
from qsm_nipype.report.styles import MapStyle

LARGEST = 288  # pixels along the longer side of a slice
OUTLINE_PIXELS = 600  # about as many along the longer side of the finer outline
QUALITIES = (85, 70, 50, 30)
OUTLINE_RGB = (255, 159, 67)


@dataclass(frozen=True)
class Layer:
    """One map of the viewer, (X, Y, Z) on the grid of all."""

    name: str
    data: np.ndarray
    style: MapStyle


@dataclass(frozen=True)
class Viewer:
    """`manifest` for the page (see `render_viewer`), `sheets` file name → bytes."""

    manifest: dict[str, Any]
    sheets: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all sheets together."""
        return sum(len(sheet) for sheet in self.sheets.values())


def render_viewer(
    layers: Sequence[Layer],
    affine: np.ndarray,
    mask: np.ndarray,
    *,
    count: int = 40,
    budget: int = 2_000_000,
) -> Viewer:
    """Cut `layers` in at most `count` slices per plane, in at most `budget` bytes.

    Where the lowest quality is still too large, fewer slices are cut (but at least five).
    The manifest has `planes` (tile size in pixels, columns, slice positions in mm, the letters of
    the edges, the outline's file) and `layers` (label, unit, window, sheet per plane).
    """
    inside = upright(np.asarray(mask) > 0.5, affine)
    box = cropped(inside, inside.data, margin=12.0)
    inside = crop(inside, box)
    maps = [
        (layer, crop(upright(np.nan_to_num(layer.data.astype(np.float32)), affine), box))
        for layer in layers
    ]
    viewer = _render(maps, inside, count, budget)
    while viewer.size > budget and count > 5:
        count = max(5, count // 2)
        viewer = _render(maps, inside, count, budget)
    return viewer


def _render(
    maps: Sequence[tuple[Layer, Upright]], inside: Upright, count: int, budget: int
) -> Viewer:
    limits = [layer.style.limits(m.data, inside.data) for layer, m in maps]
    cuts = {plane: _slices(inside.data, plane, count) for plane in PLANES}
    sheets = {
        f"viewer-{plane}-outline.png": _outline_sheet(inside, plane, cuts[plane])
        for plane in PLANES
    }
    pictures = {}
    for (layer, volume), limit in zip(maps, limits, strict=True):
        hidden = inside if layer.style.masked else None
        for plane in PLANES:
            name = f"viewer-{plane}-{layer.name}.jpg"
            tiles = [_tile(volume, hidden, plane, c, limit) for c in cuts[plane]]
            pictures[name] = _coloured(_sheet(tiles), layer.style.cmap)
    sheets |= _encoded(pictures, budget - sum(len(s) for s in sheets.values()))
    manifest = {
        "planes": {plane: _plane(inside, plane, cuts[plane]) for plane in PLANES},
        "layers": [_layer(layer, limit) for (layer, _), limit in zip(maps, limits, strict=True)],
    }
    return Viewer(manifest, sheets)


def _slices(mask: np.ndarray, plane: str, count: int) -> list[int]:
    first, last = extent(mask, plane)
    return sorted({int(round(i)) for i in np.linspace(first, last, min(count, last - first + 1))})


def _tile_size(volume: Upright, plane: str) -> tuple[int, int]:
    """Pixels across and down, square on the screen."""
    rows, columns = volume.slice(plane, 0).shape
    width, height = (n * s for n, s in zip((columns, rows), volume.pixel_size(plane), strict=True))
    scale = min(1 / min(volume.pixel_size(plane)), LARGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _tile(
    volume: Upright, mask: Upright | None, plane: str, index: int, limits: tuple[float, float]
) -> np.ndarray:
    """One slice as 8-bit grey in screen pixels."""
    low, high = limits
    grey = (volume.slice(plane, index) - low) / (high - low)
    grey = np.clip(grey, 0, 1) * 255
    if mask is not None:
        grey = np.where(mask.slice(plane, index), grey, 0)
    picture = Image.fromarray(np.rint(grey).astype(np.uint8))
    return np.asarray(picture.resize(_tile_size(volume, plane), Image.Resampling.BILINEAR))


def _sheet(tiles: list[np.ndarray]) -> np.ndarray:
    """Tiles side by side, row by row."""
    columns = _columns(len(tiles))
    height, width = tiles[0].shape
    sheet = np.zeros((-(-len(tiles) // columns) * height, columns * width), tiles[0].dtype)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return sheet


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _coloured(sheet: np.ndarray, cmap: str) -> Image.Image:
    if cmap == "gray":
        return Image.fromarray(sheet)
    table = (colormaps[cmap](np.arange(256))[:, :3] * 255).astype(np.uint8)
    table[0] = 0
    return Image.fromarray(table[sheet])


def _outline_size(volume: Upright, plane: str) -> tuple[int, int]:
    """A whole multiple of the tile's size, fine enough for a thin line."""
    width, height = _tile_size(volume, plane)
    factor = max(1, round(OUTLINE_PIXELS / max(width, height)))
    return factor * width, factor * height


def _outline_sheet(mask: Upright, plane: str, cuts: list[int]) -> bytes:
    """The mask's edge as a transparent picture."""
    tiles = []
    size = _outline_size(mask, plane)
    for index in cuts:
        flat = Image.fromarray(mask.slice(plane, index).astype(np.uint8) * 255)
        filled = np.asarray(flat.resize(size, Image.Resampling.BILINEAR)) > 127
        tiles.append(_edge(filled).astype(np.uint8))
    picture = Image.fromarray(_sheet(tiles)).convert("P")
    picture.putpalette([0, 0, 0, *OUTLINE_RGB])
    stream = io.BytesIO()
    picture.save(stream, "PNG", transparency=0, bits=1)
    return stream.getvalue()


def _edge(filled: np.ndarray, width: int = 2) -> np.ndarray:
    """The outermost `width` pixels of a region."""
    inner = np.pad(filled, width)
    rows, columns = filled.shape
    kept = filled.copy()
    for across, down in ((0, width), (2 * width, width), (width, 0), (width, 2 * width)):
        kept &= inner[down : down + rows, across : across + columns]
    return filled & ~kept


def _encoded(pictures: dict[str, Image.Image], budget: int) -> dict[str, bytes]:
    """JPEG at the best quality that keeps all pictures within `budget` bytes."""
    encoded: dict[str, bytes] = {}
    for quality in QUALITIES:
        encoded = {name: _jpeg(picture, quality) for name, picture in pictures.items()}
        if sum(len(e) for e in encoded.values()) <= budget:
            break
    return encoded


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def _plane(volume: Upright, plane: str, cuts: list[int]) -> dict[str, Any]:
    width, height = _tile_size(volume, plane)
    return {
        "width": width,
        "height": height,
        "columns": _columns(len(cuts)),
        "positions": [round(volume.position(plane, c), 1) for c in cuts],
        "letters": list(edges(plane)),
        "outline": f"viewer-{plane}-outline.png",
        "outline_size": list(_outline_size(volume, plane)),
    }


def _layer(layer: Layer, limits: tuple[float, float]) -> dict[str, Any]:
    return {
        "name": layer.name,
        "label": layer.style.label,
        "unit": layer.style.unit,
        "window": list(limits) if layer.style.window else None,
        "colours": _css_gradient(layer.style.cmap),
        "sheets": {plane: f"viewer-{plane}-{layer.name}.jpg" for plane in PLANES},
    }


def _css_gradient(cmap: str) -> list[str]:
    """Nine colours from low to high."""
    shades = (colormaps[cmap](np.linspace(0, 1, 9))[:, :3] * 255).round().astype(int)
    return [f"rgb({r},{g},{b})" for r, g, b in shades.tolist()]
