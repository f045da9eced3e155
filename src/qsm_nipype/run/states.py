"""What `qsm-nipype status` reads: how far each participant is, and with which choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qsm_nipype import __version__
from qsm_nipype import settings as configuration
from qsm_nipype.dataset.acquisitions import Acquisition, Refusal
from qsm_nipype.execution import state
from qsm_nipype.run.outcome import Outcome
from qsm_nipype.settings import Settings


def digests(
    settings: Settings, acquisitions: Sequence[Acquisition], refusals: Sequence[Refusal]
) -> dict[str, str]:
    """For each participant (`sub-XX`) what was asked for: choices, own files, acquisitions."""
    wanted = {
        "settings": configuration.science(settings),
        "derivatives": dict(settings.derivatives),
        "version": __version__,
    }
    labels: dict[str, list[str]] = {}
    items: list[Acquisition | Refusal] = [*acquisitions, *refusals]
    for item in items:
        labels.setdefault(f"sub-{item.subject}", []).append(item.label)
    return {
        name: state.digest({**wanted, "acquisitions": sorted(own)}) for name, own in labels.items()
    }


def count_in_states(
    settings: Settings, totals: Mapping[str, int], subjects: Mapping[str, str]
) -> Callable[[str, Mapping[str, int]], None]:
    """What writes a participant's finished steps where `qsm-nipype status` reads them."""

    def note(name: str, done: Mapping[str, int]) -> None:
        label = subjects[name]
        own = [other for other in totals if subjects[other] == label]
        finished, total = (sum(table[other] for other in own) for table in (done, totals))
        state.write(settings.output_dir, label, "running", nodes_done=finished, nodes_total=total)

    return note


def write_states(settings: Settings, labels: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """How each participant (`sub-XX` in `labels`) ended: its failures, its maps' verdicts."""
    for label in labels:
        own = [outcome for outcome in outcomes if f"sub-{outcome.subject}" == label]
        failures = [outcome.failure for outcome in own if outcome.failure]
        entries = [
            state.failure(f.node or f.label, f.reason, f.crash_file, f.label) for f in failures
        ]
        verdicts = [outcome.to_state() for outcome in own if not outcome.failure]
        status = "failed" if failures else "done"
        state.write(settings.output_dir, label, status, failures=entries, verdicts=verdicts)
