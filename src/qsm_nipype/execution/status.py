"""`qsm-nipype status OUT`: who is done, with which maps, running or failed, and why."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from qsm_nipype.errors import QSMError, UsageError
from qsm_nipype.execution import scheduler, state
from qsm_nipype.execution.scheduler import JobState, UnreachableError
from qsm_nipype.execution.state import State
from qsm_nipype.system import manifest
from qsm_nipype.system.arguments import Parser

ORDER = ("failed", "lost", "damaged", "running", "queued", "done")
#: Sentences of a participant that its line holds; `--json` has all.
SHOWN = 3


@dataclass(frozen=True)
class Report:
    """A participant's state as it is now: what its file says, checked against who wrote it."""

    label: str
    status: str  # one of ORDER; lost: no sign of life from a machine that cannot be asked
    why: str
    state: State

    @property
    def light(self) -> str:
        """The gravest light of the maps of a participant that is done; empty for others."""
        return self.state.light if self.status == "done" else ""

    @property
    def place(self) -> tuple[int, str]:
        """Sorts reports: what needs attention first."""
        ranks = ("failed", "lost", "damaged", "red", "yellow", "running", "queued")
        now = self.light if self.light in ranks else self.status
        return (ranks.index(now) if now in ranks else len(ranks), self.label)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. 0: all well; 1: who failed, is lost or has a red map; 2: wrong use."""
    parser = Parser(prog="qsm-nipype status", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="output folder of the run")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every result and compare it with the checksum it was written with",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--fail-on",
        choices=tuple(state.FAILING),
        default="error",
        help="exit code 1 for maps with an error (red), with a warning too (red or yellow), or "
        "never because of a map (default: error)",
    )
    options = parser.parse_args(argv)
    try:
        reports = survey(
            options.out_dir, must_exist=True, verify="contents" if options.verify else ""
        )
    except QSMError as error:
        print(f"qsm-nipype status: {error}", file=sys.stderr)
        return 2
    print(as_json(reports) if options.json else as_table(reports))
    bad = state.FAILING[options.fail_on]
    return int(any(r.status in ("failed", "lost", "damaged") or r.light in bad for r in reports))


def survey(out_dir: Path | str, *, must_exist: bool = False, verify: str = "") -> list[Report]:
    """State of every participant of an output folder, by label.

    `verify` looks at the results of those that are done: at their "sizes", or by reading them at
    their "contents". Raises UsageError when `must_exist` and no
    run has written there.
    """
    if must_exist and not (Path(out_dir) / "logs" / "state").is_dir():
        raise UsageError(f"{out_dir}: no run has started here; give the output folder of a run.")
    states = state.read_all(out_dir)
    jobs = _jobs_of([s.job for s in states if s.job and s.status in ("submitted", "running")])
    reports = [_report(s, jobs.get(s.job)) for s in states]
    return _verified(Path(out_dir), reports, verify == "contents") if verify else reports


def _verified(out_dir: Path, reports: Sequence[Report], contents: bool) -> list[Report]:
    """The reports; of those that are done and whose results are damaged, with what is wrong."""
    manifests: dict[str, list[Path]] = {}
    for path in sorted((out_dir / manifest.FOLDER).rglob("sub-*.json")):
        manifests.setdefault(path.stem.partition("_")[0], []).append(path)
    return [
        _verify(out_dir, report, manifests.get(report.label, []), contents)
        if report.status == "done" and report.state.verdicts
        else report
        for report in reports
    ]


def _verify(out_dir: Path, report: Report, manifests: Sequence[Path], contents: bool) -> Report:
    faults: dict[str, str] = {}
    for path in manifests:
        faults |= manifest.damage(path, out_dir, contents=contents)
    if page := manifest.damaged_page(out_dir, report.label.removeprefix("sub-")):
        faults[f"{report.label}.html"] = page
    if not manifests:
        faults["its results"] = "left no checksums"
    if not faults:
        return report
    texts = [f"{name} {fault}" for name, fault in faults.items()]
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    why = f"{'; '.join(texts[:SHOWN])}{more}: give the command again"
    return replace(report, status="damaged", why=why)


def _jobs_of(numbers: list[str]) -> dict[str, JobState]:
    """What SLURM says; nothing where it does not answer or has forgotten."""
    try:
        found = scheduler.states(numbers)
    except UnreachableError:
        return {}
    return {number: job for number, job in found.items() if job.state != scheduler.FORGOTTEN}


def _report(now: State, job: JobState | None) -> Report:
    status, why = _judge(now, job)
    return Report(now.label, status, why, now)


def _judge(now: State, job: JobState | None) -> tuple[str, str]:
    if now.status == "done":
        return "done", _findings(now)
    if now.status == "failed":
        return "failed", _reasons(now)
    if job is not None:
        return _judge_job(now, job)
    if now.status == "submitted":
        return _judge_silent(now, "queued", f"SLURM does not know its job {now.job} any more")
    alive = now.alive()
    if alive is None:
        return _judge_silent(now, "running", "no sign of life")
    if alive:
        return "running", _progress(now)
    return "failed", "its process ended without a report (killed, out of memory?)"


def _judge_job(now: State, job: JobState) -> tuple[str, str]:
    if job.state == "PENDING" or job.state.startswith("REQUEUE"):
        return "queued", f"SLURM job {now.job}: {job.reason or 'waiting'}"
    if job.live:
        return "running", _progress(now)
    if job.state == "COMPLETED":
        return "failed", f"its SLURM job {now.job} ended without a report"
    return "failed", f"its SLURM job {now.job} {job}"


def _judge_silent(now: State, status: str, why: str) -> tuple[str, str]:
    silent = time.time() - now.updated
    if silent > state.LOST_AFTER:
        return "lost", f"{why} since {_clock(now.updated)}"
    return status, _progress(now) if status == "running" else ""


def _progress(now: State) -> str:
    parts = [f"since {_clock(now.started)}"]
    if now.nodes_total:
        parts.append(f"{now.nodes_done} of {now.nodes_total} steps")
    return ", ".join([*parts, f"SLURM job {now.job}"] if now.job else parts)


def _reasons(now: State) -> str:
    texts = [f"{f['node']}: {f['reason']}" if f["node"] else f["reason"] for f in now.failures]
    return "; ".join(texts) or "no reason was written down"


def _findings(now: State) -> str:
    """The light of a participant that is done, and the sentences that say why."""
    several = len(now.verdicts) > 1
    said = []
    for severity in ("errors", "warnings"):
        for verdict in now.verdicts:
            name = f"{verdict.get('acquisition', '')}: " if several else ""
            said += [(severity, name + text) for text in verdict.get(severity, [])]
    if not said:
        return now.light
    texts = [text for _, text in said]
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"{now.light}, with {said[0][0]}: " + "; ".join(texts[:SHOWN]) + more


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def as_table(reports: Sequence[Report]) -> str:
    """One line per participant, those that need attention first, and a line of counts."""
    width = max((len(report.label) for report in reports), default=0)
    lines = []
    for report in sorted(reports, key=lambda r: r.place):
        lines.append(f"{report.label:<{width}}  {report.status:<7}  {report.why}".rstrip())
        files = [f["crash_file"] for f in report.state.failures if f["crash_file"]]
        if report.status == "failed":
            lines += [f"{'':<{width}}           see {file}" for file in files]
    counts = Counter(report.status for report in reports)
    text = ", ".join(f"{counts[s]} {s}" for s in ORDER if counts[s]) or "no participants"
    lights = Counter(report.light for report in reports)
    of_maps = ", ".join(f"{lights[light]} {light}" for light in state.LIGHTS if lights[light])
    return "\n".join([*lines, f"{text} ({of_maps})" if of_maps else text])


def as_json(reports: Sequence[Report]) -> str:
    """A list of objects with label, status, why, light and the state file's content."""
    return json.dumps([{**asdict(r), "light": r.light} for r in reports], indent=1)
