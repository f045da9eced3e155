"""A small picture of a map for the overview of many."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from qsm_nipype.report.display import PLANES, central_slice, crop, cropped, upright
from qsm_nipype.report.styles import style_of

#: width and height of the picture in pixels; it has the three planes side by side
SIZE = (360, 132)


def draw_thumbnail(chi: np.ndarray, affine: np.ndarray, mask: np.ndarray) -> bytes:
    """JPEG of the central slices of susceptibility (X, Y, Z in ppm) in its usual window."""
    inside = upright(np.asarray(mask) > 0.5, affine)
    box = cropped(inside, inside.data, margin=4.0)
    inside, volume = crop(inside, box), crop(upright(np.asarray(chi), affine), box)
    low, high = style_of("chi").limits(volume.data, inside.data)
    tiles = []
    for plane in PLANES:
        index = central_slice(inside.data, plane)
        grey = (np.nan_to_num(volume.slice(plane, index)) - low) / (high - low)
        grey = np.where(inside.slice(plane, index), np.clip(grey, 0, 1), 0)
        tiles.append((np.rint(255 * grey).astype(np.uint8), volume.pixel_size(plane)))
    widths = [tile.shape[1] * size[0] for tile, size in tiles]
    tallest = max(tile.shape[0] * size[1] for tile, size in tiles)
    scale = min(SIZE[0] / sum(widths), SIZE[1] / tallest)
    picture = Image.new("L", SIZE)
    left = round((SIZE[0] - scale * sum(widths)) / 2)
    for (tile, size), width in zip(tiles, widths, strict=True):
        shape = (max(1, round(scale * width)), max(1, round(scale * tile.shape[0] * size[1])))
        small = Image.fromarray(tile).resize(shape, Image.Resampling.LANCZOS)
        picture.paste(small, (left, (SIZE[1] - shape[1]) // 2))
        left += shape[0]
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, optimize=True)
    return stream.getvalue()
