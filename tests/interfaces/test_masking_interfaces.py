"""Mask interfaces: from files to a uint8 mask, and refusals."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.interfaces import masking

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def write(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    return str(path)


@pytest.fixture
def head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y, z = np.stack(np.meshgrid(*[(np.arange(44) - 21.5) * 4] * 3, indexing="ij"))

    def ball(r):
        return (x / 0.9) ** 2 + y**2 + z**2 < r**2

    brain = ball(64)
    image = 100.0 * brain + 120.0 * (ball(84) & ~ball(74))
    noise = np.random.default_rng(0).standard_normal(image.shape)
    image = np.abs(ndimage.gaussian_filter(image, 0.4) + 2 * noise)
    magnitude = np.stack([image, 0.6 * image], axis=-1)
    files = {
        "magnitude": write(tmp_path / "magnitude.nii", magnitude),
        "quality": write(tmp_path / "quality.nii", np.where(brain & (z > -40), 0.9, 0.1)),
        "brain": write(tmp_path / "brain.nii", brain),
        "upper": write(tmp_path / "upper.nii", brain & (z > 0)),
        "residual": write(tmp_path / "residual.nii", np.where(z < -40, 0.8, 0.05)),
    }
    return files, brain, z


def load(result):
    image = nib.load(result.outputs.out_mask)
    assert image.get_data_dtype() == np.uint8 and np.allclose(image.affine, AFFINE)
    return image.get_fdata() > 0


def test_magnitude_brain_and_quality_masks(head):
    files, brain, z = head
    whole = load(masking.MagnitudeMask(in_file=files["magnitude"]).run())
    assert whole[brain].all()
    found = load(masking.BrainMask(in_file=files["magnitude"], fraction=0.5).run())
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.93
    good = load(
        masking.QualityMask(
            in_file=files["magnitude"], in_quality=files["quality"], fraction=0.5
        ).run()
    )
    assert not good[z < -48].any() and good[brain & (z > -30)].mean() > 0.95


def test_trim_leaves_out_what_does_not_fit(head, tmp_path):
    files, brain, z = head
    like = nib.load(files["brain"])
    reliability, field = tmp_path / "reliability.nii", tmp_path / "field.nii"
    for path, data in ((reliability, z >= -40), (field, 0 * z)):
        nib.save(nib.Nifti1Image(data.astype(np.float32), like.affine), path)
    inputs = {"in_mask": files["brain"], "in_reliability": reliability, "in_field": field}
    inputs["in_quality"] = reliability
    kept = load(masking.TrimMask(**inputs, erosion=0.0).run())
    assert not kept[z < -40].any() and kept[brain & (z > -36)].mean() > 0.98
    brain_file = masking.TrimMask(**inputs).run().outputs.out_brain
    without = nib.load(brain_file).get_fdata() > 0
    assert not without[z < -40].any() and without[brain & (z >= -40)].mean() > 0.98
    thinner = load(masking.TrimMask(**inputs, erosion=4.0).run())
    assert thinner.sum() < kept.sum() and not (thinner & ~kept).any()
    with pytest.raises(DataError, match="no voxel of the mask has a reliable field"):
        masking.TrimMask(**inputs, erosion=200.0).run()


@pytest.mark.parametrize("top", [48, -20])
def test_trimming_tells_what_it_lost(head, tmp_path, top):
    files, brain, z = head
    good = (z < top).astype(float)
    reliability = write(tmp_path / "reliability.nii", good)
    node = masking.TrimMask(
        in_mask=files["brain"],
        in_reliability=reliability,
        in_quality=reliability,
        in_field=write(tmp_path / "field.nii", 0 * z),
    )
    found = json.loads(Path(node.run().outputs.out_record).read_text())
    bad = 100 * (brain & (z >= top)).sum() / brain.sum()
    assert found["numbers"]["unreliable_fraction"]["value"] == pytest.approx(bad)
    assert bool(found["warnings"]) == (top < 0)


def test_a_mask_of_which_hardly_any_is_left_is_refused(head, tmp_path):
    files, brain, z = head
    reliability = write(tmp_path / "reliability.nii", z < -50)
    with pytest.raises(DataError, match="only .* % of the mask.*echo times.*bipolar.*another"):
        masking.TrimMask(
            in_mask=files["brain"],
            in_reliability=reliability,
            in_quality=reliability,
            in_field=write(tmp_path / "field.nii", 0 * z),
            erosion=0.0,
        ).run()


def test_edit_intersects_and_applies_operations(head):
    files, brain, z = head
    node = masking.EditMask(in_masks=[files["brain"], files["upper"]])
    assert np.array_equal(load(node.run()), brain & (z > 0))
    node.inputs.operations = "erode:4"
    assert 0 < load(node.run()).sum() < (brain & (z > 0)).sum()
    node.inputs.operations = "erode:90"
    with pytest.raises(DataError, match="brain.nii: nothing is left"):
        node.run()
    node.inputs.operations = "melt"
    with pytest.raises(UsageError, match="melt"):
        node.run()


def test_a_users_mask_must_be_on_the_grid_of_the_data_and_not_empty(head, tmp_path):
    files, brain, _ = head
    node = masking.UserMask(in_file=files["brain"], in_reference=files["residual"])
    assert np.array_equal(load(node.run()), brain)
    for affine, shape in ((np.diag([4, 4, 4.1, 1.0]), (44, 44, 44)), (AFFINE, (44, 44, 40))):
        other = write(tmp_path / "other.nii", np.ones(shape), affine)
        with pytest.raises(DataError, match="other.nii.*its grid .* differs from that of"):
            masking.UserMask(in_file=other, in_reference=files["residual"]).run()
    empty = write(tmp_path / "empty.nii", np.zeros((44, 44, 44)))
    with pytest.raises(DataError, match="empty.nii: it has no voxel"):
        masking.UserMask(in_file=empty, in_reference=files["residual"]).run()
