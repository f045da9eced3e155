"""The node of the deep grey nuclei: whatever the storage order, labels and numbers fit the map."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.core.deep_grey import NAMES
from qsm_nipype.interfaces import deep_grey
from qsm_nipype.interfaces.deep_grey import DeepGrey
from qsm_nipype.models import registry
from qsm_nipype.models.regions import Segmentation
from qsm_nipype.volume import load


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """What is bright is the red nucleus of its side, left being low x in RAS+."""

    def segment(chi, mask, voxel_size, *, localiser, segmenter, device, gains=None):
        assert (gains is None) == (segmenter == "own") and localiser == "regionsplace"
        left = (np.arange(len(chi)) < len(chi) / 2)[:, None, None]
        labels = np.where(chi > 0.05, np.where(left, 11, 12), 0).astype(np.uint8)
        return Segmentation(labels, "found", ("w.",), ("n.",))

    monkeypatch.setattr(deep_grey, "resolve", lambda name: segment)
    monkeypatch.setattr(registry, "read_nnunet", lambda name, path=None: path or name)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRP"])
@pytest.mark.parametrize("weights", [None, "own"])
def test_labels_follow_the_storage_and_numbers_the_map(tmp_path, monkeypatch, axes, weights):
    monkeypatch.chdir(tmp_path)
    chi = np.full((20, 24, 16), -0.02, np.float32)
    chi[3:6, 8:12, 5:8], chi[14:16, 8:12, 5:8] = 0.1, 0.2
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    image = nib.Nifti1Image(chi, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    image = image.as_reoriented(turn)
    nib.save(image, "chi.nii")
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), "mask.nii")
    node = DeepGrey(in_file=["chi.nii", "chi.nii"], in_mask="mask.nii")
    if weights:
        node.inputs.weights = weights
    found = node.run().outputs
    labels, stored = load(found.out_labels, dtype=np.uint8).data, image.get_fdata()
    for index, value in ((11, 0.1), (12, 0.2)):
        assert np.array_equal(labels == index, np.isclose(stored, value))
    record = json.loads(Path(found.out_record).read_text())
    assert (record["status"], record["warnings"], record["notes"]) == ("found", ["w."], ["n."])
    left, right = record["nuclei"]
    assert (left["name"], right["name"]) == (NAMES[11], NAMES[12])
    assert left["volume"] == pytest.approx(36 * 3) and left["mean"] == pytest.approx(0.1)
    assert right["volume"] == pytest.approx(24 * 3) and right["median"] == pytest.approx(0.2)
