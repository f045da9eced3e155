"""Figures of maps: arrays in, matplotlib figures out, no global state.

Every figure has a black ground, so that it reads the same on a light and on a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from qsm_nipype.report.display import (
    PLANES,
    central_slice,
    crop,
    cropped,
    edges,
    spread_slices,
    upright,
)
from qsm_nipype.report.layout import GROUND, OUTLINE, Frame, Tile
from qsm_nipype.report.styles import MapStyle, style_of

LABEL_COLOURS = ("#4cc9f0", "#f72585", "#ffd166", "#06d6a0", "#b388ff", "#ff7b54")


def mosaic(  # noqa: PLR0913  what to draw and how
    data: np.ndarray,
    affine: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    background: np.ndarray | None = None,
    style: MapStyle | str = "other",
    plane: str = "axial",
    count: int = 14,
    title: str = "",
    outlines: bool = False,
) -> Figure:
    """Slices of one plane, evenly spaced through the mask.

    `data` (X, Y, Z); `mask` and `background` on the same grid. With a `background`, `data` are
    integer labels drawn over it, filled or (`outlines`) by their borders. Returns a Figure; see
    `png`.
    """
    scene = _Scene(data, affine, mask, background, _style(style))
    scene.outlines = outlines
    slices = spread_slices(scene.mask.data, plane, count)
    columns = int(np.ceil(len(slices) / (1 if len(slices) < 6 else 2)))
    return scene.draw([(plane, s) for s in slices], columns, title)


def three_planes(
    data: np.ndarray,
    affine: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    background: np.ndarray | None = None,
    style: MapStyle | str = "other",
    count: int = 4,
    title: str = "",
) -> Figure:
    """`count` slices of each plane, one row per plane; arguments as for `mosaic`."""
    scene = _Scene(data, affine, mask, background, _style(style))
    picks = {p: _around_centre(scene.mask.data, p, count) for p in PLANES}
    if count == 1:
        return scene.draw([(p, picks[p][0]) for p in PLANES], 3, title)
    columns = max(len(slices) for slices in picks.values())
    tiles: list[tuple[str, int] | None] = []
    for plane, slices in picks.items():
        tiles += [(plane, s) for s in slices] + [None] * (columns - len(slices))
    return scene.draw(tiles, columns, title)


def side_by_side(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    *,
    mask: np.ndarray,
    style: MapStyle | str = "chi",
    title: str = "",
) -> Figure:
    """Central slices of several maps of one kind: a column for each, a row for each plane.

    `maps` (X, Y, Z) by what stands above their column, all in one window.
    """
    scenes = [_Scene(data, affine, mask, None, _style(style)) for data in maps.values()]
    sizes = {plane: scenes[0].size(plane) for plane in PLANES}
    wide = max(width for width, _ in sizes.values())
    frame = Frame(wide * len(scenes), sum(tall for _, tall in sizes.values()), title or " ")
    top = 0.0
    for row, (plane, (width, tall)) in enumerate(sizes.items()):
        index = central_slice(scenes[0].mask.data, plane)
        for column, (scene, caption) in enumerate(zip(scenes, maps, strict=True)):
            tile = frame.tile(column * wide + (wide - width) / 2, top, width, tall)
            scene.paint(tile, plane, index, letters=column == 0)
            if row == 0:
                tile.write(0.5, 1.0, caption, ha="center", va="bottom", size=11)
        top += tall
    frame.colour_bar(scenes[0].style, scenes[0].limits)
    return frame.figure


def echoes(
    wrapped: np.ndarray,
    affine: np.ndarray,
    *,
    unwrapped: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    echo_times: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """Central axial slice of every echo: measured phase above, unwrapped phase below.

    `wrapped` and `unwrapped` (X, Y, Z) or (X, Y, Z, echoes) in rad, `echo_times` in s. At most
    six echoes are drawn, the first and the last among them.
    """
    wrapped = wrapped[..., None] if wrapped.ndim == 3 else wrapped
    picks = _echo_choice(wrapped.shape[-1])
    rows = [(wrapped, style_of("wrapped_phase"))]
    if unwrapped is not None:
        unwrapped = unwrapped[..., None] if unwrapped.ndim == 3 else unwrapped
        rows.append((unwrapped, style_of("unwrapped_phase")))
    strips = []
    for stack, style in rows:
        last = _Scene(stack[..., picks[-1]], affine, mask, None, style)  # it reaches farthest
        scenes = [
            _Scene(stack[..., e], affine, mask, None, style, last.limits) for e in picks[:-1]
        ]
        scenes.append(last)
        index = central_slice(scenes[0].mask.data, "axial")
        strips.append((style, [(scene, index) for scene in scenes]))
    captions = [_echo_caption(e, echo_times) for e in picks]
    return _draw_strips(strips, captions, title)


def png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


class _Scene:
    """One map with its mask, turned upright and cropped to the head, ready to be cut."""

    def __init__(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        mask: np.ndarray | None,
        background: np.ndarray | None,
        style: MapStyle,
        limits: tuple[float, float] | None = None,
    ) -> None:
        inside = content(data) if mask is None else np.asarray(mask) > 0.5
        turned = upright(inside, affine)
        box = cropped(turned, turned.data)
        self.style = style
        self.outlines = False
        self.has_mask = mask is not None
        self.map, self.mask = crop(upright(np.asarray(data), affine), box), crop(turned, box)
        under = None if background is None else upright(np.asarray(background), affine)
        self.background = under and crop(under, box)
        shown = self.map if self.background is None else self.background
        self.limits = limits or style.limits(shown.data, self.mask.data)

    def size(self, plane: str) -> tuple[float, float]:
        """Width and height of a picture in mm."""
        rows, columns = self.map.slice(plane, 0).shape
        width, height = self.map.pixel_size(plane)
        return columns * width, rows * height

    def paint(self, tile: Tile, plane: str, index: int, *, letters: bool) -> None:
        """Draw one picture into `tile`."""
        under = self.map if self.background is None else self.background
        picture = np.nan_to_num(under.slice(plane, index).astype(np.float32))
        inside = self.mask.slice(plane, index)
        if self.has_mask and self.style.masked:
            picture = np.where(inside, picture, np.nan)
        colours = colormaps[self.style.cmap].with_extremes(bad=GROUND)
        low, high = self.limits
        tile.axes.imshow(picture, cmap=colours, vmin=low, vmax=high, extent=tile.box)
        if self.background is not None:
            paint = _paint_outlines if self.outlines else _paint_labels
            paint(tile, np.nan_to_num(self.map.slice(plane, index)))
        elif self.has_mask and self.style.outline and inside.any() and not inside.all():
            tile.outline(inside[::-1], OUTLINE)
        if letters:
            _paint_letters(tile, plane)
        where = f"{'xyz'[('sagittal', 'coronal', 'axial').index(plane)]} "
        where += f"{self.map.position(plane, index):.0f} mm".replace("-", "−")
        tile.write(0.985, 0.015, where, ha="right", va="bottom", size=8.5, alpha=0.85)

    def draw(self, tiles: list[tuple[str, int] | None], columns: int, title: str) -> Figure:
        """Lay the tiles out row by row at one scale for all and add the colour bar."""
        rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
        sizes = [[self.size(t[0]) if t else (0.0, 0.0) for t in row] for row in rows]
        total_width = max(sum(w for w, _ in row) for row in sizes)
        heights = [max(h for _, h in row) for row in sizes]
        frame = Frame(total_width, sum(heights), title)
        seen: set[str] = set()
        top = 0.0
        for row, shape, height in zip(rows, sizes, heights, strict=True):
            left = (total_width - sum(w for w, _ in row_sizes(shape))) / 2
            for tile, (width, tall) in zip(row, shape, strict=True):
                if tile is None:
                    continue
                place = frame.tile(left, top + (height - tall) / 2, width, tall)
                self.paint(place, *tile, letters=tile[0] not in seen)
                seen.add(tile[0])
                left += width
            top += height
        if self.background is None:
            frame.colour_bar(self.style, self.limits)
        return frame.figure


def content(data: np.ndarray) -> np.ndarray:
    """Where a map without a mask has something to show: finite and not its corner value."""
    data = np.asarray(data)
    return np.isfinite(data) & (data != data[(0,) * data.ndim])


def row_sizes(sizes: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Only the tiles that exist."""
    return [size for size in sizes if size[0] > 0]


