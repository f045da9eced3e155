"""The subject's page in a browser: what the viewer's keys, buttons and drags do."""

from __future__ import annotations

import json

import browser
import numpy as np
import pytest

from qsm_nipype.report.publish import publish_subject
from qsm_nipype.report.styles import style_of
from qsm_nipype.report.volumes import Layer, Overlay, render_viewer

pytestmark = pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())
SHAPE = (24, 30, 20)
READY = "document.querySelector('.slice-viewer').dataset.ready"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a head whose maps tell the voxel: χ counts x, R2* counts z."""
    out = tmp_path_factory.mktemp("out")
    x, _, z = np.indices(SHAPE).astype(float)
    mask = np.ones(SHAPE, bool)
    layers = [Layer("chi", 0.004 * x, style_of("chi")), Layer("r2star", z, style_of("r2star"))]
    nuclei = np.zeros(SHAPE)
    nuclei[10:15, 13:18, 8:13] = 2
    over = [Overlay("mask", "Brain mask", mask), Overlay("n", "Nuclei", nuclei, {2: "right one"})]
    viewer = render_viewer(layers, over, np.diag([1.0, 1, 2, 1]), mask)
    folder = out / "sub-01" / "figures" / "sub-01_viewer"
    folder.mkdir(parents=True)
    for name, content in viewer.files.items():
        (folder / name).write_bytes(content)
    record = {"entities": {"sub": "01"}, "viewer": {**viewer.manifest, "folder": str(folder)}}
    stored = out / "logs" / "records" / "sub-01.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps(record))
    return publish_subject([stored], out, subject="01", version="1")


@pytest.fixture(scope="module")
def reader(page):
    """A browser in which the viewer runs."""
    with browser.Browser() as reader:
        reader.open(page)
        reader.run("document.querySelector('.slice-viewer').scrollIntoView()")
        if reader.until(READY) == "no" and "no WebGL" in reader.text(".wait"):
            pytest.skip("this browser has no WebGL 2, not even on the CPU")
        reader.run("document.querySelector('canvas').focus()")
        yield reader


def value(reader):
    return reader.text(".reading .value")


def test_the_value_and_place_follow_the_crosshair(reader):
    assert value(reader) == "Susceptibility χ 0.0480 ppm"  # voxel 12 of 24
    reader.key("ArrowRight")
    reader.key("PageUp")
    assert value(reader) == "Susceptibility χ 0.0520 ppm"
    assert reader.text(".reading .where") == "x 13.0, y 15.0, z 22.0 mm"
    reader.until("document.querySelector('.spoken').textContent.includes('0.0520 ppm')")
    reader.run("var s = document.querySelector('[data-axis=\"0\"]'); s.value = 3;"
               "s.dispatchEvent(new Event('input'))")  # fmt: skip
    assert value(reader) == "Susceptibility χ 0.0120 ppm"


def test_keys_flicker_between_maps_and_outline_regions(reader):
    reader.key("2")
    reader.until("document.querySelector('.reading .value').innerText.startsWith('R2*')")
    reader.key(" ")
    reader.until("document.querySelector('.reading .value').innerText.startsWith('Susc')")
    reader.click(".planes [data-value=axial]")
    seen = "document.querySelector('.slice-viewer').viewer.nv.volumes.length"
    reader.key("r")
    reader.until(f"{seen} === 2")
    reader.run("var s = document.querySelector('[data-axis=\"0\"]'); s.value = 12;"
               "s.dispatchEvent(new Event('input'))")  # fmt: skip
    assert "right one" in reader.text(".reading .others")
    reader.key("r")
    reader.until(f"{seen} === 1")
    reader.key("p")


def test_the_window_follows_numbers_keys_and_the_right_button(reader):
    ends = "[...document.querySelectorAll('.window input')].map(i => +i.value)"
    reader.run("var i = document.querySelector('.window input'); i.value = -0.3;"
               "i.dispatchEvent(new Event('change'))")  # fmt: skip
    assert reader.run(ends) == [-0.3, 0.1]
    reader.key("\\")
    assert reader.run(ends) == [-0.1, 0.1]
    area = reader.run("var a = document.querySelector('canvas').getBoundingClientRect();"
                      "[a.left + a.width / 4, a.top + a.height / 2]")  # fmt: skip
    reader.mouse("mousePressed", *area, "right", buttons=2)
    reader.mouse("mouseMoved", area[0] + 120, area[1], "right", buttons=2)
    reader.mouse("mouseReleased", area[0] + 120, area[1], "right")
    reader.until(f"{ends}[1] === 0.2")
    assert reader.run(ends) == [-0.2, 0.2]


def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(reader):
    assert reader.errors == []
    assert {url.split(":")[0] for url in reader.requests} <= {"file", "data", "blob"}
    assert sum(url.endswith("niivue.umd.js") for url in reader.requests) == 1


def test_without_webgl_or_files_a_sentence_says_so_and_where_to_look(page):
    with browser.Browser("--disable-3d-apis") as reader:
        reader.open(page)
        assert reader.until(READY) == "no"
        assert "no WebGL 2" in reader.text(".wait")
    library = page.parent / "sub-01" / "figures" / "niivue.umd.js"
    library.rename(library.with_suffix(".gone"))
    with browser.Browser() as reader:
        reader.open(page)
        assert reader.until(READY) == "no"
        said = reader.text(".wait")
    library.with_suffix(".gone").rename(library)
    assert "niivue.umd.js is missing beside this page" in said
    assert "pictures on this page" in said
