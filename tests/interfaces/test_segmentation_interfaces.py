import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.segmentation import Dentate, dentate_numbers
from qsm_nipype.models import dentate, registry
from qsm_nipype.models.nnunet import Model
from qsm_nipype.volume import load


def network(spacing, labels, path):
    plan = {"spacing": [spacing] * 3, "patch_size": [16, 16, 16]}
    return Model({"configurations": {"c": plan}}, {"labels": labels}, "c", (), path)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """Stand-ins: all tissue is cerebellum, nuclei are bright, left is left of the box's middle."""

    def read(name, path=None):
        labels = {"cerebellum": 1} if name == "cerebellum" else {"left": 1, "right": 2}
        return network(4.0 if name == "cerebellum" else 2.0, labels, path or name)

    def predict(model, volume, voxel_size, *, device="cpu"):
        if "cerebellum" in model.labels:
            low = (abs(volume) > 0.01).astype(np.float32)
            return np.stack([1 - low, low])
        high = (volume > 0.05).astype(np.float32)
        left = (np.arange(len(high)) < len(high) / 2)[:, None, None]
        return np.stack([1 - high, high * left, high * ~left])

    monkeypatch.setattr(registry, "read_nnunet", read)
    monkeypatch.setattr(dentate, "predict", predict)


def write_head(folder, axes):
    """χ stored along `axes`: a large left and a small right nucleus in a cerebellum; 2 mm."""
    x, y, z = np.meshgrid(*[2.0 * np.arange(60) - 60] * 3, indexing="ij")
    chi = np.zeros(x.shape, np.float32)
    chi[(np.abs(x) < 40) & (np.abs(y) < 20) & (np.abs(z) < 20)] = -0.03
    chi[(np.abs(x + 15) < 8) & (np.abs(y - 4) < 7) & (np.abs(z) < 7)] = 0.2
    chi[(np.abs(x - 15) < 5) & (np.abs(y - 4) < 5) & (np.abs(z) < 5)] = 0.1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -60
    image = nib.Nifti1Image(chi, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    image = image.as_reoriented(turn)
    nib.save(image, folder / "chi.nii")
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), folder / "mask.nii")
    return {"in_file": str(folder / "chi.nii"), "in_mask": str(folder / "mask.nii")}


def test_nuclei_that_are_seen_upside_down_only_are_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports = write_head(tmp_path, "RAS")
    image = nib.load(ports["in_file"])
    nib.save(nib.Nifti1Image(-image.get_fdata(), image.affine), tmp_path / "upside_down.nii")
    out = Dentate(**{**ports, "in_file": str(tmp_path / "upside_down.nii")}).run().outputs
    record = json.loads(Path(out.out_record).read_text())
    assert record["status"] == "reversed sign" and "warnings" not in record
    assert "--phase-sign" in record["errors"][0]


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SLA", "AIL"])
def test_left_is_the_patients_left_however_the_map_is_stored(tmp_path, monkeypatch, axes):
    monkeypatch.chdir(tmp_path)
    ports = write_head(tmp_path, axes)
    out = Dentate(**ports).run().outputs
    chi, labels = load(ports["in_file"]), load(out.out_labels, dtype=np.uint8)
    assert np.array_equal(labels.data > 0, chi.data > 0.05)
    assert np.allclose(labels.affine, chi.affine)
    for side, sign in ((1, -1), (2, 1)):
        index = np.argwhere(labels.data == side).mean(0)
        assert sign * (chi.affine @ [*index, 1])[0] > 10
    record = json.loads(Path(out.out_record).read_text())
    assert record["status"] == "found" and record["warnings"] == []
    numbers = {name: entry["value"] for name, entry in record["numbers"].items()}
    assert numbers["dentate_left_chi"] == pytest.approx(0.2)
    assert numbers["dentate_left_volume"] > numbers["dentate_right_volume"] > 0
    box = load(out.out_box).data > 0.5
    where = tuple(
        slice(a, a + n) for a, n in zip(record["box"]["first"], record["box"]["size"], strict=True)
    )
    assert box[where].all() and box.sum() == np.prod(record["box"]["size"])
    cerebellum = load(out.out_cerebellum).data > 0.5
    assert cerebellum[chi.data == np.float32(-0.03)].mean() > 0.9


def test_a_map_in_ppb_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports = write_head(tmp_path, "RAS")
    noise = 30 * np.random.default_rng(0).standard_normal((60, 60, 60)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, load(ports["in_file"]).affine), ports["in_file"])
    with pytest.raises(DataError, match=r"chi.nii: .* cannot be ppm; divide a map in ppb by 1000"):
        Dentate(**ports).run()


def test_no_cerebellum_is_a_result_and_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports = write_head(tmp_path, "RAS")
    image = nib.load(ports["in_file"])
    nib.save(
        nib.Nifti1Image(image.get_fdata(dtype=np.float32) * 0, image.affine), ports["in_file"]
    )
    out = Dentate(**ports, weights="mine.zip").run().outputs
    record = json.loads(Path(out.out_record).read_text())
    assert record["status"] == "not covered" and record["box"] == {} == record["numbers"]
    assert not load(out.out_labels).data.any() and not load(out.out_box).data.any()


def test_numbers_of_one_side_only():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2] = 2
    chi = np.full(labels.shape, 0.1)
    numbers = dentate_numbers(labels, chi, chi > 0, (1, 1, 2))
    assert set(numbers) == {"dentate_right_volume", "dentate_right_chi"}
    assert numbers["dentate_right_volume"]["value"] == 64
    labels[2:] = 1
    both = dentate_numbers(labels, chi, chi > 0, (1, 1, 2))
    assert both["dentate_asymmetry"]["value"] == 0 and len(both) == 5
