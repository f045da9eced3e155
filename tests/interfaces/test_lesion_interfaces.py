"""Lesion nodes: files in, one call, files out; what cannot be used does not stop the run."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype.interfaces.bids import DerivativesSink
from qsm_nipype.interfaces.lesions import FindLesions, QSMRimNet
from qsm_nipype.models import radiomics, rim, weights
from qsm_nipype.report.lesions import draw_rims

needed = pytest.mark.skipif(not radiomics.available(), reason="PyRadiomics is not installed")
NAMES = ("original_firstorder_Mean", "original_firstorder_Maximum")
SHAPE = (48, 56, 40)


def write(path, data, affine=None):
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return str(path)


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A head-like magnitude, a FLAIR on its own shifted grid, a mask in FLAIR space."""
    monkeypatch.chdir(tmp_path)
    x, y, z = np.indices(SHAPE) - np.reshape((24, 28, 20), (3, 1, 1, 1))
    head = (x / 20) ** 2 + (y / 24) ** 2 + (z / 17) ** 2 < 1
    inner = ((x - 4) / 9) ** 2 + (y / 12) ** 2 + ((z + 2) / 7) ** 2 < 1
    rng = np.random.default_rng(0)
    image = 100.0 * head + 60.0 * inner + 20 * np.sin(x / 3.0) * head
    magnitude = np.stack([image, 0.7 * image], -1) + rng.normal(0, 2, (*SHAPE, 2))
    affine = np.diag([2.0, 2, 2, 1])
    moved = affine.copy()
    moved[:3, 3] = 4, -2, 0  # the same head, stored from another corner
    flair = np.roll(150.0 * head - 50.0 * inner, (-2, 1, 0), (0, 1, 2)) + rng.normal(0, 2, SHAPE)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[20:24, 30:34, 22:26] = 1
    lesion[34, 24, 18] = 1
    return {
        "in_magnitude": write("mag.nii", magnitude.astype(np.float32), affine),
        "in_flair": write("sub-01_FLAIR.nii", flair.astype(np.float32), moved),
        "in_lesions": write("sub-01_label-lesion_mask.nii", lesion, moved),
    }


def outputs(interface):
    return interface.run().outputs


def test_flair_and_its_mask_land_on_the_magnitude(scans):
    out = outputs(FindLesions(**scans, num_threads=1))
    instances = nib.load(out.out_instances)
    data = np.asanyarray(instances.dataobj)
    assert data.shape == SHAPE and data.max() == 2
    center = np.argwhere(data == 1).mean(0)
    assert np.allclose(center, (23.5, 30.5, 23.5), atol=0.8)  # two to the right, one back
    record = json.loads(Path(out.out_record).read_text())
    assert record["parameters"]["space"] == "FLAIR" and record["similarity"] > 1.02
    assert nib.load(out.out_flair).shape == SHAPE


def test_a_mask_on_the_gradient_echo_grid_stays_where_it_is(scans):
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[10:13, 20:24, 20:24] = 1
    scans["in_lesions"] = write("gre_mask.nii", lesion)
    data = np.asanyarray(nib.load(outputs(FindLesions(**scans)).out_instances).dataobj)
    assert np.array_equal(data > 0, lesion > 0)


def test_probabilities_are_cut_at_a_half_and_notes_reach_the_record(scans):
    chances = np.zeros(SHAPE, np.float32)
    chances[9:14, 20:24, 20:24], chances[10:13, 20:24, 20:24] = 0.3, 0.8
    scans["in_lesions"] = write("sub-01_bianca.nii", chances)
    out = outputs(FindLesions(**scans, said=["Of several FLAIRs one was taken."]))
    assert np.array_equal(nib.load(out.out_instances).get_fdata() > 0, chances > 0.5)
    record = json.loads(Path(out.out_record).read_text())
    assert len(record["notes"]) == 2 and not record["warnings"]
    assert "sub-01_bianca.nii: probabilities (up to 0.8)" in record["notes"][1]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((9, 9, 9), np.uint8), "resample it to one of them"),
        (np.zeros((*SHAPE, 2), np.uint8), "one volume of three"),
        (np.zeros(SHAPE, np.uint8), "the lesion mask is empty"),
    ],
)
def test_a_useless_mask_is_a_warning_and_no_lesion(scans, mask, said):
    scans["in_lesions"] = write("sub-01_bad.nii", mask)
    out = outputs(FindLesions(**scans))
    (warning,) = json.loads(Path(out.out_record).read_text())["warnings"]
    assert said in warning and "sub-01_bad.nii" in warning
    assert not np.asanyarray(nib.load(out.out_instances).dataobj).any()


