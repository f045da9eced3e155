"""Interfaces of the report: pictures and pages from files."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from qsm_nipype.interfaces.reportlets import EchoFigure, MapFigure, SubjectReport, ViewerSprites

SHAPE = (20, 24, 16)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Paths of a map, a mask, labels and a 4-D phase; the node's folder is the current one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:17, 3:21, 2:14] = 1
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:12, 8:12, 6:10] = 2
    volumes = {
        "chi": (0.05 * rng.normal(size=SHAPE) * mask).astype(np.float32),
        "mask": mask,
        "labels": labels,
        "phase": rng.uniform(-np.pi, np.pi, (*SHAPE, 3)).astype(np.float32),
    }
    paths = {}
    for name, data in volumes.items():
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1.0, 2.0, 1.0])), paths[name])
    return paths


@pytest.mark.parametrize("layout", ["planes", "mosaic"])
def test_map_figure(images, layout):
    found = MapFigure(
        in_file=images["chi"], in_mask=images["mask"], style="chi", layout=layout
    ).run()
    assert Image.open(found.outputs.out_file).width > 800


def test_labels_over_a_background(images):
    found = MapFigure(
        in_file=images["labels"], in_background=images["chi"], in_mask=images["mask"], style="chi"
    ).run()
    pixels = np.asarray(Image.open(found.outputs.out_file).convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=-1) > 60).any()  # a colour among the grays


def test_own_window_changes_the_picture(images):
    def drawn(**more):
        spec = {"in_file": images["chi"], "in_mask": images["mask"], "style": "chi"}
        with open(MapFigure(**spec, **more).run().outputs.out_file, "rb") as stream:
            return stream.read()

    assert drawn() == drawn(window=(-0.1, 0.1))
    assert drawn() != drawn(window=(-0.2, 0.2))


def test_echo_figure(images):
    found = EchoFigure(
        in_wrapped=images["phase"],
        in_unwrapped=images["phase"],
        in_mask=images["mask"],
        echo_times=[0.004, 0.008, 0.012],
    ).run()
    assert Image.open(found.outputs.out_file).width > 800


def test_page_with_viewer(images, tmp_path):
    sprites = ViewerSprites(in_files=[images["chi"]], styles=["chi"], in_mask=images["mask"]).run()
    figure = MapFigure(in_file=images["chi"], in_mask=images["mask"], style="chi").run()
    record = tmp_path / "record.json"
    record.write_text(
        json.dumps({"entities": {"subject": "01"}, "viewer": sprites.outputs.viewer})
    )
    page = SubjectReport(
        in_records=[str(record)],
        figures=[{"name": "chi", "title": "χ", "path": figure.outputs.out_file}],
        out_dir=str(tmp_path / "out"),
        subject="01",
    ).run()
    html = (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert page.outputs.out_file == str(tmp_path / "out" / "sub-01.html")
    assert 'src="sub-01/figures/sub-01_desc-chi.png"' in html
    assert (tmp_path / "out/sub-01/figures/sub-01_desc-chi.png").is_file()
    assert (tmp_path / "out/sub-01/figures/sub-01_viewer/viewer-axial-chi.jpg").is_file()


def test_records_may_be_dictionaries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = {"entities": {"sub": "02"}, "error": {"message": "no phase; export it"}}
    SubjectReport(in_records=[failed], out_dir=str(tmp_path), subject="02").run()
    assert "no phase; export it" in (tmp_path / "sub-02.html").read_text(encoding="utf-8")


def test_import_is_light():
    code = (
        "import sys, qsm_nipype.interfaces.reportlets; "
        "print([m for m in ('torch', 'matplotlib', 'jinja2', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
