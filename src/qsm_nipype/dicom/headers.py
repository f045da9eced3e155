"""Which series lie in a folder of DICOM files, and which of them may be gradient echoes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

#: The only elements that are read; names and dates of the patient are not.
_TAGS = (
    "Modality",
    "Rows",
    "ImageType",
    "ScanningSequence",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "InversionRecovery",
    "PatientID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
)
#: Words of ImageType that mark what a scanner computed from gradient echoes.
_COMPUTED = {"MIP", "MNIP", "MINIP", "MIN IP", "SWI", "MPR", "PROJECTION IMAGE"}


@dataclass(frozen=True)
class Series:
    """One series: its files, and in `left_out` why it is no gradient echo (empty: it may be).

    `patient` and `study` only serve to tell whether two series belong together.
    """

    number: int
    description: str
    patient: str
    study: str
    files: tuple[Path, ...]
    left_out: str = ""


def read_series(folder: Path) -> list[Series]:
    """The series below `folder`, by number.

    Files that are no DICOM images are passed over, and so are further copies of an image.
    """
    found: dict[str, dict[str, Path]] = {}
    first: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        except Exception:  # noise raises whatever a reader runs into
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        if uid and "Rows" in header:  # reports and raw data may share the images' series
            found.setdefault(uid, {}).setdefault(str(header.get("SOPInstanceUID", path)), path)
            first.setdefault(uid, header)
    series = [_series(first[uid], files.values()) for uid, files in found.items()]
    return sorted(series, key=lambda s: (s.study, s.number))


def _series(header: Any, files: Iterable[Path]) -> Series:
    return Series(
        number=int(header.get("SeriesNumber") or 0),
        description=str(header.get("SeriesDescription", "")).strip(),
        patient=str(header.get("PatientID", "")),
        study=str(header.get("StudyInstanceUID", "")),
        files=tuple(files),
        left_out=why_left_out(header),
    )


def why_left_out(header: Any) -> str:
    """Why images of this header are no gradient echoes, in words; empty where they may be.

    `header` is a pydicom dataset. Research sequences (ScanningSequence RM, as GE writes for many
    gradient echoes) pass.
    """
    sequence = _words(header.get("ScanningSequence"))
    if header.get("Modality", "MR") != "MR":
        return "no MR images"
    if "EP" in sequence or header.get("EchoPlanarPulseSequence") == "YES":
        return "echo planar"
    if "IR" in sequence or header.get("InversionRecovery") == "YES":
        return "inversion recovery"
    if sequence and not sequence & {"GR", "RM"} or header.get("EchoPulseSequence") == "SPIN":
        return "no gradient echo"
    if _words(header.get("ImageType")) & _COMPUTED:
        return "computed by the scanner"
    return ""


def _words(value: Any) -> set[str]:
    """A multi-valued element as upper-case words."""
    if value is None:
        return set()
    return {str(v).upper() for v in ([value] if isinstance(value, str) else value)}
