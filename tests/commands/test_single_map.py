"""The commands on one map: what they write, and one sentence for each map that cannot be used."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import cli
from qsm_nipype.core.deep_grey import NAMES
from qsm_nipype.interfaces import deep_grey, segmentation
from qsm_nipype.models import radiomics, registry
from qsm_nipype.volume import load


@pytest.fixture
def head(tmp_path) -> Path:
    """A map of 2.5 mm with two bright nuclei, random elsewhere in a ball."""
    x, y, z = 2.5 * (np.indices((64, 64, 64)) - 31.5)
    ball = x**2 + y**2 + z**2 < 70**2
    chi = 0.02 * np.random.default_rng(0).standard_normal(ball.shape)
    for side in (-15, 15):
        chi[(x - side) ** 2 + y**2 + z**2 < 64] = 0.15
    affine = np.diag([2.5, 2.5, 2.5, 1])
    affine[:3, 3] = -2.5 * 31.5
    path = tmp_path / "chi.nii.gz"
    nib.save(nib.Nifti1Image(np.where(ball, chi, 0).astype(np.float32), affine), path)
    return path


@pytest.fixture
def labelled(monkeypatch):
    """Networks that find what is above 0.1 ppm, and a tissue that is nobody's business here."""
    from qsm_nipype.models.dentate import Segmentation

    def segment(chi, mask, voxel_size, **_):
        left = (np.arange(len(chi)) < len(chi) / 2)[:, None, None]
        labels = np.where(chi > 0.1, np.where(left, 1, 2), 0).astype(np.uint8)
        return Segmentation(labels, mask, "found", ((0, 0, 0), chi.shape))

    def deep(chi, mask, voxel_size, **_):
        from qsm_nipype.models.regions import Segmentation

        return Segmentation(np.where(chi > 0.1, 11, 0).astype(np.uint8), "found", notes=("n.",))

    monkeypatch.setattr(segmentation, "resolve", lambda name: segment)
    monkeypatch.setattr(deep_grey, "resolve", lambda name: deep)
    monkeypatch.setattr(registry, "read_nnunet", lambda *a: None)


def test_segment_writes_labels_a_table_and_a_picture(head, labelled, tmp_path, capsys):
    out = tmp_path / "out"
    magnitude = str(head)
    assert cli.main(["segment", str(head), str(out), "--magnitude", magnitude]) == 0
    assert {p.name for p in out.iterdir()} == {
        f"{name}.{ending}"
        for name in ("dentate", "deepgrey")
        for ending in ("nii.gz", "tsv", "png")
    }
    chi, labels = load(head).data, load(out / "dentate.nii.gz", dtype=np.uint8).data
    header, left, right = (
        line.split("\t") for line in (out / "dentate.tsv").read_text().split("\n")[:3]
    )
    assert header == [
        "index",
        "region",
        "voxels",
        "volume_mm3",
        "mean_ppm",
        "median_ppm",
        "sd_ppm",
    ]
    for row, index in ((left, 1), (right, 2)):
        inside = chi[labels == index]
        assert float(row[2]) == inside.size > 0
        assert float(row[3]) == pytest.approx(inside.size * 2.5**3)
        assert float(row[4]) == pytest.approx(inside.mean(), rel=1e-5)
        assert float(row[6]) == pytest.approx(inside.std(ddof=1), rel=1e-4, abs=1e-6)
    rows = [line.split("\t") for line in (out / "deepgrey.tsv").read_text().splitlines()[1:]]
    assert {int(row[0]): row[1] for row in rows} == NAMES
    bright = chi > 0.1
    assert [row[2] for row in rows if row[0] == "11"] == [str(bright.sum())]
    said = capsys.readouterr()
    assert "value other than 0" in said.out and said.err == "qsm-nipype: chi.nii.gz: n.\n"


@pytest.mark.parametrize(
    ("missing", "left"), [("dentate", {"deepgrey"}), ("deepgrey", {"dentate"})]
)
def test_segment_writes_what_there_is_and_says_what_there_is_not(
    head, labelled, tmp_path, capsys, monkeypatch, missing, left
):
    from qsm_nipype.models import dentate, regions

    def nothing(chi, mask, voxel_size, **_):
        empty = np.zeros(chi.shape, np.uint8)
        if missing == "dentate":
            return dentate.Segmentation(empty, mask, "not covered", None, ("It is not seen.",))
        return regions.Segmentation(empty, "not covered", ("It is not seen.",))

    module = segmentation if missing == "dentate" else deep_grey
    monkeypatch.setattr(module, "resolve", lambda name: nothing)
    out = tmp_path / "out"
    assert cli.main(["segment", str(head), str(out)]) == 0
    assert {p.name.split(".")[0] for p in out.iterdir()} == left
    assert "chi.nii.gz: it is not seen; give a map" in capsys.readouterr().err
    alone = ["segment", str(head), str(tmp_path / "alone"), "--segmentation", missing]
    assert cli.main(alone) == 2 and not (tmp_path / "alone").exists()
    assert cli.main([*alone[:-1], "thalamus"]) == 2
    assert "choose from dentate, deepgrey" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 1000 * x, "looks like ppb; name the unit by --map-units"),
        (lambda x: 0 * x, "no voxel has a value"),
        (lambda x: np.where(x > 0.1, 0.3, np.where(x != 0, 0.1, 0)), "drawn phantom"),
        (lambda x: -np.abs(x), "its sign is wrong; multiply the map by −1"),
        (lambda x: np.stack([x, x], -1), "has 2 volumes"),
    ],
)
def test_segment_refuses_in_one_sentence(head, labelled, tmp_path, capsys, change, said):
    image = nib.load(head)
    data = change(image.get_fdata()).astype(np.float32)
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "changed.nii.gz")
    out = tmp_path / "out"
    assert cli.main(["segment", str(tmp_path / "changed.nii.gz"), str(out)]) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("qsm-nipype: changed.nii.gz: ") and said in text
    assert "\n" not in text and not out.exists()


def test_rims_without_pyradiomics_or_its_files_says_so(head, tmp_path, capsys, monkeypatch):
    line = ["rims", str(head), "no.nii.gz", str(head), str(tmp_path / "out")]
    if not radiomics.available():
        assert cli.main(line) == 2 and "needs PyRadiomics" in capsys.readouterr().err
    monkeypatch.setattr(radiomics, "require", lambda: None)
    assert cli.main(line) == 2
    assert "no.nii.gz: no such file" in capsys.readouterr().err


def test_rims_refuses_lesions_of_another_grid_by_the_users_names(
    head, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(radiomics, "require", lambda: None)
    lesions = tmp_path / "lesions.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), lesions)
    assert cli.main(["rims", str(head), str(head), str(lesions), str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert "lesions.nii.gz: the lesion mask is on the grid neither" in text
    assert not (tmp_path / "out").exists()
