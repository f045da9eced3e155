"""The end of a run: the gravest first, short for a hundred participants, and an exit code."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from qsm_nipype.execution import state, status
from qsm_nipype.record import Finding
from qsm_nipype.run.failures import Failure
from qsm_nipype.run.outcome import (
    LONGEST,
    Outcome,
    collect_outcomes,
    exit_code,
    full_table,
    short_table,
    summary,
    tell,
    write_down,
)
from qsm_nipype.run.states import write_states
from qsm_nipype.settings import Settings

SEVERITY = {"red": "error", "yellow": "warning", "green": "note"}


def outcome(subject, light):
    """An outcome of one light, with a sentence of its own."""
    if light == "failed":
        failure = Failure(f"sub-{subject}", subject, "no phase", crash_file="crash-1.txt")
        return Outcome(f"sub-{subject}", subject, failure=failure)
    return Outcome(f"sub-{subject}", subject, (Finding(SEVERITY[light], f"{light} sentence"),))


def many(**counts):
    """Outcomes of the given lights, in the order of `collect_outcomes`."""
    lights = [light for light, number in counts.items() for _ in range(number)]
    return [outcome(f"{i:03d}", light) for i, light in enumerate(lights)]


@pytest.fixture
def out(tmp_path):
    """A dataset with the records of three maps, each of another light."""
    records = tmp_path / "logs" / "records"
    records.mkdir(parents=True)
    for subject, light in (("01", "green"), ("02", "yellow"), ("03", "red")):
        finding = {"severity": SEVERITY[light], "text": f"{light} sentence"}
        content = {"entities": {"sub": subject}, "findings": [finding]}
        (records / f"sub-{subject}.json").write_text(json.dumps(content))
    return tmp_path


def of(*subjects):
    return [SimpleNamespace(label=f"sub-{s}", subject=s) for s in subjects]


def test_outcomes_are_read_from_records_the_gravest_first(out):
    found = collect_outcomes(out, of("01", "02", "03", "04"), [Failure("sub-05", "05", "why")])
    assert [(o.label, o.light) for o in found] == [
        ("sub-04", "failed"), ("sub-05", "failed"), ("sub-03", "red"), ("sub-02", "yellow"),
        ("sub-01", "green"),
    ]  # fmt: skip
    assert "ended before" in found[0].reasons[0] and found[1].reasons == ("why",)
    assert summary(found) == "3 of 5 acquisitions finished: 2 failed, 1 red, 1 yellow, 1 green"


def test_a_failure_outweighs_the_record_of_an_earlier_run(out):
    (found,) = collect_outcomes(out, of("01"), [Failure("sub-01", "01", "why")])
    assert found.light == "failed" and found.to_state()["errors"] == []


@pytest.mark.parametrize(
    ("lights", "codes"),
    [("green", (0, 0, 0)), ("yellow", (0, 1, 0)), ("red", (1, 1, 0)), ("failed", (1, 1, 1))],
)
def test_the_exit_code_is_what_was_asked_for(lights, codes):
    every = [outcome("01", "green"), outcome("02", lights)]
    assert tuple(exit_code(every, w) for w in ("error", "warning", "never")) == codes
    assert exit_code([], "warning") == 0


def test_few_outcomes_are_told_with_every_reason():
    two = Outcome("sub-02", "02", (*outcome("02", "red").findings, Finding("warning", "w")))
    assert short_table([two, outcome("01", "green")], "log") == [
        ("red", "sub-02: red sentence"),
        ("", "sub-02: w"),
        ("green", "sub-01: nothing was found against this map (1 note)"),
    ]


@pytest.mark.parametrize("bad", [dict(failed=2, red=3, yellow=4), dict(failed=9, red=9, yellow=9),
                                 dict(red=100), dict(yellow=17), {}])  # fmt: skip
def test_a_hundred_participants_stay_readable(bad):
    every = many(**bad, green=91)
    lines = short_table(every, "run.log")
    assert len(lines) <= LONGEST
    named = [text for light, text in lines if light in bad]
    shown = min(len(every) - 91, LONGEST - 2)
    assert len(named) == shown and all(len(text) <= 110 for _, text in lines)
    rest = len(every) - 91 - shown
    assert any(text.startswith(f"and {rest} more (") for _, text in lines) == (rest > 0)
    assert lines[-1] == ("green", "91 acquisitions (91 notes)")
    assert len(full_table(every)) == len(every)


def test_long_sentences_count_as_the_lines_that_they_take():
    long = Outcome(
        "sub-01", "01", tuple(Finding("warning", f"{i} " + "x " * 300) for i in range(4))
    )
    (line,) = short_table([long], "log", width=80)
    assert line[0] == "yellow" and len(line[1]) <= 80 and line[1].endswith("… (and 3 more)")
    assert len(short_table([long], "log")) == 4


def test_the_log_holds_every_sentence(out):
    found = collect_outcomes(out, of("01", "02", "03"), [Failure("sub-04", "04", "why")])
    log = out / "logs" / "run.log"
    log.write_text("before\n")
    write_down(found, log)
    text = log.read_text()
    assert text.startswith("before\n")
    for expected in ("sub-03: error: red", "sub-02: warning: yellow", "sub-01: note: green",
                     "sub-04: failure: why", "sub-03: red", "3 of 4 acquisitions"):  # fmt: skip
        assert f"[outcome] {expected}" in text


def test_the_terminal_says_the_lights_and_names_the_pages(out, capsys):
    found = collect_outcomes(out, of("01", "02", "03"), [])
    tell(found, out, "error")
    said = capsys.readouterr()
    assert said.out.split() == [str(out / f"sub-0{n}.html") for n in (1, 2, 3)]
    assert said.err.splitlines() == [
        "red     sub-03: red sentence",
        "yellow  sub-02: yellow sentence",
        "green   sub-01: nothing was found against this map (1 note)",
        "qsm-nipype: 3 of 3 acquisitions finished: 1 red, 1 yellow, 1 green",
        "qsm-nipype: exit code 1, for there are red maps (--fail-on error)",
    ]
    tell(many(green=100), out, "warning")
    assert capsys.readouterr().out == f"{out / 'sub-*.html'} (100 pages)\n"


@pytest.fixture
def states(out):
    """The states after the run, of its outcomes."""
    found = collect_outcomes(out, of("01", "02", "03"), [])
    settings = Settings(out, out)
    write_states(settings, ["sub-01", "sub-02", "sub-03"], found)
    return out


def test_status_tells_the_light_and_why(states, capsys):
    assert status.main([str(states)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "sub-03  done     red, with errors: red sentence",
        "sub-02  done     yellow, with warnings: yellow sentence",
        "sub-01  done     green",
        "3 done (1 red, 1 yellow, 1 green)",
    ]
    assert status.main([str(states), "--json"]) == 1
    entries = {e["label"]: e for e in json.loads(capsys.readouterr().out)}
    assert entries["sub-02"]["light"] == "yellow"
    (verdict,) = entries["sub-02"]["state"]["verdicts"]
    assert verdict == {"acquisition": "sub-02", "light": "yellow", "errors": [],
                       "warnings": ["yellow sentence"], "notes": []}  # fmt: skip


def test_what_makes_status_fail_can_be_chosen(states, capsys):
    assert status.main([str(states), "--fail-on", "never"]) == 0
    state.write(states, "sub-03", "done", verdicts=[])
    codes = [status.main([str(states), "--fail-on", w]) for w in ("error", "warning")]
    assert codes == [0, 1]


def test_a_new_run_forgets_the_verdicts_of_the_last(states):
    state.write(states, "sub-03", "running")
    assert state.read(states, "sub-03").verdicts == ()