def _style(style: MapStyle | str) -> MapStyle:
    return style if isinstance(style, MapStyle) else style_of(style)


def _around_centre(mask: np.ndarray, plane: str, count: int) -> list[int]:
    if count == 1:
        return [central_slice(mask, plane)]
    return spread_slices(mask, plane, count + 2)[1:-1] or [central_slice(mask, plane)]


def _echo_choice(count: int, most: int = 6) -> list[int]:
    return sorted({int(round(i)) for i in np.linspace(0, count - 1, min(count, most))})


def _echo_caption(echo: int, echo_times: Sequence[float]) -> str:
    known = echo < len(echo_times)
    return f"echo {echo + 1}" + (f", TE {1e3 * echo_times[echo]:.4g} ms" if known else "")


def _draw_strips(
    strips: list[tuple[MapStyle, list[tuple[_Scene, int]]]], captions: list[str], title: str
) -> Figure:
    """Rows of pictures, each row with its own style and colour bar."""
    width, height = strips[0][1][0][0].size("axial")
    columns = max(len(captions), 2)
    frame = Frame(width * columns, height * len(strips), title or " ")
    for row, (style, scenes) in enumerate(strips):
        for column, (scene, index) in enumerate(scenes):
            tile = frame.tile(column * width, row * height, width, height)
            scene.paint(tile, "axial", index, letters=column == 0)
            if row == 0:
                tile.write(0.5, 1.0, captions[column], ha="center", va="bottom", size=10)
        share = (row / len(strips), (row + 1) / len(strips))
        frame.colour_bar(style, scenes[0][0].limits, share)
    return frame.figure


def _paint_labels(tile: Tile, labels: np.ndarray) -> None:
    shown = np.ma.masked_less(np.rint(labels), 1)
    count = len(LABEL_COLOURS)
    tile.axes.imshow(
        np.ma.mod(shown - 1, count),
        cmap=ListedColormap(LABEL_COLOURS),
        vmin=-0.5,
        vmax=count - 0.5,
        alpha=0.75,
        extent=tile.box,
        interpolation="nearest",
    )


def _paint_outlines(tile: Tile, labels: np.ndarray) -> None:
    shown = np.rint(labels[::-1]).astype(int)
    for label in np.unique(shown[shown > 0]):
        tile.outline(shown == label, LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)])


def _paint_letters(tile: Tile, plane: str) -> None:
    left, right, top, _ = edges(plane)
    tile.write(0.012, 0.5, left, ha="left", va="center", size=10)
    tile.write(0.988, 0.5, right, ha="right", va="center", size=10)
    tile.write(0.012, 0.985, f"{top}↑", ha="left", va="top", size=9)
