"""The ground of a figure: tiles of one scale on black, with a title and colour bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from qsm_nipype.report.styles import MapStyle

GROUND, INK, OUTLINE = "#000000", "#d7dde5", "#ff9f43"
DPI = 110


@dataclass(frozen=True)
class Tile:
    """A place for one picture on the axes of all; `box` is left, right, bottom, top in mm."""

    axes: Axes
    box: tuple[float, float, float, float]

    def write(self, x: float, y: float, text: str, **kind: Any) -> None:
        """Text at fractions of the tile's width and height."""
        left, right, bottom, top = self.box
        halo = [withStroke(linewidth=2, foreground=GROUND)]
        place = (left + x * (right - left), bottom + y * (top - bottom))
        self.axes.text(*place, text, color=INK, path_effects=halo, **kind)

    def outline(self, inside: np.ndarray, colour: str) -> None:
        """The border of a region, row 0 at the bottom."""
        self.axes.contour(
            inside.astype(float), [0.5], colors=colour, linewidths=0.9, extent=self.box
        )


class Frame:
    """A black figure of fixed width: title on top, tiles measured in mm, colour bar at right."""

    WIDTH, TITLE, BAR, PAD = 10.4, 0.34, 0.85, 0.04  # inches
    TALLEST = 8.6

    def __init__(self, width: float, height: float, title: str) -> None:
        room = self.WIDTH - self.BAR - 2 * self.PAD
        self.scale = min(room / max(width, 1e-6), self.TALLEST / max(height, 1e-6))
        self.left = self.PAD + (room - width * self.scale) / 2
        self.top = (self.TITLE if title else self.PAD) + 0.02
        self.tall = max(self.top + height * self.scale + self.PAD, 1.6)
        self.figure = Figure(figsize=(self.WIDTH, self.tall), dpi=DPI, facecolor=GROUND)
        area = (self.left / self.WIDTH, self.PAD / self.tall, width * self.scale / self.WIDTH)
        box = (*area, height * self.scale / self.tall)
        self.area = self.figure.add_axes((box[0], 1 - self.top / self.tall - box[3], *box[2:]))
        self.area.set(xlim=(0, width), ylim=(-height, 0), autoscale_on=False)
        self.area.set_axis_off()
        if title:
            y = 1 - 0.5 * self.TITLE / self.tall
            self.figure.text(
                0.008, y, title, color=INK, size=11, va="center", ha="left", weight="bold"
            )

    def tile(self, left: float, top: float, width: float, height: float) -> Tile:
        """A place given in mm from the top left corner of the tile area."""
        return Tile(self.area, (left, left + width, -top - height, -top))

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
        axes.tick_params(colors=INK, labelsize=9, length=2, width=0.5)
        axes.set_title(style.unit, color=INK, size=9, pad=5)


def _tick(value: float, unit: str) -> str:
    halves = 2 * value / np.pi
    if unit == "rad" and abs(halves) > 0.5 and abs(halves - round(halves)) < 1e-6:
        return f"{halves / 2:g}π".replace("-", "−").replace("1π", "π")
    return f"{value:.3g}".replace("-", "−")
