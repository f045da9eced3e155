"""Images in memory: what is saved is loaded again, and a foreign grid is refused."""

import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.volume import Volume, load, load_like, same_grid, save

AFFINE = np.array([[-1.0, 0, 0, 9], [0, 0.8, -0.6, 3], [0, 0.6, 0.8, -4], [0, 0, 0, 1]])
AFFINE = AFFINE @ np.diag([1, 1, 2, 1])
REFERENCE = Volume(np.zeros((4, 5, 6), np.float32), AFFINE, "magnitude.nii")


def written(path, shape=(4, 5, 6), affine=AFFINE):
    rng = np.random.default_rng(0)
    return save(path, rng.normal(size=shape).astype(np.float32), Volume(np.zeros(1), affine))


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3)], ids=["one volume", "echoes"])
def test_an_image_on_the_grid_of_the_reference_is_what_load_gives(tmp_path, shape):
    path = written(tmp_path / "mask.nii.gz", shape)
    image = load_like(REFERENCE, path)
    assert same_grid(image, REFERENCE)
    assert np.array_equal(image.data, load(path).data)
    assert image.voxel_size == pytest.approx((1, 1, 2))
    assert image.b0_dir == pytest.approx((0, 0.6, 0.8))


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((4, 5, 7), AFFINE),
        ((5, 4, 6), AFFINE),
        ((4, 5, 6), AFFINE @ np.diag([1, 1, 1.02, 1])),
        ((4, 5, 6), AFFINE @ np.diag([-1, 1, 1, 1])),
        ((4, 5, 6), AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 0.4])),
    ],
    ids=["more slices", "axes exchanged", "voxels 2 % longer", "flipped", "shifted"],
)
def test_another_grid_is_refused_with_both_names_and_the_cure(tmp_path, shape, affine):
    path = written(tmp_path / "mask.nii.gz", shape, affine)
    with pytest.raises(DataError) as refusal:
        load_like(REFERENCE, path)
    assert str(refusal.value) == (
        f"{path}: its grid (shape or affine) differs from that of magnitude.nii; "
        "resample it to that grid"
    )


def test_whole_numbers_stay_whole(tmp_path):
    labels = np.arange(4 * 5 * 6).reshape(4, 5, 6) * 1000
    path = save(tmp_path / "labels.nii", labels, REFERENCE)
    assert np.array_equal(load_like(REFERENCE, path, dtype=np.int32).data, labels)


def test_a_missing_file_is_refused_by_its_own_sentence(tmp_path):
    with pytest.raises(DataError, match="no such file; check the path"):
        load_like(REFERENCE, tmp_path / "mask.nii")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (np.zeros((4, 4)), True),
        (np.outer([0, 0, 1, 0], [0, 0, 0, 0.03]), True),  # mm
        (np.outer([0, 0, 1, 0], [0, 0, 0, 0.12]), False),
        (np.outer([1, 0, 0, 0], [0.0004, 0, 0, 0]), True),  # 0.04 voxels at the far corner
        (np.outer([1, 0, 0, 0], [0.001, 0, 0, 0]), False),  # a tenth
    ],
)
def test_grids_within_a_twentieth_of_a_voxel_over_the_volume_are_the_same(change, same):
    from qsm_nipype.volume import same_space

    assert same_space(AFFINE, AFFINE + change, (101, 5, 6)) is same


def test_axes_of_length_one_are_dropped_and_others_refused(tmp_path):
    from qsm_nipype.volume import load_one

    assert load_one(written(tmp_path / "a.nii.gz", (4, 5, 6, 1, 1), AFFINE)).data.shape == (
        4,
        5,
        6,
    )
    with pytest.raises(DataError, match="it has 4 axes; give one volume of three"):
        load_one(written(tmp_path / "b.nii.gz", (4, 5, 6, 2), AFFINE))
