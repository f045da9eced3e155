"""Training cases of the deep grey nuclei: seeded, in their frame, with contrasts as drawn."""

import argparse

import numpy as np
import pytest
import torch

from qsm_nipype.core.deep_grey import KINDS
from qsm_nipype.errors import UsageError
from qsm_nipype.simulation.deep_grey import OTHER, TISSUE
from qsm_nipype.training import region_contrast, region_data, regions
from qsm_nipype.training.dentate_data import Case
from qsm_nipype.training.region_contrast import kind_susceptibility, person_contrast
from qsm_nipype.training.region_data import Person


@pytest.fixture(scope="module")
def small():
    """Neighbourhoods of a smaller box around one procedural person."""
    patch = pytest.MonkeyPatch()
    patch.setattr(region_data, "RECONSTRUCTED", (92, 80, 64))
    patch.setattr(region_data, "KEPT", (84, 72, 56))
    person = Person(11, ("procedural", "formulas"), None)
    first, again = region_data.neighbourhood(person), region_data.neighbourhood(person)
    patch.undo()
    return first, again


def test_the_same_person_gives_the_same_bytes(small):
    first, again = small
    assert first.chi.tobytes() == again.chi.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.chi.shape == first.labels.shape == (84, 72, 56)


def test_a_neighbourhood_holds_all_kinds_and_iron_is_bright(small):
    case, _ = small
    assert set(np.unique(case.labels).tolist()) == set(range(len(KINDS) + 1))
    rest = case.chi[(case.labels == 0) & (case.chi != 0)]
    for kind in (3, 6, 7):  # pallidum, red nucleus, nigra
        assert case.chi[case.labels == kind].mean() > rest.mean() + 0.02


def test_without_the_atlas_nobody_has_its_shapes():
    kinds = {Person.random(seed, None).anatomy for seed in range(60)}
    assert len(kinds) > 1 and not any("atlas" in pair for pair in kinds)


def test_drawn_contrasts_reach_the_nuclei():
    person = Person(12, ("procedural", "formulas"), None)
    shape = (46, 40, 32)
    affine = region_data.grid_affine(shape, 2.0, center=region_data.CENTRE)
    head, kinds, points = person.paint(shape, affine)
    state = np.random.default_rng(5)
    table, offset = person_contrast(kinds, points, head, state)
    again = np.random.default_rng(5)
    again_table, again_offset = person_contrast(kinds, points, head, again)
    assert table == again_table and np.array_equal(offset, again_offset)
    for kind in range(1, len(KINDS) + 1):
        where = kinds == kind
        value = table[TISSUE[kind]][0] + offset[where].mean()
        assert -0.12 < value < 0.45, KINDS[kind - 1]


def test_iron_rises_with_age_and_is_highest_in_the_pallidum():
    drawn = [kind_susceptibility(np.random.default_rng(seed)) for seed in range(200)]
    means = {k: np.mean([d[k] for d in drawn]) for k in (*range(1, 9), OTHER)}
    assert means[3] > means[2] > means[1] > means[5]
    assert max(max(d.values()) for d in drawn) <= 0.32
    assert set(region_contrast._IRON) == {*range(1, len(KINDS) + 1), OTHER}


def test_a_cut_field_of_view_has_no_labels_where_it_has_no_map():
    ones = np.ones((6, 6, 40), np.float32)
    cases = [Case(ones, ones.astype(np.uint8), 1.0)] * 40
    cut = regions.near_cases(cases, 0)
    assert all(np.array_equal(c.chi > 0, c.labels > 0) for c in cut)
    heights = [int((c.chi > 0).any((0, 1)).sum()) for c in cut]
    assert 2 < sum(h < 40 for h in heights) < 20 and min(heights) > 15


def test_too_few_volumes_are_refused(tmp_path):
    options = argparse.Namespace(volumes=3, held_out=2, atlas=None)
    with pytest.raises(UsageError, match="at least twice --held-out"):
        regions.run(options, tmp_path, torch.device("cpu"))
