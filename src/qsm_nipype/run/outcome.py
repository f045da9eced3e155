"""What became of each acquisition, and how a run says so: the gravest first, and shortly."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.execution.state import FAILING
from qsm_nipype.record import Finding
from qsm_nipype.report.stored import FOLDER, read_record
from qsm_nipype.run.failures import Failure
from qsm_nipype.verdict import LIGHTS, WORDS, count, judge

#: What may become of an acquisition, the gravest first; colours of the words on a terminal.
STYLES = {"failed": "bold red", "red": "bold red", "yellow": "yellow", "green": "green"}
#: Lines that the end of a run may take on a terminal, and pages that are named one by one.
LONGEST, NAMED = 18, 8
_SHORT = 110  # letters of a line where there are many


@dataclass(frozen=True)
class Outcome:
    """An acquisition after the run: its findings, or why it has no map."""

    label: str
    subject: str
    findings: tuple[Finding, ...] = ()
    failure: Failure | None = None

    @property
    def light(self) -> str:
        """A key of `STYLES`."""
        return "failed" if self.failure else judge(self.findings).light

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences that say why the light is not green."""
        if self.failure is None:
            return judge(self.findings).reasons
        crash = self.failure.crash_file
        return (self.failure.reason + (f" (traceback: {crash})" if crash else ""),)

    def to_state(self) -> dict[str, Any]:
        """What the participant's state file holds of it."""
        texts = {f"{s}s": [f.text for f in self.findings if f.severity == s] for s in LIGHTS}
        return {"acquisition": self.label, "light": self.light, **texts}


def collect_outcomes(
    out_dir: Path, acquisitions: Iterable[Acquisition], failures: Iterable[Failure]
) -> list[Outcome]:
    """The outcome of every acquisition, by the record that it left; the gravest first."""
    found = {f.label: Outcome(f.label, f.subject, failure=f) for f in failures}
    for item in acquisitions:
        if item.label not in found:
            found[item.label] = _by_record(out_dir, item.label, item.subject)
    order = list(STYLES)
    return sorted(found.values(), key=lambda o: (order.index(o.light), o.label))


def _by_record(out_dir: Path, label: str, subject: str) -> Outcome:
    stored = out_dir / FOLDER / f"{label}.json"
    if not stored.exists():
        reason = "the run ended before this acquisition was finished; give the command again"
        return Outcome(label, subject, failure=Failure(label, subject, reason))
    record = read_record(stored)
    failure = Failure(label, subject, record.error.message) if record.error else None
    return Outcome(label, subject, record.findings, failure)


def exit_code(outcomes: Iterable[Outcome], fail_on: str) -> int:
    """1 where an acquisition has no map, or one whose light `--fail-on` names; else 0."""
    return int(any(o.failure or o.light in FAILING[fail_on] for o in outcomes))


# ---- in words -------------------------------------------------------------------------------


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many acquisitions have a map, and of which light."""
    counts = Counter(outcome.light for outcome in outcomes)
    made = len(outcomes) - counts["failed"]
    lights = ", ".join(f"{counts[light]} {light}" for light in STYLES if counts[light])
    return f"{made} of {len(outcomes)} acquisitions finished" + (f": {lights}" if lights else "")


def full_table(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """Light and text of every line: a line for each reason, notes counted."""
    lines = []
    for outcome in outcomes:
        reasons = outcome.reasons or (WORDS["green"],)
        first, *others = reasons
        lines.append((outcome.light, f"{outcome.label}: {first}" + _notes([outcome])))
        lines += [("", f"{outcome.label}: {reason}") for reason in others]
    return lines


def short_table(
    outcomes: Sequence[Outcome], log: Path | str, *, longest: int = LONGEST, width: int = 0
) -> list[tuple[str, str]]:
    """As `full_table`, in at most `longest` lines of a terminal of `width` letters.

    Where there are more, an acquisition has one line, the green ones share one, and what is left
    out is counted by light; `log` is where all of it stands.
    """
    full = full_table(outcomes)
    if sum(-(-(len(text) + 8) // width) if width else 1 for _, text in full) <= longest:
        return full
    bad = [outcome for outcome in outcomes if outcome.light != "green"]
    good = [outcome for outcome in outcomes if outcome.light == "green"]
    room = longest - bool(good) - 1
    lines = [(o.light, _in_a_line(o, (width or _SHORT) - 8)) for o in bad[:room]]
    if left := Counter(outcome.light for outcome in bad[room:]):
        counts = ", ".join(f"{left[light]} {light}" for light in STYLES if left[light])
        lines.append(("", f"and {sum(left.values())} more ({counts}): see {log}"))
    if good:
        lines.append(("green", f"{len(good)} acquisitions" + _notes(good)))
    return lines


def _in_a_line(outcome: Outcome, letters: int) -> str:
    others = len(outcome.reasons) - 1
    end = f" (and {others} more)" if others else ""
    text = f"{outcome.label}: {outcome.reasons[0]}"
    room = max(len(outcome.label) + 12, letters - len(end))
    return (text if len(text) <= room else f"{text[: room - 2]} …") + end


def _notes(outcomes: Iterable[Outcome]) -> str:
    number = sum(count(outcome.findings, "note") for outcome in outcomes)
    return f" ({number} note{'' if number == 1 else 's'})" if number else ""


# ---- where it is read -----------------------------------------------------------------------


def tell(outcomes: Sequence[Outcome], out_dir: Path, fail_on: str) -> None:
    """The end of a run: the table on the standard error, the pages on the standard output."""
    from rich.console import Console
    from rich.text import Text

    log = out_dir / "logs" / "run.log"
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    width = shutil.get_terminal_size().columns if console.is_terminal else 0
    for light, text in short_table(outcomes, log, width=width):
        word = Text(f"{light:<6}  ", style=STYLES.get(light, ""))
        console.print(word + Text(text))
    print(f"qsm-nipype: {summary(outcomes)}", file=sys.stderr)
    lights = {outcome.light for outcome in outcomes}
    failing = [light for light in FAILING[fail_on] if light in lights]
    if failing and "failed" not in lights:
        print(
            f"qsm-nipype: exit code 1, for there are {' and '.join(failing)} maps "
            f"(--fail-on {fail_on})",
            file=sys.stderr,
        )
    subjects = sorted({outcome.subject for outcome in outcomes})
    if len(subjects) <= NAMED:
        for subject in subjects:
            print(out_dir / f"sub-{subject}.html")
    else:
        print(f"{out_dir / 'sub-*.html'} ({len(subjects)} pages)")


def write_down(outcomes: Sequence[Outcome], log: Path) -> None:
    """Every finding of every acquisition, notes too, at the end of the run's log."""
    lines = [f"[outcome] {summary(outcomes)}"]
    for outcome in outcomes:
        lines.append(f"[outcome] {outcome.label}: {outcome.light}")
        if outcome.failure is not None:
            lines.append(f"[outcome] {outcome.label}: failure: {outcome.reasons[0]}")
        for severity in LIGHTS:
            found = [f for f in outcome.findings if f.severity == severity]
            lines += [f"[outcome] {outcome.label}: {severity}: {f.text}" for f in found]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
