"""The overview of a data set: outliers found, rows linked, text escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from qsm_nipype.report.group import find_outliers, group_html, group_report


def rows(count=12):
    rng = np.random.default_rng(1)
    return [
        {"participant_id": f"sub-{i:02d}", "session_id": "ses-1", "run": "n/a",
         "acquisition": f"sub-{i:02d}_ses-1", "mask_volume": str(rng.normal(1400, 30)),
         "chi_sd": rng.normal(0.03, 0.001)}
        for i in range(count)
    ]  # fmt: skip


def test_one_far_value_is_an_outlier_and_only_that():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 9.0, None]
    assert find_outliers(values) == [False] * 5 + [True, False]


def test_equal_or_few_values_have_no_outlier():
    assert not any(find_outliers([1.0] * 9 + [2.0]))
    assert not any(find_outliers([1.0, 1.1, 50.0]))


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
    assert report.rows[3].page == "sub-03.html"
    assert report.rows[3].name == "sub-03_ses-1"
    assert report.rows[3].anchor == "ses-1"
    assert report.rows[4].cells[0].text == "n/a"


def test_a_failed_acquisition_is_marked():
    failed = {"participant_id": "sub-99", "acquisition": "sub-99", "status": "failed"}
    failed["error"] = "/home/doe/x.nii: cut short"
    report = group_report([*rows(5), failed], version="1")
    assert [r.state for r in report.rows] == ["ok"] * 5 + ["failed"]
    assert report.rows[5].error == "x.nii: cut short"


def test_page_is_well_formed_and_escapes():
    table = rows()
    table[0]["participant_id"] = table[0]["acquisition"] = "sub-<script>alert(1)</script>"
    html = group_html(group_report(table, version="1"))
    assert "<script>alert" not in html
    stack = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                stack.append(tag)

        def handle_startendtag(self, tag, attrs):
            return

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Check().feed(html)
    assert stack == []


def test_an_empty_table_has_a_page():
    assert "No acquisition was found." in group_html(group_report([], version="1"))
