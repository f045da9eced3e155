"""A reader's marks: what the page saves is what `group` reads."""

from __future__ import annotations

import csv
import json

import pytest

from qsm_nipype import cli
from qsm_nipype.errors import UsageError
from qsm_nipype.run.ratings import RATINGS, read_ratings, unknown, with_ratings


def table(tmp_path, *lines):
    path = tmp_path / RATINGS
    path.write_text("\n".join(("acquisition\trating\tcomment", *lines)) + "\n")
    return path


def test_marks_reach_their_rows_and_others_stay(tmp_path):
    path = table(tmp_path, "sub-01\tfail\tstreaks", "sub-02\tn/a\tlook again", "sub-09\tpass\tn/a")
    marks = read_ratings(path)
    rows = with_ratings([{"acquisition": f"sub-0{i}"} for i in (1, 2, 3)], marks)
    assert [row.get("rating") for row in rows] == ["fail", "n/a", None]
    assert rows[1]["comment"] == "look again"
    assert unknown(rows, marks) == ["sub-09"]
    assert read_ratings(tmp_path / "none.tsv") == {}


def test_a_table_that_went_through_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / RATINGS
    path.write_bytes("\ufeffacquisition\trating\tcomment\r\nsub-01\tpass\t\r\n".encode())
    assert read_ratings(path) == {"sub-01": {"rating": "pass", "comment": "n/a"}}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["sub-01\tgood\tn/a"], "line 2: 'good' is no mark; write pass, fail, unsure or n/a"),
        (["sub-01\tpass\tn/a", "sub-01\tfail\tn/a"], "line 3: sub-01 is there twice"),
        (["\tpass\tn/a"], "line 2 names no acquisition"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_line(tmp_path, lines, said):
    with pytest.raises(UsageError, match=said):
        read_ratings(table(tmp_path, *lines))


def test_the_group_takes_the_marks_into_its_table_and_page(tmp_path):
    for label in ("sub-01", "sub-02"):
        folder = tmp_path / label / "anat"
        folder.mkdir(parents=True)
        row = f"participant_id\tacquisition\tmask_volume\n{label}\t{label}\t1400\n"
        (folder / f"{label}_desc-qc_metrics.tsv").write_text(row)
    table(tmp_path, "sub-01\tfail\tstreaks <b>")
    (tmp_path / "sub-01" / "figures").mkdir()
    (tmp_path / "sub-01" / "figures" / "sub-01_thumb.jpg").touch()
    assert cli.main(["bids", str(tmp_path), "group"]) == 0
    with (tmp_path / "group_desc-qc_metrics.tsv").open(newline="") as stream:
        found = {row["acquisition"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert found["sub-01"]["rating"] == "fail" and found["sub-02"]["rating"] == "n/a"
    words = json.loads((tmp_path / "group_desc-qc_metrics.json").read_text())
    assert set(words["rating"]["Levels"]) == {"pass", "fail", "unsure"}
    page = (tmp_path / "group.html").read_text(encoding="utf-8")
    assert 'data-rating="fail" data-comment="streaks &lt;b&gt;"' in page
    assert 'src="sub-01/figures/sub-01_thumb.jpg" loading="lazy"' in page
    assert page.count('class="no-map"') == 1
