"""A stored record that cannot be shown says so on the page."""

from __future__ import annotations

import json

import pytest

from qsm_nipype.report.stored import entities_of, read_record


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"entities": {', "this record could not be read (JSONDecodeError)"),
        ("[1]", "a list instead of an object"),
        ('{"entities": {"sub": "01"}, "decisions": []}', "decisions is no field"),
        ('{"entities": {"sub": "01"}, "steps": [{"step": "two_stage", "method": "two-stage"}]}',
         "two_stage.two-stage has no sentence"),
        (b"\xff\xfe", "this record could not be read (UnicodeDecodeError)"),
        (None, "this record could not be read (FileNotFoundError)"),
    ],
)  # fmt: skip
def test_a_refused_record_becomes_one_with_an_error(tmp_path, content, reason):
    path = tmp_path / "sub-01_run-2.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    record = read_record(path)
    assert record.entities == {"sub": "01", "run": "2"}
    assert record.error.message.startswith("sub-01_run-2.json: ")
    assert reason in record.error.message
    assert record.error.message.endswith("; process this acquisition again")


def test_a_good_record_is_read(tmp_path):
    path = tmp_path / "sub-01.json"
    path.write_text(json.dumps({"entities": {"sub": "01"}, "warnings": ["w"]}))
    record = read_record(path)
    assert record.error is None
    assert [finding.text for finding in record.findings] == ["w"]


def test_entities_of_a_label():
    assert entities_of("sub-01_ses-a_run-2") == {"sub": "01", "ses": "a", "run": "2"}
    assert entities_of("report_01") == {}
