"""The page of a subject from what its acquisitions left in the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qsm_nipype import __version__
from qsm_nipype.record import AcquisitionRecord, FailureRecord
from qsm_nipype.report.publish import publish_subject
from qsm_nipype.report.stored import FOLDER, entities_of, read_record


def write_subject_report(
    out_dir: Path, subject: str, labels: Sequence[str], errors: Mapping[str, Mapping[str, str]]
) -> Path:
    """Write `sub-<subject>.html` from logs/records, and say what failed.

    `labels` are the subject's acquisitions; `errors` maps those that failed to {message, node,
    crashfile}, and they are shown without maps of an earlier run. Returns the page's path.
    """
    records: list[AcquisitionRecord] = []
    for label in labels:
        stored = out_dir / FOLDER / f"{label}.json"
        if label in errors:
            failure = FailureRecord(**errors[label])
            entities = {"sub": subject, **entities_of(label)}
            records.append(AcquisitionRecord(entities, error=failure))
        elif stored.exists():
            records.append(read_record(stored))
    return publish_subject(records, out_dir, subject=subject, version=__version__)
