"""Put a subject's page and its pictures into the output folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from qsm_nipype.dataset.names import stem
from qsm_nipype.record import AcquisitionRecord, Finding, Viewer
from qsm_nipype.report.page import arrange_subject, render_subject
from qsm_nipype.report.stored import FOLDER, elapsed, entities_of, read_record
from qsm_nipype.report.volumes import LIBRARY, read_library
from qsm_nipype.system.files import copy_file, write_bytes, write_text


def publish_subject(
    records: Iterable[str | Path | AcquisitionRecord],
    out_dir: str | Path,
    *,
    subject: str,
    version: str,
) -> Path:
    """Write `sub-<subject>.html` and copy what it shows to `sub-<subject>/figures`.

    `records` are stored ones (see `stored.read_record`) or made ones; acquisitions of the subject
    that earlier runs left in `out_dir` are shown, too. Paths of figures and of the viewer's
    folder are absolute or relative to `out_dir`; pictures already inside `out_dir` stay where
    they are. Returns the page's path.
    """
    root, subject = Path(out_dir), _safe(subject.removeprefix("sub-"))
    given = [r if isinstance(r, AcquisitionRecord) else read_record(Path(r)) for r in records]
    shown = sorted([*given, *_earlier(root, subject, given)], key=_order)
    placed = [_placed(record, root, subject) for record in shown]
    seconds = elapsed(root, subject)
    page = render_subject(
        arrange_subject(placed, subject=subject, version=version, seconds=seconds)
    )
    return write_page(root / f"sub-{subject}.html", page)


def _earlier(
    root: Path, subject: str, given: Iterable[AcquisitionRecord]
) -> list[AcquisitionRecord]:
    """Stored records of the subject's other acquisitions."""
    known = {record.name for record in given}
    paths = sorted((root / FOLDER).glob(f"sub-{subject}*.json"))
    own = [path for path in paths if entities_of(path.stem).get("sub") == subject]
    return [read_record(path) for path in own if path.stem not in known]


def _order(record: AcquisitionRecord) -> list[tuple[bool, int, str]]:
    """Sorts acquisitions as their files' names, but run-10 after run-2."""
    words = re.split(r"(\d+)", record.name)
    return [(w.isdecimal(), int(w) if w.isdecimal() else 0, w) for w in words]


def write_page(path: Path, html: str) -> Path:
    """Write a page so that it appears only when complete."""
    write_text(path, html)
    return path


def _placed(record: AcquisitionRecord, root: Path, subject: str) -> AcquisitionRecord:
    """The record with every picture inside `root` and its path relative to it."""
    folder = root / f"sub-{subject}" / "figures"
    name = stem({**{k: _safe(v) for k, v in record.entities.items()}, "sub": subject})
    figures, missing = [], []
    for figure in record.figures:
        source = root / figure.path
        if source.is_file():
            target = folder / f"{name}_desc-{_safe(figure.name)}{source.suffix}"
            page = figure.page if (root / figure.page).is_file() else ""
            figures.append(replace(figure, path=_inside(source, root, target), page=page))
        else:
            missing.append(Finding("warning", f"the figure “{figure.title}” is missing"))
    viewer = record.viewer and _placed_viewer(record.viewer, root, folder / f"{name}_viewer")
    return replace(
        record, figures=tuple(figures), viewer=viewer, findings=(*record.findings, *missing)
    )


def _placed_viewer(viewer: Viewer, root: Path, folder: Path) -> Viewer | None:
    """The manifest with its files' folder relative to the page; None if a file is missing."""
    source, names = root / viewer.folder, list_files(viewer)
    if not names or not all((source / n).is_file() for n in names):
        return None
    where = [_inside(source / name, root, folder / name) for name in names]
    _place_library(folder.parent / LIBRARY)
    return replace(viewer, folder=quote(Path(where[0]).parent.as_posix()) + "/")


def _place_library(target: Path) -> None:
    """NiiVue once for each subject, so that page and folder can be copied together."""
    library = read_library()
    if not target.is_file() or target.read_bytes() != library:
        write_bytes(target, library)


def list_files(viewer: Viewer) -> list[str]:
    """File names of all volumes of a manifest."""
    return [str(entry["file"]) for entry in (*viewer.layers, *viewer.overlays) if "file" in entry]


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
