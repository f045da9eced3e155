"""Interfaces of the report: pictures and pages from files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from qsm_nipype.interfaces.reportlets import AcquisitionPictures, SubjectReport

SHAPE = (20, 24, 16)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Inputs of the pictures of a small acquisition; the node's folder is the current one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:17, 3:21, 2:14] = 1
    phase = rng.uniform(-np.pi, np.pi, (*SHAPE, 3)).astype(np.float32)
    volumes = {
        "chi": (0.05 * rng.normal(size=SHAPE) * mask).astype(np.float32),
        "mask": mask,
        "phase": phase,
        "magnitude": np.abs(phase),
    }
    paths = {}
    for name, data in volumes.items():
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1.0, 2.0, 1.0])), paths[name])
    record = {
        "entities": {"sub": "01", "run": "2"},
        "acquisition": {"echo_times": [0.004, 0.008, 0.012]},
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    return {
        "out_dir": str(tmp_path / "out"),
        "in_record": str(tmp_path / "record.json"),
        "label": "sub-01_run-2",
        "in_magnitude": paths["magnitude"],
        "in_raw_phase": paths["phase"],
        "in_unwrapped": paths["phase"],
        "in_chi": [paths["chi"]],
        "in_mask": paths["mask"],
        "in_mask_chi": paths["mask"],
    }


def test_pictures_lie_in_the_dataset_and_the_page_shows_them(inputs, tmp_path):
    node = AcquisitionPictures(**inputs)
    found = node.run().outputs.out_acquisition
    assert [str(t) for t in node.targets()] == [found]
    record = json.loads((tmp_path / "out/logs/records/sub-01_run-2.json").read_text())
    assert [f["name"] for f in record["figures"]] == ["phase", "magnitude", "chi"]
    for figure in record["figures"]:
        assert Image.open(tmp_path / "out" / figure["path"]).width > 800
    page = SubjectReport(in_records=[found], out_dir=inputs["out_dir"], subject="01").run()
    html = (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert page.outputs.out_file == str(tmp_path / "out" / "sub-01.html")
    assert 'src="sub-01/figures/sub-01_run-2_desc-chi_figure.png"' in html
    assert (tmp_path / "out/sub-01/figures/sub-01_run-2_viewer/chi.js").is_file()


def test_pictures_of_earlier_settings_go(inputs, tmp_path):
    figures = tmp_path / "out" / "sub-01" / "figures"
    figures.mkdir(parents=True)
    for name in ("sub-01_run-2_desc-rims_figure.png", "sub-01_run-3_desc-rims_figure.png"):
        (figures / name).touch()
    (figures / "sub-01_run-2_viewer").mkdir()
    (figures / "sub-01_run-2_viewer" / "viewer-axial-chi.jpg").touch()
    AcquisitionPictures(**inputs).run()
    volumes = {path.name for path in (figures / "sub-01_run-2_viewer").iterdir()}
    assert volumes == {"chi.js", "magnitude.js", "mask.js"}
    left = {path.name for path in figures.glob("*rims*")}
    assert left == {"sub-01_run-3_desc-rims_figure.png"}  # another acquisition's


def test_the_page_of_lesions_is_linked_and_goes_with_them(inputs, tmp_path):
    lesions = np.zeros(SHAPE, np.int16)
    lesions[8:11, 8:11, 6:8] = 1
    nib.save(nib.Nifti1Image(lesions, np.diag([-1.0, 1.0, 2.0, 1.0])), tmp_path / "lesions.nii")
    columns = "index\tvolume_mm3\trim_probability\trim\tcertainty\tnote"
    (tmp_path / "lesions.tsv").write_text(f"{columns}\n1\t36\t0.9\t1\tclear\tn/a\n")
    more = {"in_lesions": str(tmp_path / "lesions.nii"), "in_flair": inputs["in_mask"],
            "in_lesions_table": str(tmp_path / "lesions.tsv")}  # fmt: skip
    found = AcquisitionPictures(**inputs, **more).run().outputs.out_acquisition
    figures = tmp_path / "out" / "sub-01" / "figures"
    SubjectReport(in_records=[found], out_dir=inputs["out_dir"], subject="01").run()
    html = (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert 'href="sub-01/figures/sub-01_run-2_lesions.html"' in html
    page = (figures / "sub-01_run-2_lesions.html").read_text(encoding="utf-8")
    assert 'src="sub-01_run-2_lesions/1.jpg"' in page and str(tmp_path) not in page
    assert 'href="../../sub-01.html#run-2"' in page and 'id="run-2"' in html
    assert Image.open(figures / "sub-01_run-2_lesions" / "1.jpg").size == (450, 300)
    AcquisitionPictures(**inputs).run()
    assert not list(figures.glob("*lesions*.html")) and not list(figures.glob("*lesions/*"))


def test_every_inversion_has_its_picture_and_its_layer(inputs, tmp_path):
    record = json.loads((tmp_path / "record.json").read_text())
    names = {"whtv": "Weak-harmonic total variation", "tkd": "TKD"}
    steps = [{"step": "inversion", "method": k, "label": v} for k, v in names.items()]
    (tmp_path / "record.json").write_text(json.dumps({**record, "steps": steps}))
    chi = nib.load(inputs["in_chi"][0])
    other = str(tmp_path / "other.nii.gz")
    nib.save(nib.Nifti1Image(-chi.get_fdata(dtype=np.float32), chi.affine), other)
    node = AcquisitionPictures(**{**inputs, "in_chi": [*inputs["in_chi"], other]})
    record = json.loads(Path(node.run().outputs.out_acquisition).read_text())
    titles = {f["name"]: f["title"].split(" (")[0] for f in record["figures"]}
    assert titles["chi"] == "χ: Weak-harmonic total variation"
    assert titles["chi_tkd"] == "χ: TKD"
    labels = [layer["label"] for layer in record["viewer"]["layers"]]
    assert labels[:2] == ["χ: Weak-harmonic total variation", "χ: TKD"]
    files = [
        tmp_path / "out" / record["viewer"]["folder"] / layer["file"]
        for layer in record["viewer"]["layers"][:2]
    ]
    assert files[0].read_bytes() != files[1].read_bytes()


def test_the_page_lists_the_results_as_links(inputs, tmp_path):
    anat = tmp_path / "out" / "sub-01" / "anat"
    written = ["sub-01_run-2_Chimap.nii.gz", "sub-01_run-2_desc-brain_mask.nii.gz"]
    node = AcquisitionPictures(**inputs, written=[str(anat / name) for name in written])
    found = node.run().outputs.out_acquisition
    maps = json.loads(Path(found).read_text())["maps"]
    assert maps["desc-brain_mask"] == f"sub-01/anat/{written[1]}"
    assert maps["Chimap"] == f"sub-01/anat/{written[0]}"
    SubjectReport(in_records=[found], out_dir=inputs["out_dir"], subject="01").run()
    html = (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert f'href="sub-01/anat/{written[0]}"' in html


def test_import_is_light():
    code = (
        "import sys, qsm_nipype.interfaces.reportlets; "
        "print([m for m in ('torch', 'matplotlib', 'jinja2', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
