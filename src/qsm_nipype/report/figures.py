"""Figures of maps: arrays in, matplotlib figures out, no global state.

Every figure has a black ground, so that it reads the same on a light and on a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
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
from qsm_nipype.report.styles import MapStyle, style_of

GROUND, INK, OUTLINE = "#000000", "#d7dde5", "#ff9f43"
DPI = 110
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
        scenes = [_Scene(stack[..., e], affine, mask, None, style) for e in picks]
        for scene in scenes:  # the last echo reaches farthest
            scene.limits = scenes[-1].limits
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
    ) -> None:
        whole = upright(np.nan_to_num(np.asarray(data, dtype=np.float32)), affine)
        inside = content(data) if mask is None else np.asarray(mask) > 0.5
        turned = upright(inside, affine)
        box = cropped(whole, turned.data)
        self.style = style
        self.outlines = False
        self.has_mask = mask is not None
        self.map, self.mask = crop(whole, box), crop(turned, box)
        self.background = None
        if background is not None:
            under = upright(np.nan_to_num(np.asarray(background, dtype=np.float32)), affine)
            self.background = crop(under, box)
        shown = self.map if self.background is None else self.background
        self.limits = style.limits(shown.data, self.mask.data)

    def size(self, plane: str) -> tuple[float, float]:
        """Width and height of a picture in mm."""
        rows, columns = self.map.slice(plane, 0).shape
        width, height = self.map.pixel_size(plane)
        return columns * width, rows * height

    def paint(self, axes: Axes, plane: str, index: int, *, letters: bool) -> None:
        """Draw one picture into `axes`."""
        under = self.map if self.background is None else self.background
        picture = under.slice(plane, index)
        inside = self.mask.slice(plane, index)
        if self.has_mask and self.style.masked:
            picture = np.where(inside, picture, np.nan)
        width, height = self.size(plane)
        box = (0.0, width, 0.0, height)
        colours = colormaps[self.style.cmap].with_extremes(bad=GROUND)
        low, high = self.limits
        axes.imshow(picture, cmap=colours, vmin=low, vmax=high, extent=box)
        if self.background is not None:
            paint = _paint_outlines if self.outlines else _paint_labels
            paint(axes, self.map.slice(plane, index), box)
        elif self.has_mask and self.style.outline and inside.any() and not inside.all():
            axes.contour(
                inside[::-1].astype(float), [0.5], colors=OUTLINE, linewidths=0.9, extent=box
            )
        axes.set(xlim=box[:2], ylim=box[2:])
        axes.set_axis_off()
        if letters:
            _paint_letters(axes, plane)
        where = f"{'xyz'[('sagittal', 'coronal', 'axial').index(plane)]} "
        where += f"{self.map.position(plane, index):.0f} mm".replace("-", "−")
        _write(axes, 0.985, 0.015, where, ha="right", va="bottom", size=6.5, alpha=0.8)

    def draw(self, tiles: list[tuple[str, int] | None], columns: int, title: str) -> Figure:
        """Lay the tiles out row by row at one scale for all and add the colour bar."""
        rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
        sizes = [[self.size(t[0]) if t else (0.0, 0.0) for t in row] for row in rows]
        total_width = max(sum(w for w, _ in row) for row in sizes)
        heights = [max(h for _, h in row) for row in sizes]
        frame = _Frame(total_width, sum(heights), title)
        seen: set[str] = set()
        top = 0.0
        for row, shape, height in zip(rows, sizes, heights, strict=True):
            left = (total_width - sum(w for w, _ in row_sizes(shape))) / 2
            for tile, (width, tall) in zip(row, shape, strict=True):
                if tile is None:
                    continue
                axes = frame.axes(left, top + (height - tall) / 2, width, tall)
                self.paint(axes, *tile, letters=tile[0] not in seen)
                seen.add(tile[0])
                left += width
            top += height
        if self.background is None:
            frame.colour_bar(self.style, self.limits)
        return frame.figure


class _Frame:
    """A black figure of fixed width: title on top, tiles measured in mm, colour bar at right."""

    WIDTH, TITLE, BAR, PAD = 10.4, 0.3, 0.75, 0.04  # inches
    TALLEST = 6.6

    def __init__(self, width: float, height: float, title: str) -> None:
        room = self.WIDTH - self.BAR - 2 * self.PAD
        self.scale = min(room / max(width, 1e-6), self.TALLEST / max(height, 1e-6))
        self.left = self.PAD + (room - width * self.scale) / 2
        self.top = (self.TITLE if title else self.PAD) + 0.02
        self.tall = max(self.top + height * self.scale + self.PAD, 1.6)
        self.figure = Figure(figsize=(self.WIDTH, self.tall), dpi=DPI, facecolor=GROUND)
        if title:
            y = 1 - 0.5 * self.TITLE / self.tall
            self.figure.text(
                0.008, y, title, color=INK, size=9.5, va="center", ha="left", weight="bold"
            )

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place given in mm from the top left corner of the tile area."""
        x = (self.left + left * self.scale) / self.WIDTH
        w, h = width * self.scale / self.WIDTH, height * self.scale / self.tall
        y = 1 - (self.top + top * self.scale) / self.tall - h
        return self.figure.add_axes((x, y, w, h))

    def colour_bar(
        self, style: MapStyle, limits: tuple[float, float], span: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """The bar with its unit, at the right, over the part `span` of the height (from top)."""
        usable = (self.tall - self.top - self.PAD) / self.tall
        height = usable * (span[1] - span[0])
        y = self.PAD / self.tall + usable * (1 - span[1])
        inner = min(height * 0.7, 2.2 / self.tall)
        x = 1 - (self.BAR - 0.14) / self.WIDTH
        axes = self.figure.add_axes((x, y + (height - inner) / 2, 0.12 / self.WIDTH, inner))
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(*limits), colormaps[style.cmap]), cax=axes
        )
        ticks = np.linspace(*limits, 5 if inner * self.tall > 1.0 else 3).tolist()
        if style.unit or style.window is not None:
            bar.set_ticks(ticks, labels=[_tick(t, style.unit) for t in ticks])
        else:
            bar.set_ticks(list(limits), labels=["low", "high"])
        bar.outline.set_edgecolor(INK)
        bar.outline.set_linewidth(0.5)
        axes.tick_params(colors=INK, labelsize=7, length=2, width=0.5)
        axes.set_title(style.unit, color=INK, size=7.5, pad=5)


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
    frame = _Frame(width * columns, height * len(strips), title or " ")
    for row, (style, scenes) in enumerate(strips):
        for column, (scene, index) in enumerate(scenes):
            axes = frame.axes(column * width, row * height, width, height)
            scene.paint(axes, "axial", index, letters=column == 0)
            if row == 0:
                _write(axes, 0.5, 0.985, captions[column], ha="center", va="top", size=7.5)
        share = (row / len(strips), (row + 1) / len(strips))
        frame.colour_bar(style, scenes[0][0].limits, share)
    return frame.figure


