"""The page of a subject from what its acquisitions left in the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_nipype import __version__
from qsm_nipype.report.publish import publish_subject


def write_subject_report(
    out_dir: Path, subject: str, labels: Sequence[str], errors: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write `sub-<subject>.html` from logs/records, and say what failed.

    `labels` are the subject's acquisitions; `errors` maps those that failed to {message, node,
    crashfile}, and they are shown without maps of an earlier run. Returns the page's path.
    """
    records: list[Any] = []
    for label in labels:
        stored = out_dir / "logs" / "records" / f"{label}.json"
        if label in errors:
            entities = dict(part.split("-", 1) for part in label.split("_") if "-" in part)
            records.append({"entities": entities, "error": dict(errors[label])})
        elif stored.exists():
            records.append(str(stored))
    return publish_subject(records, out_dir, subject=subject, version=__version__)
