"""Where a run may write: never into the raw data, and only where it can."""

from __future__ import annotations

import os
import uuid

from qsm_nipype.errors import UsageError
from qsm_nipype.settings import Settings


def check_places(settings: Settings) -> None:
    """Refuse folders that would spoil the raw data, or cannot be written; makes none.

    Raises UsageError.
    """
    places = {"output folder": settings.output_dir, "work folder (-w)": settings.work_dir}
    source = settings.bids_dir.resolve()
    for name, folder in places.items():
        real = folder.resolve()
        if real == source:
            raise UsageError(f"{folder}: the {name} is the BIDS dataset itself; choose another")
        if source in real.parents and source / "derivatives" not in real.parents:
            raise UsageError(
                f"{folder}: the {name} lies inside the BIDS dataset; choose one elsewhere, "
                f"or in {settings.bids_dir / 'derivatives'}"
            )
        there = next((f for f in (folder, *folder.parents) if os.path.exists(f)), folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"{there}: the {name} cannot be written there; choose another")


def make_places(settings: Settings) -> None:
    """Make the output and the work folder, and try to write there. Raises UsageError."""
    for folder in (settings.output_dir, settings.work_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise UsageError(
                f"{folder}: cannot be written ({exc.strerror}); choose another"
            ) from exc
