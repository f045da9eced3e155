"""Deep grey nuclei drawn on heads: in their places, from every source, without touching fluid."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.errors import DataError
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.anatomy import paint_head
from qsm_nipype.simulation.colin import TEMPLATES, Sampled, load_colin, paint_colin
from qsm_nipype.simulation.deep_grey import (
    OTHER,
    TISSUE,
    Shapes,
    load_cit168,
    paint_deep_grey,
)
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.head import grid_affine
from qsm_nipype.simulation.template_head import load_template

SHAPE, STEP = (48, 54, 40), 2.0
ATLASES = Path(os.environ.get("QSM_NIPYPE_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
ATLASES = ATLASES / "atlases"
needs_atlas = pytest.mark.skipif(
    not (ATLASES / "CIT168_CIT168.nii.gz").is_file(), reason="the CIT168 atlas is not here"
)


@pytest.fixture(scope="module")
def points():
    return grid_points(SHAPE, grid_affine(SHAPE, STEP, center=(0.0, -6.0, 3.0)))


@pytest.fixture(scope="module")
def procedural(points):
    return paint_head(points, np.random.default_rng(1))[0]


def centres(kinds, points):
    """Mean of |x|, y and z of each kind in head mm."""
    return {
        k: np.array([np.abs(points[0][kinds == k]).mean(), *points[1:, kinds == k].mean(1)])
        for k in range(1, len(KINDS) + 1)
        if (kinds == k).any()
    }


def check(kinds, labels, points):
    """Every kind on both sides, as its tissue label, near its place in MNI space."""
    for kind in range(1, len(KINDS) + 1):
        for side in (-1, 1):
            assert ((kinds == kind) & (points[0] * side > 0)).any(), KINDS[kind - 1]
        assert set(np.unique(labels[kinds == kind]).tolist()) == {TISSUE[kind]}
    at = centres(kinds, points)
    assert at[1][1] > at[5][1] + 15  # caudate before thalamus
    assert at[2][0] > at[3][0] > at[6][0]  # putamen, pallidum, red nucleus towards the midline
    assert at[3][1] > at[4][1] and at[3][2] > at[4][2] - 1  # internal part behind and below
    assert at[5][2] > at[6][2] + 8 and at[8][2] > at[7][2]


def test_formulas_draw_every_kind_and_leave_fluid_and_vessels(procedural, points):
    labels = procedural.copy()
    kinds = paint_deep_grey(labels, points, np.random.default_rng(2), source="formulas")
    check(kinds, labels, points)
    kept = np.isin(procedural, (lab.CSF, lab.VEIN, lab.DENTATE))
    assert np.array_equal(labels[kept], procedural[kept])
    nuclei = np.isin(labels, list(TISSUE.values()))
    assert np.array_equal(nuclei, (kinds > 0) & (kinds != OTHER))  # none of before is left


def test_the_same_seed_draws_the_same_and_another_another(procedural, points):
    drawn = [
        paint_deep_grey(procedural.copy(), points, np.random.default_rng(seed), source="formulas")
        for seed in (3, 3, 4)
    ]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_shapes_of_an_atlas_are_read_where_they_are(points, procedural):
    values = np.zeros((40, 40, 40), np.float32)
    values[22:30, 12:30, 14:26] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -40
    shapes = Shapes({2: Sampled(values, affine)})
    labels = procedural.copy()
    kinds = paint_deep_grey(
        labels, points, np.random.default_rng(5), source="atlas", shapes=shapes
    )
    assert set(np.unique(kinds).tolist()) == {0, 2, 5}  # and a thalamus, which it lacks
    box = centres(kinds, points)[2]
    assert np.abs(box - (11, 1, -1)).max() < 4
    assert (points[0][kinds == 2] > 0).all()


@pytest.mark.skipif(not (TEMPLATES / "ch2.nii.gz").is_file(), reason="no mricron-data here")
def test_aals_regions_stay_and_the_midbrain_is_drawn(points):
    labels, _ = paint_colin(points, np.random.default_rng(6), load_colin())
    before = labels.copy()
    kinds = paint_deep_grey(labels, points, np.random.default_rng(7), source="own")
    check(kinds, labels, points)
    for kind in (1, 2):
        own = before == TISSUE[kind]
        assert (kinds[own] == kind).mean() > 0.98


@needs_atlas
def test_cit168_has_every_kind_in_its_place(points, procedural):
    labels = procedural.copy()
    shapes = load_cit168(ATLASES)
    kinds = paint_deep_grey(
        labels, points, np.random.default_rng(8), source="atlas", shapes=shapes
    )
    check(kinds, labels, points)


def test_a_folder_without_the_atlas_is_refused(tmp_path):
    for load in (load_cit168, load_template):
        with pytest.raises(DataError, match="give the folder of the CIT168 subcortical atlas"):
            load(tmp_path)


def test_cit168s_file_is_two_labels_with_probabilities(tmp_path):
    dtype = np.dtype([(c, "u1") for c in "RGBA"])
    data = np.zeros((30, 30, 30), dtype)
    data["R"][20:24, 10:20, 10:20], data["B"][20:24, 10:20, 10:20] = 2, 255
    data["G"][24:26, 10:20, 10:20], data["A"][24:26, 10:20, 10:20] = 4, 100
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "CIT168_CIT168.nii.gz")
    names = ["Unknown", "L Putamen", "R Putamen", "L Caudate", "R Caudate"]
    (tmp_path / "CIT168_CIT168.json").write_text(json.dumps({"labels": names}))
    shapes = load_cit168(tmp_path)
    where = np.array([[21.0, 25.0, 5.0], [15.0, 15.0, 5.0], [15.0, 15.0, 5.0]]).reshape(3, 3, 1, 1)
    found = shapes.at(where.astype(np.float32), 0.3).ravel()
    assert found.tolist() == [2, 1, 0]
