"""The overview of a data set: outliers found, rows linked, text escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from qsm_nipype.report.group import group_html, group_report
from qsm_nipype.report.outliers import LIMIT, outlying_measures, robust_scores


def find_outliers(values, unit=""):
    """Which values stand out."""
    return [abs(score) > LIMIT for score in robust_scores(values, unit)]


def rows(count=12):
    rng = np.random.default_rng(1)
    return [
        {"participant_id": f"sub-{i:02d}", "session_id": "ses-1", "run": "n/a",
         "acquisition": f"sub-{i:02d}_ses-1", "mask_volume": str(rng.normal(1400, 30)),
         "chi_sd": rng.normal(0.03, 0.001)}
        for i in range(count)
    ]  # fmt: skip


def test_one_far_value_is_an_outlier_and_only_that():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 9.0, None]
    assert find_outliers(values) == [False] * 6 + [True, False]
    assert find_outliers([-v if v else v for v in values]) == [False] * 6 + [True, False]


def test_equal_or_few_values_have_no_outlier():
    assert not any(find_outliers([1.0] * 9 + [2.0]))
    assert not any(find_outliers([1.0, 1.1, 50.0]))
    assert find_outliers([]) == []


def test_scores_are_standard_deviations_of_normal_measures():
    values = np.random.default_rng(3).normal(50, 2, 2000)
    scores = robust_scores(values.tolist())
    np.testing.assert_allclose(scores, (values - 50) / 2, rtol=0.1, atol=0.15)
    mirrored = -np.array(robust_scores((9 - 7 * values).tolist()))
    np.testing.assert_allclose(scores, mirrored, rtol=0.1, atol=0.15)


def test_the_last_digits_of_a_measure_that_hardly_varies_do_not_stand_out():
    shares = [99.99, 99.98, 99.97, 99.995, 99.96, 99.985] * 5
    assert not any(find_outliers([*shares, 98.0], "%"))
    assert find_outliers([*shares, 60.0], "%")[-1]


#: Measures as they are distributed, of something normal; the last: its degrees of freedom.
SHAPES = {
    "symmetric": (lambda z: 10 + z, 1000),
    "skewed": (lambda z: np.exp(0.5 * z), 1000),
    "share of a whole": (lambda z: 100 / (1 + np.exp(-3 + 0.7 * z)), 1000),
    "heavy tails": (lambda z: 10 + z, 10),
    "negative": (lambda z: -np.exp(0.4 * z), 1000),
}


def test_ten_faults_among_two_hundred_are_found_and_at_most_two_others_named():
    """`benchmarks/group.py` has the same of simulated heads, and more draws."""
    shapes = list(SHAPES.values())
    found, false = [], []
    for seed in range(6):
        rng = np.random.default_rng([9, seed])
        columns = {}
        for i in range(20):
            make, freedom = shapes[i % 5]
            z = rng.standard_t(freedom, 200)
            if i % 2 == 0:  # each fault shows in one measure only
                z[i // 2] = rng.choice([-1, 1]) * 10 if make is not shapes[2][0] else 10
            columns[f"m{i}"] = make(z).tolist()
        words = {f"m{i}": {"Units": "%"} for i in range(2, 20, 5)}
        named = {i for i, row in enumerate(outlying_measures(columns, words)) if row}
        found.append(len(named & set(range(10))))
        false.append(len(named - set(range(10))))
    assert min(found) == 10 and max(false) <= 2


@pytest.mark.parametrize("count", [6, 8, 12, 20])
def test_small_groups_cry_wolf_no_more_often(count):
    rng = np.random.default_rng(count)
    columns = {
        f"m{i}-{shape}": make(rng.standard_t(freedom, count)).tolist()
        for i in range(60)
        for shape, (make, freedom) in SHAPES.items()
    }
    named = sum(len(row) for row in outlying_measures(columns, {}))
    assert named <= 0.004 * len(columns) * count


def test_rows_metrics_and_links():
    table = rows()
    table[3]["mask_volume"] = "300"
    table[4]["mask_volume"] = "n/a"
    report = group_report(table, version="1", dictionary={"mask_volume": {"Units": "cm³"}})
    assert [m.name for m in report.metrics] == ["mask_volume", "chi_sd"]
    assert report.metrics[0].unit == "cm³"
    assert report.metrics[0].outliers == 1
    assert len(report.metrics[0].dots) == 11
    assert all(0 <= d.x <= 100 for d in report.metrics[0].dots)
    first, *others = report.rows
    assert (first.page, first.name, first.anchor) == ("sub-03.html", "sub-03_ses-1", "ses-1")
    assert list(first.outlying) == ["mask_volume"] and first.outlying["mask_volume"] < -5
    assert first.far[0].startswith("Mask volume 300 cm³ (z −")
    assert [row.name for row in others if row.cells[0].text == "n/a"] == ["sub-04_ses-1"]
    assert report.metrics[0].dots[0].row == 0 and report.metrics[0].dots[0].outlier


def test_what_needs_a_look_comes_first_with_its_reasons():
    table = rows(30)
    for i, light in ((5, "yellow"), (7, "red"), (8, "yellow")):
        table[i] |= {"verdict": light, "errors": str(int(light == "red")), "warnings": "1"}
    for row in table:
        row.setdefault("verdict", "green")
    table[11]["chi_sd"] = 0.9
    reasons = {"sub-07_ses-1": ("streaks in /home/doe/x.nii", "a wedge"), "sub-09_ses-1": ()}
    report = group_report(table, version="1", reasons=reasons)
    assert [r.name[:6] for r in report.rows[:4]] == ["sub-07", "sub-05", "sub-08", "sub-11"]
    assert [r.state for r in report.rows[:5]] == ["red", "yellow", "yellow", "green", "green"]
    assert [m.name for m in report.metrics] == ["mask_volume", "chi_sd"]
    assert report.counts == (("red", 1), ("yellow", 2), ("green", 27)) and report.flagged == 1
    html = group_html(report)
    look = html[html.index('id="look"') : html.index('id="measures"')]
    assert look.count("<tr>") == 4 and "streaks in x.nii" in look and "SD of χ 0.9" in look
    assert "doe" not in html
    assert 'id="look"' not in group_html(group_report(rows(30), version="1"))


def test_a_failed_acquisition_is_marked():
    failed = {"participant_id": "sub-99", "acquisition": "sub-99", "status": "failed"}
    failed["error"] = "/home/doe/x.nii: cut short"
    report = group_report([*rows(5), failed], version="1")
    assert [r.state for r in report.rows] == ["failed"] + ["none"] * 5
    assert report.rows[0].error == "x.nii: cut short"


def test_page_is_well_formed_and_escapes():
    table = rows()
    table[0]["participant_id"] = table[0]["acquisition"] = "sub-<script>alert(1)</script>"
    html = group_html(group_report(table, version="1"))
    assert "<script>alert" not in html
    stack = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br", "input", "img"):
                stack.append(tag)

        def handle_startendtag(self, tag, attrs):
            return

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Check().feed(html)
    assert stack == []


def test_an_empty_table_has_a_page():
    assert "No acquisition was found." in group_html(group_report([], version="1"))
