"""A cohort of one's own: from derivatives and a table to the patients that training reads."""

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.training.rim_cohort import read_patient
from qsm_nipype.training.rim_own_cohort import read_cohort, read_labels

ACQUISITION = "sub-01_ses-1"


@pytest.fixture
def derivatives(tmp_path):
    """Three lesions on a grid of 1 mm whose first axis runs to the left."""
    chi = np.full((30, 32, 34), 0.002, np.float32)
    lesions = np.zeros(chi.shape, np.int16)
    for index, center in enumerate(((8, 8, 8), (20, 20, 10), (12, 22, 26)), start=1):
        lesions[tuple(slice(c - 2, c + 3) for c in center)] = index
    chi[lesions == 3] = 0.08
    images = {
        "Chimap": chi,
        "desc-registered_FLAIR": 100 + 50 * (lesions > 0).astype(np.float32),
        "desc-lesions_dseg": lesions,
        "desc-chi_mask": np.ones(chi.shape, np.uint8),
    }
    folder = tmp_path / "derivatives" / "sub-01" / "ses-1" / "anat"
    folder.mkdir(parents=True)
    affine = np.diag([-1.0, 1, 1, 1])
    for name, data in images.items():
        nib.Nifti1Image(data, affine).to_filename(folder / f"{ACQUISITION}_{name}.nii.gz")
    return tmp_path / "derivatives"


def table(tmp_path, *rows, columns=("acquisition", "index", "rim")):
    path = tmp_path / "labels.tsv"
    path.write_text("\n".join("\t".join(map(str, row)) for row in (columns, *rows)) + "\n")
    return path


def test_rated_lesions_become_a_patient_to_the_right_front_and_top(derivatives, tmp_path):
    rated = [(ACQUISITION, 1, 0), (ACQUISITION, 2, "n/a"), (ACQUISITION, 3, 1)]
    read_cohort(derivatives, [table(tmp_path, *rated)], tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("patient-*.npz")
    patient = read_patient(path)
    assert patient.rim.tolist() == [False, True]  # lesion 2 is not rated, 3 is now 2
    assert sorted(np.unique(patient.instances)) == [0, 1, 2]
    assert np.allclose(patient.chi[patient.instances == 2], 0.08, atol=1e-4)
    where = np.argwhere(patient.instances == 2).mean(0)
    first = np.argwhere(patient.instances == 1).mean(0)
    assert np.allclose(where - first, (-4, 14, 18))  # the stored first axis runs to the left
    assert patient.flair[patient.instances > 0].min() == 150


def test_another_table_does_not_meet_old_patients(derivatives, tmp_path):
    cache = tmp_path / "cache"
    read_cohort(derivatives, [table(tmp_path, (ACQUISITION, 1, 0))], cache)
    read_cohort(derivatives, [table(tmp_path, (ACQUISITION, 1, 0))], cache)
    with pytest.raises(DataError, match="give another OUT"):
        read_cohort(derivatives, [table(tmp_path, (ACQUISITION, 1, 1))], cache)


def test_a_simulated_cohort_is_not_mixed_with(derivatives, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "patient-0000.npz").touch()
    with pytest.raises(DataError, match="holds another cohort"):
        read_cohort(derivatives, [table(tmp_path, (ACQUISITION, 1, 0))], tmp_path / "cache")


def test_a_corrected_table_is_taken_after_a_refused_one(derivatives, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="no lesion 9"):
        wrong = table(tmp_path, (ACQUISITION, 1, 0), ("sub-01_ses-1", 9, 1))
        read_cohort(derivatives, [wrong], cache)
    assert not cache.exists()
    read_cohort(derivatives, [table(tmp_path, (ACQUISITION, 1, 0))], cache)
    assert read_patient(cache / "patient-0000.npz").rim.tolist() == [False]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(ACQUISITION, 9, 1)], "no lesion 9 of the table"),
        ([(ACQUISITION, 1, "yes")], "line 2: needs acquisition, index and rim"),
        ([(ACQUISITION, 1, "n/a")], "no lesion with rim 0 or 1"),
        ([("sub-02", 1, 1)], "no sub-02_Chimap.nii.gz; run qsm-nipype with -d lesions=PATH"),
    ],
)
def test_tables_that_do_not_fit_are_refused(derivatives, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_cohort(derivatives, [table(tmp_path, *rows)], tmp_path / "cache")


def test_a_missing_table_is_refused(derivatives, tmp_path):
    with pytest.raises(DataError, match="no such table"):
        read_cohort(derivatives, [tmp_path / "none.tsv"], tmp_path / "cache")


def test_several_tables_of_one_reader_are_one_cohort(derivatives, tmp_path):
    one = table(tmp_path, (ACQUISITION, 1, 0), (ACQUISITION, 2, "unsure"))
    other = one.rename(tmp_path / "sub-01_rater-A_rims.tsv")
    more = table(tmp_path, (ACQUISITION, 3, 1), (ACQUISITION, 1, 0))
    assert read_labels([other, more]) == {ACQUISITION: {1: False, 3: True}}
    read_cohort(derivatives, [other, more], tmp_path / "cache")
    read_cohort(derivatives, [more, other], tmp_path / "cache")  # the same labels
    contrary = table(tmp_path, (ACQUISITION, 1, 1))
    with pytest.raises(DataError, match="lesion 1 of sub-01_ses-1 is labelled 0 and 1"):
        read_labels([other, contrary])