def _paint_labels(axes: Axes, labels: np.ndarray, box: tuple[float, float, float, float]) -> None:
    shown = np.ma.masked_less(np.rint(labels), 1)
    count = len(LABEL_COLOURS)
    axes.imshow(
        np.ma.mod(shown - 1, count),
        cmap=ListedColormap(LABEL_COLOURS),
        vmin=-0.5,
        vmax=count - 0.5,
        alpha=0.75,
        extent=box,
        interpolation="nearest",
    )


def _paint_outlines(
    axes: Axes, labels: np.ndarray, box: tuple[float, float, float, float]
) -> None:
    shown = np.rint(labels[::-1]).astype(int)
    for label in np.unique(shown[shown > 0]):
        colour = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
        inside = (shown == label).astype(float)
        axes.contour(inside, [0.5], colors=colour, linewidths=0.9, extent=box)


def _paint_letters(axes: Axes, plane: str) -> None:
    left, right, top, _ = edges(plane)
    _write(axes, 0.012, 0.5, left, ha="left", va="center", size=8.5)
    _write(axes, 0.988, 0.5, right, ha="right", va="center", size=8.5)
    _write(axes, 0.012, 0.985, f"{top}↑", ha="left", va="top", size=7)


def _write(axes: Axes, x: float, y: float, text: str, **kind: Any) -> None:
    halo = [withStroke(linewidth=2, foreground=GROUND)]
    axes.text(x, y, text, transform=axes.transAxes, color=INK, path_effects=halo, **kind)


def _tick(value: float, unit: str) -> str:
    halves = 2 * value / np.pi
    if unit == "rad" and abs(halves) > 0.5 and abs(halves - round(halves)) < 1e-6:
        return f"{halves / 2:g}π".replace("-", "−").replace("1π", "π")
    return f"{value:.3g}".replace("-", "−")
