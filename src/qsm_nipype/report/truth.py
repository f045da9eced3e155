"""The picture of a simulated map beside its truth, added to a page that there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qsm_nipype.report.figures import png, side_by_side
from qsm_nipype.report.stored import FOLDER
from qsm_nipype.report.subject import write_subject_report
from qsm_nipype.system.files import write_bytes, write_json


def draw_truth(chi: np.ndarray, truth: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> bytes:
    """PNG of `chi`, `truth` and their difference (X, Y, Z in ppm), in one window."""
    maps = {"map": chi, "simulated truth": truth, "error: map − truth": chi - truth}
    return png(side_by_side(maps, affine, mask=mask, style="chi"))


def add_truth(root: Path, subject: str, picture: bytes, caption: str) -> Path:
    """Put `picture` beside χ on the page of the only acquisition of `subject`; returns the page.

    `root` is the derivatives dataset.
    """
    label = f"sub-{subject}"
    stored = root / FOLDER / f"{label}.json"
    record = json.loads(stored.read_text(encoding="utf-8"))
    path = Path(label, "figures", f"{label}_desc-truth_figure.png")
    write_bytes(root / path, picture)
    figure = {
        "name": "truth",
        "title": "The map beside its simulated truth (−0.1 to 0.1 ppm)",
        "caption": caption,
        "alt": "Central slices of three planes: the map, the truth, and the error",
        "path": path.as_posix(),
    }
    others = [entry for entry in record.get("figures", []) if entry["name"] != "truth"]
    write_json(stored, {**record, "figures": [*others, figure]})
    return write_subject_report(root, subject, [label], {})
