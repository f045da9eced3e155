"""The shipped models on a head that they have not seen."""

from dataclasses import replace

import numpy as np
import pytest

from qsm_nipype.models import registry
from qsm_nipype.models.dentate import segment
from qsm_nipype.simulation.head import grid_affine
from qsm_nipype.training.dentate_data import FOR_NUCLEI, Person, reconstruct


@pytest.fixture(scope="module")
def head():
    """χ as reconstructed at 1.6 mm, its mask, and the truth (1 left, 2 right)."""
    shape, step = (112, 130, 110), 1.6
    affine = grid_affine(shape, step, center=(0.0, -14.0, 2.0))
    painted, truth, _ = Person(987_654, "procedural").paint(shape, affine)
    chi = reconstruct(
        painted, truth, np.random.default_rng(3), replace(FOR_NUCLEI, inversions={"tv": 1})
    )
    return chi, chi != 0, truth, (step,) * 3


def run(chi, mask, size):
    return segment(
        chi,
        mask,
        size,
        localiser=registry.read_nnunet("cerebellum"),
        segmenter=registry.read_nnunet("dentate"),
        mirrored=True,
    )


@pytest.mark.skipif(not registry.shipped("dentate"), reason="no weights are shipped")
def test_both_nuclei_are_found_on_their_sides_and_not_where_there_is_no_cerebellum(head):
    chi, mask, truth, size = head
    found = run(chi, mask, size)
    assert found.status == "found"
    for side in (1, 2):
        ours, theirs = found.labels == side, truth == side
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.8
    top = chi[..., 70:]
    above = run(top, mask[..., 70:], size)
    assert above.status == "not covered" and not above.labels.any()


@pytest.mark.skipif(not registry.shipped("dentate"), reason="no weights are shipped")
def test_a_slab_that_holds_the_nuclei_is_enough(head):
    chi, mask, truth, size = head
    height = np.flatnonzero(truth.any(axis=(0, 1)))
    part = np.s_[..., height[0] - 6 : height[-1] + 7]
    found = run(chi[part], mask[part], size)
    assert found.status == "found"
    for side in (1, 2):
        ours, theirs = found.labels == side, truth[part] == side
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.8
