"""The records that runs have stored, as the page of a subject shows them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.errors import DataError
from qsm_nipype.record import AcquisitionRecord, FailureRecord
from qsm_nipype.report.methods_text import check_sentences

#: Below the derivatives dataset, one `sub-01_run-2.json` for each acquisition.
FOLDER = Path("logs", "records")
#: Below the derivatives dataset, what `qsm-nipype status` reads of each subject.
STATES = Path("logs", "state")


def read_record(path: Path) -> AcquisitionRecord:
    """The record stored at `path`; one that cannot be shown becomes a record that says why.

    Damaged files and records of other versions must not cost the page of the subject's other
    acquisitions.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = AcquisitionRecord.from_json(content, name=path.name)
        check_sentences(record.steps, name=path.name)
    except DataError as refusal:
        return _failed_record(path, f"{refusal}; process this acquisition again")
    except (OSError, ValueError) as exc:
        reason = f"{path.name}: this record could not be read ({type(exc).__name__})"
        return _failed_record(path, f"{reason}; process this acquisition again")
    return record


def place_of_thumbnail(entities: Mapping[str, str]) -> Path:
    """Where an acquisition's small picture of χ lies, below the derivatives dataset."""
    return Path(f"sub-{entities['sub']}", "figures", f"{stem(entities)}_thumb.jpg")


def elapsed(root: Path, subject: str) -> float | None:
    """Seconds from the start of the subject's last run to now, or to its end; None if unknown.

    What `qsm-nipype status` reads tells it: one file for each subject, in `logs/state`.
    """
    try:
        content = json.loads((root / STATES / f"sub-{subject}.json").read_text(encoding="utf-8"))
        start, end = float(content["started"]), float(content["updated"])
        running = content["status"] == "running"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return max(0.0, (time.time() if running else end) - start)


def entities_of(label: str) -> dict[str, str]:
    """Entities of an acquisition's label, `sub-01_run-2`."""
    return parse_name(Path(f"{label}_record"))[0]


def _failed_record(path: Path, message: str) -> AcquisitionRecord:
    return AcquisitionRecord(entities_of(path.stem), error=FailureRecord(message))
