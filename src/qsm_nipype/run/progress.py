"""Which subject is at which step: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

#: Words for the workflows of `workflows.base`.
STAGES = {
    "phase_wf": "reading phase",
    "fieldmap_wf": "field mapping",
    "masking_wf": "masking",
    "background_wf": "background removal",
    "inversion_wf": "dipole inversion",
    "relaxometry_wf": "R2* mapping",
    "segmentation_wf": "segmentation",
    "lesions_wf": "lesions",
    "swi_wf": "susceptibility-weighted images",
    "separation_wf": "separation of sources",
    "vessels_wf": "veins and bleeds",
    "outputs_wf": "writing maps",
    "report_wf": "figures",
}


class Progress:
    """Takes Nipype's status callbacks; use as a context manager around the run.

    `totals` maps each acquisition's workflow name to its number of nodes, `labels` to the name
    that people know. Every line also goes to the file `log`. `note` is called
    after each step with the acquisition and all counts of finished steps. `started` is the reading
    of `time.monotonic` that lines count from, now by default.
    """

    def __init__(
        self,
        totals: Mapping[str, int],
        labels: Mapping[str, str],
        log: Path,
        note: Callable[[str, Mapping[str, int]], None] | None = None,
        *,
        started: float | None = None,
    ) -> None:
        self._log, self._note = log, note
        self._totals, self._labels = dict(totals), dict(labels)
        self._done = dict.fromkeys(totals, 0)
        self._running: dict[str, list[str]] = {name: [] for name in totals}
        self._failed: dict[str, str] = {}
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._on_terminal = self._console.is_terminal
        self._started = time.monotonic() if started is None else started
        #: full names of the nodes that failed
        self.failures: list[str] = []

    def __enter__(self) -> Progress:
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_terminal:
            self._live.update(self._table())
            self._live.stop()

    def __call__(self, node: Any, status: str) -> None:
        """Nipype's `status_callback`: `start`, `end` or `exception`."""
        owner = next((part for part in node.fullname.split(".") if part in self._totals), None)
        if status == "exception":
            self.failures.append(node.fullname)
        if owner is None or not is_work(node.fullname):
            return
        stage = stage_of(node.fullname)
        running = self._running[owner]
        if status == "start":
            running.append(stage)
        elif stage in running:
            running.remove(stage)
        if status == "end":
            self._done[owner] += 1
        if status == "exception":
            self._failed[owner] = stage
        self._show(owner, stage, status)
        if self._note is not None and status != "start":
            with suppress(OSError):
                self._note(owner, self._done)

    def _show(self, owner: str, stage: str, status: str) -> None:
        words = {"start": "…", "end": "done", "exception": "FAILED"}
        passed = time.monotonic() - self._started
        count = f"{self._done[owner]}/{self._totals[owner]}"
        line = f"[{passed:7.1f} s] {self._labels[owner]} {count:>6} {stage} {words[status]}"
        with suppress(OSError), self._log.open("a", encoding="utf-8") as stream:
            print(line, file=stream)  # a full disk ends nodes, not what others may still do
        if self._on_terminal:
            self._live.update(self._table())
        else:
            print(line, file=sys.stderr)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, total in self._totals.items():
            done = self._done[name]
            filled = round(20 * done / max(1, total))
            bar = "█" * filled + "░" * (20 - filled)
            if name in self._failed:
                state = f"[red]failed: {self._failed[name]}[/red]"
            elif self._running[name]:
                state = ", ".join(dict.fromkeys(self._running[name]))
            else:
                state = "done" if done >= total else "waiting"
            table.add_row(self._labels[name], bar, f"{done}/{total}", state)
        return table


def is_work(fullname: str) -> bool:
    """Whether a node does something that a user would call a step."""
    name = fullname.rsplit(".", 1)[-1]
    return name not in ("inputnode", "outputnode") and not name.startswith(("all_", "records_"))


def stage_of(fullname: str) -> str:
    """`wf.sub_01.inversion_wf.tv` → `dipole inversion (tv)`."""
    parts = fullname.split(".")
    for place, part in enumerate(parts):
        if part in STAGES:
            return (
                f"{STAGES[part]} ({parts[place + 1]})" if place + 1 < len(parts) else STAGES[part]
            )
    return parts[-1].replace("_", " ")
