"""Maps of an earlier success beside a failure: they stay, and say what they are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qsm_nipype.dataset.derivatives import outdated_mark, source_entities
from qsm_nipype.run.outcome import Outcome
from qsm_nipype.system import manifest
from qsm_nipype.system.files import write_json, write_text

#: Key of a sidecar that says so.
KEY = "Outdated"
#: Parts of a graph that run after the maps were written: their failure makes no map outdated.
_AFTER = ("report_wf", "report_", "records_")


def mark_outdated(out_dir: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Mark what earlier runs wrote for acquisitions that failed now; outcomes that say so.

    The mark is `LABEL_OUTDATED.txt` beside the maps, and an entry of their sidecars. The next
    success removes both.
    """
    return [_marked(out_dir, outcome) for outcome in outcomes]


def _marked(out_dir: Path, outcome: Outcome) -> Outcome:
    failure = outcome.failure
    if failure is None or failure.node.rpartition(".")[2].startswith(_AFTER[1:]):
        return outcome
    if _AFTER[0] in failure.node.split("."):
        return outcome
    names = manifest.entries(out_dir / manifest.FOLDER / f"{outcome.label}.json")
    own = [name for name in names if name.startswith(f"sub-{outcome.subject}/")]
    paths = [out_dir / name for name in own if (out_dir / name).is_file()]
    if not paths:
        return outcome
    why = f"of an earlier run; the last one failed: {failure.reason}"
    for path in paths:
        if path.name.endswith(".nii.gz"):
            _mark_sidecar(path.with_name(f"{path.name.removesuffix('.nii.gz')}.json"), why)
    mark = outdated_mark(out_dir, source_entities(paths[0]), paths[0].parent.name)
    listed = "\n".join(path.name for path in paths)
    write_text(mark, f"These files are {why}\n\n{listed}\n")
    note = f"{failure.reason} (maps of an earlier run stay, see {mark.name})"
    return replace(outcome, failure=replace(failure, reason=note))


def _mark_sidecar(path: Path, why: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            write_json(
                path,
                {KEY: f"This file is {why}", **{k: v for k, v in content.items() if k != KEY}},
            )
