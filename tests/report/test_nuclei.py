"""The page's table of nuclei: its numbers are the record's, its published ones the formulas'."""

import math

import numpy as np
import pytest

from qsm_nipype.record import AcquisitionRecord
from qsm_nipype.report.nuclei import draw_deep_grey, iron_at, nuclei_table
from qsm_nipype.report.page import arrange_subject, render_subject

NUCLEI = [
    {"index": 1, "name": "left caudate nucleus", "volume": 4000.0, "mean": 0.0502},
    {"index": 2, "name": "right caudate nucleus", "volume": 3600.0, "mean": 0.0478},
    {"index": 5, "name": "left external pallidum", "volume": 1000.0, "mean": 0.120},
    {"index": 7, "name": "left internal pallidum", "volume": 500.0, "mean": 0.090},
    {"index": 11, "name": "left red nucleus", "volume": 250.0, "mean": -0.004},
]


def record(age=None, nuclei=NUCLEI):
    step = {"step": "segmentation", "method": "deepgrey", "label": "x",
            "record": {"status": "found", "nuclei": nuclei}}  # fmt: skip
    more = {} if age is None else {"age": age}
    return AcquisitionRecord.from_json({"entities": {"sub": "01"}, "steps": [step], **more})


def test_rows_are_the_nuclei_with_both_sides():
    rows = {row.name: row for row in nuclei_table(record(50.0)).rows}
    caudate = rows["Caudate nucleus"]
    assert (caudate.left, caudate.right) == ("+50", "+48")
    assert (caudate.left_volume, caudate.right_volume) == ("4000", "3600")
    assert caudate.asymmetry == "+11"  # 200 · 400 / 7600
    whole = rows["Pallidum"]
    assert (whole.left, whole.left_volume, whole.right) == ("+110", "1500", "n/a")
    assert rows["Red nucleus"].left == "−4"
    assert nuclei_table(record(nuclei=[])) is None


def test_published_iron_follows_the_curves_and_says_what_it_does_not_know():
    pallidum, sd = iron_at("pallidum", 50.0)
    assert pallidum == pytest.approx(21.41 * (1 - math.exp(-4.5)) + 0.37) and sd is None
    assert iron_at("pallidum", None) is None
    assert iron_at("red nucleus", 40) == (19.48, 6.86) == iron_at("red nucleus", None)
    assert iron_at("red nucleus", 12) is None
    assert iron_at("subthalamic nucleus", 40) is None
    ages = [iron_at("putamen", age)[0] for age in (1, 10, 40, 80)]
    assert ages == sorted(ages)
    row = next(r for r in nuclei_table(record(50.0)).rows if r.name == "Pallidum")
    assert row.iron == "21.5" and row.expected == "+237"


@pytest.mark.parametrize(("age", "said"), [(None, "Age: not known"), (64.0, "Age: 64 years")])
def test_the_page_shows_the_table_and_its_source(age, said):
    page = render_subject(arrange_subject([record(age)], subject="01", version="1"))
    assert "Deep grey nuclei" in page and said in page and "Hallgren and Sourander (1958)" in page
    assert 'href="#gradient-echoes-nuclei"' in page and 'id="gradient-echoes-nuclei"' in page
    without = render_subject(arrange_subject([record(nuclei=[])], subject="01", version="1"))
    assert "-nuclei" not in without and "mg/100 g" not in without


def test_the_picture_of_no_nuclei_says_so():
    chi = np.zeros((20, 20, 20), np.float32)
    _, _, caption, image = draw_deep_grey(np.zeros(chi.shape, np.uint8), chi, np.eye(4))
    assert caption.startswith("No deep grey nuclei") and image[:4] == b"\x89PNG"
