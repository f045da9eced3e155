"""The group's page in a browser: order, marks by key, and the table that is saved."""

from __future__ import annotations

import browser
import pytest

from qsm_nipype.report.group import group_html, group_report
from qsm_nipype.run.ratings import RATINGS, read_ratings

pytestmark = pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())


@pytest.fixture
def reader(tmp_path):
    """A browser that shows a group of eight."""
    rows = [
        {"participant_id": f"sub-{i}", "acquisition": f"sub-{i}", "mask_volume": 1400.0 - i,
         "verdict": "red" if i == 5 else "green", "rating": "pass" if i == 3 else "n/a"}
        for i in range(1, 9)
    ]  # fmt: skip
    thumbs = {row["acquisition"]: f"{row['acquisition']}.jpg" for row in rows[:-1]}
    page = tmp_path / "group.html"
    page.write_text(group_html(group_report(rows, version="1", thumbs=thumbs)), encoding="utf-8")
    with browser.Browser() as reader:
        reader.open(page)
        yield reader


def names(reader):
    return reader.run("[...document.querySelectorAll('.map')].filter(m => !m.hidden)"
                      ".map(m => m.dataset.name)")  # fmt: skip


def choose(reader, selector, change):
    reader.run(f"var c = document.querySelector('{selector}'); {change};"
               "c.dispatchEvent(new Event('change'))")  # fmt: skip


def test_maps_are_marked_by_key_and_saved_as_group_reads_them(reader, tmp_path):
    assert names(reader)[0] == "sub-5"  # red first
    reader.run("document.querySelector('.map').focus()")
    reader.key("f")
    reader.key("c")
    reader("Input.insertText", text="streaks and veins")
    reader.key("Enter")
    reader.key("ArrowRight")
    reader.key("p")
    reader.run("document.querySelector('[data-name=\"sub-8\"] .mark').click()")  # by touch
    assert reader.text(".tally") == "3 pass, 1 fail, 0 unsure of 8"
    saved = tmp_path / RATINGS
    saved.write_text(reader.run("qsmMarks()"), encoding="utf-8")
    assert read_ratings(saved) == {
        "sub-1": {"rating": "pass", "comment": "n/a"},
        "sub-3": {"rating": "pass", "comment": "n/a"},  # known before
        "sub-5": {"rating": "fail", "comment": "streaks and veins"},
        "sub-8": {"rating": "pass", "comment": "n/a"},
    }
    reader.reload()
    assert reader.text(".tally").startswith("3 pass")
    choose(reader, ".open", "c.checked = true")
    assert names(reader) == ["sub-2", "sub-4", "sub-6", "sub-7"]
    assert reader.errors == []


def test_maps_stand_in_the_order_of_any_number(reader):
    volume = "[...c.options].find(o => o.text.startsWith('Mask volume')).value"
    choose(reader, ".by", f"c.value = {volume}")
    assert names(reader) == [f"sub-{i}" for i in range(8, 0, -1)]
    shown = reader.run("document.querySelector('[data-name=\"sub-8\"] .shown').textContent")
    assert shown == "1392"
    choose(reader, ".down", "c.checked = true")
    assert names(reader) == [f"sub-{i}" for i in range(1, 9)]
    assert reader.run("document.querySelectorAll('.map img[loading=lazy]').length") == 7