def test_another_head_is_not_registered(scans):
    noise = np.random.default_rng(1).normal(100, 10, SHAPE).astype(np.float32)
    scans["in_flair"] = write("sub-02_FLAIR.nii", noise)
    scans["in_lesions"] = write("gre_mask.nii", np.ones(SHAPE, np.uint8))
    out = outputs(FindLesions(**scans))
    (warning,) = json.loads(Path(out.out_record).read_text())["warnings"]
    assert "could not be aligned" in warning


@needed
def test_rims_table_and_picture_reach_the_dataset(scans, tmp_path):
    torch.manual_seed(0)
    tensors = {**rim.RimNet(2, 2).state_dict(), "features.mean": torch.zeros(2),
               "features.scale": torch.ones(2)}  # fmt: skip
    about = {"features": " ".join(NAMES), "threshold": "1e-6"}
    weights.save(tmp_path / "rim.safetensors", tensors, about)
    found = outputs(FindLesions(**scans))
    chi = np.random.default_rng(2).normal(0, 0.02, SHAPE).astype(np.float32)
    maps = [write("chi.nii", chi)]
    mask = write("mask.nii", np.ones(SHAPE, np.uint8))
    rated = outputs(
        QSMRimNet(
            weights=str(tmp_path / "rim.safetensors"),
            in_chi=maps,
            in_mask=mask,
            in_instances=found.out_instances,
            in_flair=found.out_flair,
            min_volume=20.0,
        )
    )
    record = json.loads(Path(rated.out_record).read_text())
    assert record["numbers"]["lesions"]["value"] == 2
    assert record["numbers"]["rim_lesions"]["value"] == 1
    assert "smaller than 20 mm³" in Path(rated.out_table).read_text()
    steps = [{"step": "lesions", "method": "rimnet", "parameters": {"min_volume": 20.0}}]
    record = {"entities": {"sub": "01"}, "steps": steps}
    (tmp_path / "acquisition.json").write_text(json.dumps(record))
    sink = DerivativesSink(
        kinds=["lesions", "flair"],
        base_directory=str(tmp_path / "out"),
        entities={"sub": "01"},
        in_record=str(tmp_path / "acquisition.json"),
        lesions=found.out_instances,
        lesions_table=rated.out_table,
        lesions_columns=rated.out_columns,
        flair=found.out_flair,
    )
    outputs(sink)
    anat = tmp_path / "out" / "sub-01" / "anat"
    names = sorted(p.name for p in anat.iterdir())
    assert names == [
        "sub-01_desc-lesions_dseg.json",
        "sub-01_desc-lesions_dseg.nii.gz",
        "sub-01_desc-lesions_dseg.tsv",
        "sub-01_desc-qc_metrics.json",
        "sub-01_desc-qc_metrics.tsv",
        "sub-01_desc-registered_FLAIR.json",
        "sub-01_desc-registered_FLAIR.nii.gz",
    ]
    labels = nib.load(anat / "sub-01_desc-lesions_dseg.nii.gz")
    assert np.issubdtype(labels.get_data_dtype(), np.integer)
    columns = json.loads((anat / "sub-01_desc-lesions_dseg.json").read_text())
    assert columns["rim_probability"]["Description"] and columns["Type"] == "Lesion"
    volumes = (
        nib.load(path).get_fdata() for path in (maps[0], found.out_flair, found.out_instances)
    )
    png, caption = draw_rims(*volumes, Path(rated.out_table).read_text(), labels.affine)
    assert png[:4] == b"\x89PNG" and caption.startswith("1 of 1 classified lesions")
