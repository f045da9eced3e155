import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.reference import Reference


def write(path, data):
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), path)
    return str(path)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chi = np.random.default_rng(0).standard_normal((6, 6, 6))
    labels = np.zeros(chi.shape)
    labels[1:3, 1:3, 1:3], labels[3:5, 3:5, 3:5] = 4, 43
    return (
        {
            "in_file": write(tmp_path / "chi.nii", chi),
            "in_mask": write(tmp_path / "mask.nii", np.ones(chi.shape)),
            "in_region": write(tmp_path / "labels.nii", labels),
        },
        chi,
        labels,
    )


def test_labels_choose_the_region_and_the_record_tells_its_mean_and_sd(inputs):
    files, chi, labels = inputs
    out = Reference(**files, labels=[4, 43], kind="csf").run().outputs
    record = json.loads(Path(out.out_record).read_text())
    region = np.isin(labels, [4, 43])
    assert abs(nib.load(out.out_file).get_fdata()[region].mean()) < 1e-6
    assert record["mean"] == pytest.approx(chi[region].mean() - chi.mean(), abs=1e-5)
    assert record["sd"] == pytest.approx(chi[region].std(), rel=1e-4)
    assert record["voxels"] == 16 and record["kind"] == "csf" and record["units"] == "ppm"


def test_a_region_that_is_empty_or_missing_is_refused_with_the_file_named(inputs):
    files, _, _ = inputs
    with pytest.raises(DataError, match=r"chi\.nii: the reference region has no voxel"):
        Reference(**files, labels=[99], kind="csf").run()
    del files["in_region"]
    with pytest.raises(DataError, match="needs a region"):
        Reference(**files, kind="region").run()
