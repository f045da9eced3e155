"""How each kind of map is drawn: its window, colours and unit, the same in every report.

Windows are fixed so that two subjects can be compared by eye. Only images in arbitrary units
(`window=None`) are scaled to their own content.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MapStyle:
    """`window` in the map's unit; None: the data's own range, as described in `limits`.

    `ladder` are half-widths of windows around zero, for maps whose range grows with the echo
    time.
    """

    label: str
    unit: str
    window: tuple[float, float] | None
    cmap: str = "gray"
    outline: bool = False
    masked: bool = True
    ladder: tuple[float, ...] = ()

    def limits(self, data: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
        """The window to draw `data` with; never of zero width.

        Without a fixed one: the first rung of the ladder that holds 99 % of the mask, or the 1st
        to 99.5th percentile inside the mask.
        """
        if self.window is not None:
            return self.window
        inside = data[mask] if mask.any() else data
        inside = inside[np.isfinite(inside)]
        if inside.size == 0:
            return (0.0, 1.0)
        if self.ladder:
            reach = float(np.percentile(np.abs(inside), 99))
            rung = next((r for r in self.ladder if r >= reach), self.ladder[-1])
            return (-rung, rung)
        low, high = np.percentile(inside, (1, 99.5)).tolist()
        return (min(0.0, low), high if high > min(0.0, low) else min(0.0, low) + 1.0)

    @property
    def window_text(self) -> str:
        """The window in words: "−0.1 to 0.1 ppm"."""
        if self.window is None:
            return "own range" + (f" ({self.unit})" if self.unit else "")
        low, high = (f"{v:.4g}".replace("-", "−") for v in self.window)
        return f"{low} to {high} {self.unit}".strip()


PI = float(np.pi)
STYLES: dict[str, MapStyle] = {
    "magnitude": MapStyle("Magnitude", "", None, outline=True, masked=False),
    "wrapped_phase": MapStyle("Wrapped phase", "rad", (-PI, PI), masked=False),
    "unwrapped_phase": MapStyle(
        "Unwrapped phase", "rad", None, ladder=(PI, 2 * PI, 4 * PI, 8 * PI, 16 * PI)
    ),
    "phase_offset": MapStyle("Phase offset", "rad", (-PI, PI)),
    "residual": MapStyle("Residual of the field fit", "rad", (0.0, 0.5), "magma"),
    "quality": MapStyle("Phase quality", "", (0.0, 1.0), "viridis", masked=False),
    "noise": MapStyle("Field noise", "ppm", (0.0, 0.02), "magma"),
    "total_field": MapStyle("Total field", "ppm", (-1.0, 1.0)),
    "local_field": MapStyle("Local field", "ppm", (-0.05, 0.05)),
    "chi": MapStyle("Susceptibility χ", "ppm", (-0.1, 0.1)),
    "disagreement": MapStyle("Disagreement of the χ maps", "ppm", (0.0, 0.05), "magma"),
    "r2star": MapStyle("R2*", "1/s", (0.0, 60.0)),
    "r2prime": MapStyle("R2′", "1/s", (0.0, 30.0)),
    "paramagnetic": MapStyle("Paramagnetic susceptibility χ⁺", "ppm", (0.0, 0.1)),
    "diamagnetic": MapStyle("Diamagnetic susceptibility χ⁻", "ppm", (-0.1, 0.0), "gray_r"),
    "t2star": MapStyle("T2*", "s", (0.0, 0.1)),
    "swi": MapStyle("Susceptibility-weighted image", "", None, masked=False),
    "minip": MapStyle("Minimum intensity projection", "", None),
    "mask": MapStyle("Mask", "", (0.0, 1.0), masked=False),
    "other": MapStyle("Map", "", None),
}


def style_of(name: str) -> MapStyle:
    """The style of a map by name. Raises KeyError with the names there are."""
    try:
        return STYLES[name]
    except KeyError:
        raise KeyError(f"no map style {name!r}; there are {', '.join(STYLES)}") from None
