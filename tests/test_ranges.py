"""How a number is judged by its range, and the table of ranges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qsm_nipype.ranges import Limits, excess, judge_all, limits

LIMITS = Limits("words", (1.0, 2.0), (None, 4.0), high="too much", low="too little")


@pytest.mark.parametrize(("value", "off"), [(2.0, 0.0), (3.0, 0.5), (4.0, 1.0), (6.0, 2.0)])
def test_excess_is_0_at_the_usual_end_and_1_where_it_is_bad(value, off):
    assert excess(value, LIMITS, high=True) == pytest.approx(off)


def test_a_side_without_bad_is_never_bad_and_an_open_one_never_unusual():
    assert 0 < excess(-1e9, LIMITS, high=False) < 1
    assert excess(1e9, replace(LIMITS, usual=(1.0, None)), high=True) == -math.inf


def test_numbers_of_a_record_are_judged_where_the_table_knows_them():
    numbers = {"mask_kept": {"value": 20.0, "unit": "%", "description": "d", "sd": 1.0},
               "other": {"value": 1.0}, "chi_spread": {"value": math.nan}}  # fmt: skip
    found = judge_all(numbers)
    kept = found["mask_kept"]
    assert (kept["judgement"], kept["sd"]) == ("bad", 1.0)
    assert kept["reason"] == limits()["mask_kept"].low
    assert found["other"] == {"value": 1.0}
    assert "judgement" not in found["chi_spread"]


def test_every_row_has_ordered_ranges_and_a_reason_for_each_end():
    for name, known in limits().items():
        low, high = known.usual
        assert known.description, name
        assert (low is None) == (not known.low) and (high is None) == (not known.high), name
        assert known.bad[0] is None or known.bad[0] < low, name
        assert known.bad[1] is None or known.bad[1] > high, name
        assert low is None or high is None or low < high, name
