"""The user's own arrays are looked at before a run: values, volume, place; nodes read the same."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions
from qsm_nipype.dataset.own_arrays import read_mask

EDGE = 6.0
SHAPE = (30, 36, 28)
AFFINE = np.diag([EDGE, EDGE, EDGE, 1.0])
AFFINE[:3, 3] = -EDGE / 2 * np.array(SHAPE)
_PLACE = [(n - s / 2) * EDGE for n, s in zip(np.indices(SHAPE), SHAPE, strict=True)]
RADIUS = np.sqrt(sum(p**2 for p in _PLACE))
HEAD, BRAIN = RADIUS < 84, RADIUS < 66  # mm; 2.4 and 1.2 litres
EAR = np.roll(RADIUS, 13, 0) < 12


def save(path: Path, data, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data), affine), path)
    return path


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    """A head with a FLAIR on another grid."""
    root = tmp_path_factory.mktemp("bids")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    anat = root / "sub-01" / "anat"
    for part in ("mag", "phase"):
        path = save(anat / f"sub-01_part-{part}_GRE.nii.gz", (100 * HEAD).astype(np.int16))
        text = json.dumps({"EchoTime": 0.02, "MagneticFieldStrength": 3})
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(text)
    save(anat / "sub-01_FLAIR.nii.gz", HEAD.astype(np.int16), AFFINE + np.eye(4) * 0.3)
    return root


def find(bids, **own):
    """The acquisition, or the reason why there is none."""
    good, bad = find_acquisitions(bids, Selection(own=own))
    return good[0] if good else bad[0].reason


@pytest.mark.parametrize(
    "values",
    [
        BRAIN.astype(np.uint8),
        (255 * BRAIN).astype(np.uint8),
        np.where(BRAIN, 0.9, 0.2).astype(np.float32),
        BRAIN.astype(np.float32)[..., None],
    ],
)
def test_the_node_has_the_mask_that_was_looked_at(bids, tmp_path, monkeypatch, values):
    from qsm_nipype.interfaces.masking import UserMask
    from qsm_nipype.volume import load

    file = save(tmp_path / "brain.nii.gz", values)
    found = find(bids, masks=file)
    assert found.own.mask == file
    monkeypatch.chdir(tmp_path)
    done = UserMask(in_file=str(file), in_reference=found.magnitude[0]).run()
    assert np.array_equal(load(done.outputs.out_mask).data > 0, BRAIN)
    assert np.array_equal(read_mask(file).data, BRAIN)


def test_a_mask_stored_along_other_axes_is_turned(bids, tmp_path, monkeypatch):
    from qsm_nipype.interfaces.masking import UserMask
    from qsm_nipype.volume import load

    lopsided = BRAIN & (_PLACE[0] > -20) & (_PLACE[2] < 30)
    whole = nib.Nifti1Image(lopsided.astype(np.uint8), AFFINE)
    axes = nib.orientations.axcodes2ornt("PIL")  # from RAS
    turned = whole.as_reoriented(axes)
    assert turned.shape != SHAPE
    nib.save(turned, tmp_path / "brain.nii.gz")
    found = find(bids, masks=tmp_path / "brain.nii.gz")
    monkeypatch.chdir(tmp_path)
    done = UserMask(in_file=str(found.own.mask), in_reference=found.magnitude[0]).run()
    assert np.array_equal(load(done.outputs.out_mask).data > 0, lopsided)


SHIFTED = AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, EDGE])


@pytest.mark.parametrize(
    ("kind", "values", "affine", "words"),
    [
        ("masks", np.where(BRAIN, 90, 3), AFFINE, "it has values (3, 90)"),
        ("masks", ~BRAIN, AFFINE, "it has 5344 cm³, and no brain has over 2500; give the brain's"),
        ("masks", RADIUS < 12, AFFINE, "which is no brain; give the mask of the whole brain"),
        ("masks", BRAIN, SHIFTED, "differs from that of sub-01, apart by up to 1 voxels; resam"),
        ("masks", np.roll(RADIUS < 40, 14, 1), AFFINE, "of it lies where the magnitude of sub-01"),
        ("reference", EAR & ~HEAD, AFFINE, "only 0 % of it lies where the magnitude"),
        ("reference", 0 * BRAIN, AFFINE, "it has no voxel"),
        ("segmentation", BRAIN * 0.5, AFFINE, "no whole numbers"),
        ("segmentation", 0 * BRAIN, AFFINE, "it has no region, all labels are 0"),
        ("segmentation", BRAIN, AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 900]),
         "none of its regions lies in the field of view of sub-01"),
        ("lesions", BRAIN, AFFINE, "cm³, and lesions do not have over 300; give the mask of the"),
        ("lesions", np.where(BRAIN, 90.5, 3), AFFINE, "no whole numbers"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_is_refused_before_a_run(bids, tmp_path, kind, values, affine, words):
    values = values.astype(np.uint8) if values.dtype == bool else values.astype(np.float32)
    file = save(tmp_path / "own.nii.gz", values, affine)
    reason = find(bids, **{kind: file})
    assert isinstance(reason, str) and reason.startswith("own.nii.gz: ") and words in reason


def test_a_reference_region_outside_of_the_own_mask_is_refused(bids, tmp_path):
    brain = save(tmp_path / "brain.nii.gz", BRAIN.astype(np.uint8))
    region = save(tmp_path / "csf.nii.gz", (EAR & HEAD & ~BRAIN).astype(np.uint8))
    assert find(bids, masks=brain, reference=region) == (
        "csf.nii.gz: the reference region lies outside the brain mask brain.nii.gz; give one "
        "inside it"
    )
    assert find(bids, reference=region).own.region == region


def test_lesions_on_no_known_grid_are_left_out_with_a_sentence(bids, tmp_path):
    few = (EAR & HEAD).astype(np.uint8)
    assert find(bids, lesions=save(tmp_path / "a.nii.gz", few)).own.lesions is not None
    none = save(tmp_path / "none.nii.gz", 0 * few)  # a participant without lesions
    assert find(bids, lesions=none).own.lesions is not None
    found = find(bids, lesions=save(tmp_path / "b.nii.gz", few, SHIFTED))
    assert found.own.lesions is None and "is on the grid neither of" in found.own.notes[0]
