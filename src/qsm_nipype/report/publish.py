"""Put a subject's page and its pictures into the output folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qsm_nipype.record import AcquisitionRecord
from qsm_nipype.report.page import subject_html, subject_report
from qsm_nipype.system.files import copy_file, write_text


def publish_subject(
    records: Iterable[str | Path | Mapping[str, Any] | AcquisitionRecord],
    out_dir: str | Path,
    *,
    subject: str,
    version: str,
) -> Path:
    """Write `sub-<subject>.html` and copy what it shows to `sub-<subject>/figures`.

    Acquisitions of the subject that earlier runs left in `out_dir` are shown, too.
    Paths of figures and of the viewer's folder are absolute or relative to `out_dir`; pictures
    already inside `out_dir` stay where they are. Returns the page's path.
    """
    root, subject = Path(out_dir), _safe(subject.removeprefix("sub-"))
    given = [AcquisitionRecord.from_json(r) for r in records]
    shown = sorted([*given, *_earlier(root, subject, given)], key=lambda record: record.order)
    placed = [_placed(record, root, subject) for record in shown]
    page = subject_html(subject_report(placed, subject=subject, version=version))
    return write_page(root / f"sub-{subject}.html", page)


def _earlier(
    root: Path, subject: str, given: Iterable[AcquisitionRecord]
) -> list[AcquisitionRecord]:
    """Stored records of the subject's other acquisitions."""
    known = {_label(record) for record in given}
    paths = sorted((root / "logs" / "records").glob(f"sub-{subject}*.json"))
    stored = [AcquisitionRecord.from_json(path) for path in paths]
    return [r for r in stored if r.entities.get("sub") == subject and _label(r) not in known]


def _label(record: AcquisitionRecord) -> str:
    return "_".join(f"{key}-{value}" for key, value in sorted(record.entities.items()))


def write_page(path: Path, html: str) -> Path:
    """Write a page so that it appears only when complete."""
    write_text(path, html)
    return path


def _placed(record: AcquisitionRecord, root: Path, subject: str) -> AcquisitionRecord:
    """The record with every picture inside `root` and its path relative to it."""
    folder = root / f"sub-{subject}" / "figures"
    own = {"sub": subject, **{k: v for k, v in record.entities.items() if k != "sub"}}
    stem = "_".join(f"{k}-{_safe(v)}" for k, v in own.items())
    figures, missing = [], []
    for figure in record.figures:
        source = root / figure.path
        if source.is_file():
            name = f"{stem}_desc-{_safe(figure.name)}{source.suffix}"
            figures.append(replace(figure, path=_inside(source, root, folder / name)))
        else:
            missing.append(f"The figure “{figure.title}” is missing.")
    viewer = _placed_viewer(record.viewer, root, folder / f"{stem}_viewer")
    return replace(
        record, figures=tuple(figures), viewer=viewer, warnings=(*record.warnings, *missing)
    )


def _placed_viewer(viewer: Mapping[str, Any], root: Path, folder: Path) -> Mapping[str, Any]:
    """The manifest with its sheets' folder relative to the page; empty if a sheet is missing."""
    source = root / str(viewer.get("folder", "")) if viewer else root
    names = viewer_sheets(viewer)
    if not names or not all((source / n).is_file() for n in names):
        return {}
    where = [_inside(source / name, root, folder / name) for name in names]
    return {**viewer, "folder": quote(Path(where[0]).parent.as_posix()) + "/"}


def viewer_sheets(viewer: Mapping[str, Any]) -> list[str]:
    """File names of all sheets of a manifest."""
    layers, planes = viewer.get("layers", ()), viewer.get("planes", {})
    sheets = [name for layer in layers for name in layer.get("sheets", {}).values()]
    return sheets + [plane["outline"] for plane in planes.values() if "outline" in plane]


def _safe(label: str) -> str:
    """A label as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9+]", "", label) or "x"


def _inside(source: Path, root: Path, target: Path) -> str:
    """Path of `source` relative to `root`, after copying it to `target` if it lies elsewhere."""
    here, base = source.resolve(), root.resolve()
    if here.is_relative_to(base):
        return here.relative_to(base).as_posix()
    copy_file(source, target)
    return target.resolve().relative_to(base).as_posix()
