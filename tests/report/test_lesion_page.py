"""The page of lesions: what is drawn where, and a reader's session in a browser."""

from __future__ import annotations

import io
import re

import browser
import numpy as np
import pytest
from PIL import Image

from qsm_nipype.report.lesion_page import TILE, draw_lesion_page
from qsm_nipype.run.rims import read_readers
from qsm_nipype.training.rim_own_cohort import read_labels

#: 1 mm to the left, 1 mm to the front, slices of 3 mm upwards
AFFINE = np.diag([-1.0, 1, 3, 1])
SHAPE = (60, 70, 30)
#: first voxel and number of voxels of a lesion; the last lies in a corner
BOXES = [((30, 30, 10), (12, 6, 2)), ((10, 50, 20), (3, 3, 1)), ((57, 0, 0), (3, 5, 2))]
ROWS = ["1\t144\t0.2000\t0\tclear\tn/a", "2\t27\tn/a\tn/a\tn/a\tsmaller than 30 mm³",
        "3\t90\t0.9000\t1\tindeterminate\tn/a"]  # fmt: skip
TABLE = "\n".join(["index\tvolume_mm3\trim_probability\trim\tcertainty\tnote", *ROWS]) + "\n"


def page(*left_out, table=TABLE):
    lesions = np.zeros(SHAPE, np.int32)
    for number, (low, size) in enumerate(BOXES, start=1):
        lesions[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = number
    chi = np.where(lesions == 1, 1.0, -1.0)
    maps = {"chi": chi, "flair": 100.0 + lesions, "r2star": 20.0 + 0 * chi, "lesions": lesions}
    shown = {name: data for name, data in maps.items() if name not in left_out}
    entities = {"sub": "01", "run": "2"}
    return draw_lesion_page(shown, AFFINE, table, entities, folder="lesions", version="1")


def outline(html, index):
    """Corners (left, top, right, bottom) in mm from the middle, on the three planes."""
    group = re.search(rf'<g id="outline-{index}">(.*?)</g>', html, re.S)[1]
    for path in re.findall(r' d="([^"]*)"', group):
        xs, ys = [], []
        for x, y, way, far in re.findall(r"M(\S+) (\S+)([hv])([\d.]+)", path):
            xs += [float(x), float(x) + float(far) * (way == "h")]
            ys += [float(y), float(y) + float(far) * (way == "v")]
        yield [(v / TILE - 0.5) * 30.0 for v in (min(xs), min(ys), max(xs), max(ys))]


def test_outline_and_picture_agree_in_millimetres_on_every_plane():
    made = page()
    planes = list(outline(made.html, 1))
    for found, (wide, tall) in zip(planes, ((12, 6), (12, 6), (6, 6)), strict=True):
        assert np.allclose(found, (-wide / 2, -tall / 2, wide / 2, tall / 2), atol=0.05)
    picture = np.asarray(Image.open(io.BytesIO(made.pictures["1.jpg"])))
    assert picture.shape == (3 * TILE, 3 * TILE)
    bright = picture[:TILE] > 128  # χ
    for column, (wide, tall) in enumerate(((12, 6), (12, 6), (6, 6))):
        tile = bright[:, column * TILE + 3 : (column + 1) * TILE - 3]
        assert tile.any(0).sum() == pytest.approx(wide / 30 * TILE, abs=4)
        assert tile.any(1).sum() == pytest.approx(tall / 30 * TILE, abs=4)


def test_a_lesion_in_the_corner_is_drawn_with_nothing_beyond_the_volume():
    made = page("r2star")
    (axial, *_) = outline(made.html, 3)
    assert np.allclose(axial, (-1.5, -2.5, 1.5, 2.5), atol=0.05)
    picture = np.asarray(Image.open(io.BytesIO(made.pictures["3.jpg"])))
    assert picture.shape == (2 * TILE, 3 * TILE)  # no R2*, no row
    flair = picture[TILE:, :TILE]
    assert flair[TILE - 20, 20] < 20 < flair[20, TILE - 20]  # left and behind: outside


def test_the_likeliest_rim_is_first_and_the_page_says_what_is_doubtful():
    html = page().html
    assert re.findall(r'data-name="sub-01_run-2 (\d)"', html) == ["3", "1", "2"]
    assert "indeterminate, rather rim 0.90" in html and "smaller than 30 mm³" in html
    assert "not classified" in html and 'href="../../sub-01.html#run-2"' in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert page(table=TABLE.splitlines()[0] + "\n") is None


@pytest.fixture
def reader(tmp_path):
    made = page()
    (tmp_path / "lesions").mkdir()
    for name, content in made.pictures.items():
        (tmp_path / "lesions" / name).write_bytes(content)
    (tmp_path / "page.html").write_text(made.html, encoding="utf-8")
    with browser.Browser() as reader:
        where = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
        reader("Page.setDownloadBehavior", **where)
        reader.open(tmp_path / "page.html")
        yield reader


def orange(reader, tmp_path):
    """How many pixels of an outline there are on each map of the first lesion."""
    reader.picture(tmp_path / "seen.png")
    place = reader.run("(b => [b.left, b.top, b.right, b.bottom])"
                       "(document.querySelector('.views').getBoundingClientRect())")  # fmt: skip
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB").crop(place), int)
    thirds = np.array_split(seen[..., 0] - seen[..., 2] > 60, 3)
    return [int(third.sum()) for third in thirds]


@pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())
def test_a_reader_marks_lesions_and_the_saved_table_is_read_by_group_and_training(
    reader, tmp_path
):
    reader.click(".next")  # the first: lesion 3
    reader.key("r")
    reader.key("c")
    reader("Input.insertText", text="thin, all around")
    reader.key("Enter")
    reader.key("ArrowRight")
    reader.key("r")
    reader.key("z")  # no, lesion 1 has none
    reader.key("n")
    reader.click('[data-name$=" 2"] [data-mark="unsure"]')  # by touch
    assert reader.text(".tally") == "1 rim, 1 no rim, 1 unsure of 3"
    reader.run("var r = document.querySelector('.rater'); r.value = 'A B';"
               "r.dispatchEvent(new Event('change'))")  # fmt: skip
    assert reader.text(".tally").startswith("1 rim")  # what was marked before the name is A's
    reader.click(".save")
    path = tmp_path / "saved" / "sub-01_run-2_rater-AB_rims.tsv"
    for _ in range(200):
        if path.exists():
            break
        reader.run("new Promise(r => setTimeout(r, 50))")
    assert path.read_text(encoding="utf-8").splitlines() == [
        "acquisition\tindex\trim\tcomment",
        "sub-01_run-2\t1\t0\tn/a",
        "sub-01_run-2\t2\tunsure\tn/a",
        "sub-01_run-2\t3\t1\tthin, all around",
    ]
    assert read_labels([path]) == {"sub-01_run-2": {1: False, 3: True}}
    assert read_readers(path.parent)["AB"]["sub-01_run-2", "2"] == "unsure"
    reader.reload()
    assert reader.text(".tally").startswith("1 rim")
    reader.run("r = document.querySelector('.rater'); r.value = 'C';"
               "r.dispatchEvent(new Event('change'))")  # fmt: skip
    assert reader.text(".tally") == "0 rim, 0 no rim, 0 unsure of 3"  # another reader starts anew
    reader.run("document.querySelector('.map').focus()")
    assert min(orange(reader, tmp_path)) > 20  # outlined on every map
    reader.key("o")
    hidden = "getComputedStyle(document.querySelector('.lesion svg')).display === 'none'"
    assert reader.run(hidden) and reader.errors == []
    assert all(url.startswith(("file:", "blob:")) for url in reader.requests)
