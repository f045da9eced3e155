"""The page of all lesions of an acquisition: pictures, numbers, and a reader's marks."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from qsm_nipype.dataset.names import stem
from qsm_nipype.report.display import PLANES, Upright, upright
from qsm_nipype.report.lesions import WINDOW
from qsm_nipype.report.styles import style_of
from qsm_nipype.report.templating import load_templates
from qsm_nipype.report.words import make_anchor, title_of

#: maps from top to bottom of a lesion's picture, those that there are
SHOWN = {"chi": "χ", "flair": "FLAIR", "r2star": "R2*"}
#: edge of one of its squares in pixels, and in mm at least and at most
TILE, EDGE, _LARGEST = 150, 30.0, 80.0
#: tissue around a large lesion (mm)
_AROUND = 5.0
#: keys → marks, and what the saved table says for them
MARKS = (("r", "rim"), ("n", "no rim"), ("u", "unsure"), ("x", ""))
SAVED = {"rim": "1", "no rim": "0"}
COLUMNS = ("acquisition", "index", "rim", "comment")

_Turned = dict[str, tuple[Upright, float, float]]


@dataclass(frozen=True)
class LesionCard:
    """One lesion: its row of the table, its picture, outlines in three squares, their edge (mm).

    `probability` is empty where there is none, `chance` is it in words; `call` is what the network
    says.
    """

    index: str
    volume: str
    probability: str
    chance: str
    call: str
    note: str
    picture: str
    outlines: tuple[str, ...]
    edge: float


@dataclass(frozen=True)
class LesionPage:
    """A page (HTML), and the pictures by file name in the folder that it links to."""

    html: str
    pictures: Mapping[str, bytes]


def draw_lesion_page(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    table: str,
    entities: Mapping[str, str],
    *,
    folder: str,
    version: str,
) -> LesionPage | None:
    """Every lesion of `table` in three planes, the likeliest rim first; None without lesions.

    `maps` holds volumes `(X, Y, Z)`: those of `SHOWN` that there are, and lesions (1, 2 …).
    `table` is the text of `*_desc-lesions_dseg.tsv`; `folder` is that of the pictures as the page
    links to them.
    """
    rows = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
    if not rows:
        return None
    turned = _turned(maps, affine)
    labels = upright(np.asarray(maps["lesions"]), affine)
    pictures: dict[str, bytes] = {}
    cards = []
    for row in sorted(rows, key=_order):
        index = int(row["index"])
        picture, outlines, edge = _draw(turned, Upright(labels.data == index, labels.affine))
        pictures[f"{index}.jpg"] = picture
        cards.append(_card(row, f"{folder}/{index}.jpg", outlines, edge))
    html = (
        load_templates()
        .get_template("lesions.html.j2")
        .render(
            cards=cards,
            subject=entities["sub"],
            anchor=make_anchor(title_of(entities)),
            title=title_of(entities),
            name=(name := stem(entities)),
            rows=[f"{SHOWN[kind]} ({_window(kind)})" for kind in turned],
            shape=(3 * TILE, len(turned) * TILE),
            tile=TILE,
            marks={"keys": MARKS, "saved": SAVED, "columns": COLUMNS, "file": f"{name}_rims.tsv"},
            version=version,
        )
    )
    return LesionPage(html, pictures)


def _order(row: Mapping[str, str]) -> tuple[float, int]:
    """The likeliest first, those without a probability last."""
    chance = row["rim_probability"]
    return (1.0 if chance == "n/a" else -float(chance), int(row["index"]))


def _card(
    row: Mapping[str, str], picture: str, outlines: tuple[str, ...], edge: float
) -> LesionCard:
    known = row["rim_probability"].replace("n/a", "")
    chance = f"{float(known):.2f}".replace("0.00", "below 0.01") if known else ""
    call = {"1": "rim", "0": "no rim"}.get(row["rim"], "not classified")
    if row.get("certainty") == "indeterminate":
        call = f"indeterminate, rather {call}"
    return LesionCard(
        index=row["index"],
        volume=f"{float(row['volume_mm3']):.0f}",
        probability=known,
        chance=chance,
        call=call,
        note="" if row["note"] == "n/a" else row["note"],
        picture=picture,
        outlines=outlines,
        edge=edge,
    )


def _window(kind: str) -> str:
    low, high = WINDOW if kind == "chi" else style_of("r2star").window or (0.0, 0.0)
    text = f"{low:g} to {high:g} {'ppm' if kind == 'chi' else '1/s'}".replace("-", "−")
    return "own range" if kind == "flair" else text


def _turned(maps: Mapping[str, np.ndarray], affine: np.ndarray) -> _Turned:
    """The maps there are, upright, with the values that are black and white."""
    found: _Turned = {}
    for kind in SHOWN:
        if kind in maps:
            values = np.asarray(maps[kind])
            low, high = WINDOW
            if kind == "flair":
                bright = values[values > 0]
                low, high = 0.0, float(np.percentile(bright, 99.5)) if bright.size else 1.0
            elif kind == "r2star":
                low, high = style_of("r2star").limits(values, values > 0)
            found[kind] = (upright(values, affine), low, high)
    return found


def _draw(turned: _Turned, body: Upright) -> tuple[bytes, tuple[str, ...], float]:
    """JPEG of a lesion: a row for each map, a column for each plane; outlines; edge (mm)."""
    size = np.asarray(body.voxel_size)
    where = np.argwhere(body.data)
    if not len(where):
        where = np.array([np.array(body.data.shape) // 2])
    low, high = where.min(0), where.max(0) + 1
    middle = (low + high) / 2  # edges of voxels: voxel n reaches from n to n + 1
    through = where[np.argmin((((where + 0.5 - middle) * size) ** 2).sum(1))]
    edge = float(np.clip(((high - low) * size).max() + 2 * _AROUND, EDGE, _LARGEST))
    picture = Image.new("L", (3 * TILE, len(turned) * TILE))
    outlines = []
    for column, plane in enumerate(PLANES):
        for line, (volume, black, white) in enumerate(turned.values()):
            tile = _square(volume, plane, through, middle, edge)
            grey = np.clip((tile - black) / (white - black), 0, 1)
            place = (column * TILE, line * TILE)
            picture.paste(Image.fromarray(np.rint(255 * grey).astype(np.uint8)), place)
        outlines.append(_outline(body, plane, through, middle, edge))
    for n in range(1, 3):  # a line between the squares
        picture.paste(0, (n * TILE - 1, 0, n * TILE + 1, picture.height))
        picture.paste(0, (0, n * TILE - 1, picture.width, n * TILE + 1))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, optimize=True)
    return stream.getvalue(), tuple(outlines), edge


def _frame(volume: Upright, plane: str, middle: np.ndarray, edge: float) -> tuple[float, ...]:
    """Left, top, right and bottom of the square in elements of the picture of a plane."""
    across, up = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
    wide, tall = (edge / s / 2 for s in volume.pixel_size(plane))
    top = volume.data.shape[up] - middle[up]  # row 0 is on top
    return (middle[across] - wide, top - tall, middle[across] + wide, top + tall)


def _square(
    volume: Upright, plane: str, through: np.ndarray, middle: np.ndarray, edge: float
) -> np.ndarray:
    """The values in a square of `edge` mm, `TILE` by `TILE`, interpolated; 0 outside."""
    normal = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    seen = np.nan_to_num(volume.slice(plane, int(through[normal]))).astype(np.float32)
    left, top, right, bottom = _frame(volume, plane, middle, edge)
    pad = int(np.ceil(max(0, -left, -top, right - seen.shape[1], bottom - seen.shape[0]))) + 1
    image: Any = Image.fromarray(np.pad(seen, pad))
    box = (left + pad, top + pad, right + pad, bottom + pad)
    return np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC, box=box))


def _outline(
    body: Upright, plane: str, through: np.ndarray, middle: np.ndarray, edge: float
) -> str:
    """The border of the lesion along its voxels as an SVG path in a square of `TILE`."""
    normal = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    seen = np.pad(body.slice(plane, int(through[normal])), 1)
    left, top, right, bottom = _frame(body, plane, middle, edge)
    wide, tall = TILE / (right - left), TILE / (bottom - top)
    parts = [
        f"M{wide * (c - 1 - left):.1f} {tall * (r - top):.1f}h{wide:.1f}"
        for r, c in np.argwhere(seen[1:] != seen[:-1])
    ] + [
        f"M{wide * (c - left):.1f} {tall * (r - 1 - top):.1f}v{tall:.1f}"
        for r, c in np.argwhere(seen[:, 1:] != seen[:, :-1])
    ]
    return "".join(parts)
