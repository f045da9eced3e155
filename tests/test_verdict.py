"""From what was found to one light: the gravest finding decides, and every reason is told."""

from __future__ import annotations

import itertools

import pytest

from qsm_nipype.record import Finding, Number
from qsm_nipype.verdict import distinct, judge, of_numbers, reported, sentence

NOTE, WARNING, ERROR = (Finding(s, s) for s in ("note", "warning", "error"))


def test_the_gravest_finding_is_the_light_in_any_order():
    lights = {(): "green", (NOTE,): "green", (WARNING,): "yellow", (NOTE, WARNING): "yellow"}
    lights |= {found: "red" for found in [(ERROR,), (NOTE, ERROR), (NOTE, WARNING, ERROR)]}
    for found, light in lights.items():
        for order in itertools.permutations(found):
            assert judge(order).light == light


def test_reasons_are_errors_then_warnings_and_never_notes():
    assert judge([NOTE, WARNING, ERROR]).reasons == ("error", "warning")
    assert judge([NOTE]).reasons == ()


def test_what_nodes_report_becomes_findings_with_their_step():
    own = {"notes": ["a"], "warnings": ["b", "c"], "errors": ["d"], "numbers": {}, "mean": 1}
    found = reported(own, "fit")
    assert [f.severity for f in found] == ["note", "warning", "warning", "error"]
    assert [f.text for f in found] == list("abcd") and {f.step for f in found} == {"fit"}
    assert reported({}) == []


def test_a_sentence_is_said_once_and_in_its_gravest_form():
    repeated = [Finding("note", "x"), NOTE, Finding("error", "x", "fit"), Finding("warning", "x")]
    assert distinct(repeated) == (Finding("error", "x", "fit"), NOTE)


@pytest.mark.parametrize(
    ("judgement", "severity"), [("", None), ("ok", None), ("unusual", "warning"), ("bad", "error")]
)
def test_a_judged_number_is_a_finding(judgement, severity):
    number = Number(30.0, "ppb", "noise", usual=(1, 10), judgement=judgement, reason="look")
    found = of_numbers({"noise": number})
    assert [f.severity for f in found] == [severity] * (severity is not None)
    assert all(f.text == "noise: 30 ppb, usual is 1 to 10: look" for f in found)


@pytest.mark.parametrize(
    ("usual", "said"),
    [((1, 10), "usual is 1 to 10"), ((None, 10), "usual is at most 10"), ((1,), "at least 1"),
     ((1, None), "usual is at least 1"), ((800, 2000), "usual is 800 to 2000"),
     ((), "mask volume: 3")],
)  # fmt: skip
def test_a_range_may_be_open(usual, said):
    assert sentence("mask_volume", Number(3.0, usual=usual)).endswith(said)
