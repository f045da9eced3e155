"""Two-stage reconstruction: what is left out, how it is filled, and that streaks go."""

import pytest
import torch

from qsm_nipype.core.background.tfi import lbv_tfi
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.tv import tv
from qsm_nipype.core.two_stage import join_stages, without_strong_sources


@pytest.fixture(scope="module")
def ball():
    axes = torch.meshgrid(*[torch.arange(48.0) - 23.5] * 3, indexing="ij")
    return torch.stack(axes).norm(dim=0) * 2.0  # mm: voxels of 2 mm


def test_a_bleed_is_left_out_with_its_margin_and_a_vein_stays(ball):
    mask, chi = ball < 40, torch.zeros_like(ball)
    chi[ball < 8] = -0.9
    chi[30, 10:30, 24] = 0.5
    kept = without_strong_sources(chi, mask, (2.0, 2.0, 2.0), threshold=0.3)
    assert not kept[ball < 9.5].any() and torch.equal(kept[ball > 13], mask[ball > 13])
    weak = without_strong_sources(chi, mask, (2.0, 2.0, 2.0), threshold=1.0)
    assert torch.equal(weak, mask)


def test_the_joined_map_takes_each_voxel_from_its_stage_at_one_level(ball):
    mask = ball < 40
    inside = mask & (ball > 10)
    truth = torch.where(ball < 10, 1.0, 0.02 * torch.sin(ball))
    found = join_stages(truth * inside, inside, (truth + 0.4) * mask, mask)
    assert torch.allclose(found[mask], truth[mask], atol=1e-5) and not found[~mask].any()
    nowhere = torch.zeros_like(mask)
    assert torch.equal(join_stages(truth, nowhere, truth, mask), truth * mask)


def test_streaks_around_a_wrongly_measured_bleed_get_weaker(ball):
    """The field of a bleed of 1 ppm is saturated at its core, as dephasing makes it."""
    mask, size, b0 = ball < 40, (2.0, 2.0, 2.0), (0.0, 0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    truth = torch.where(ball < 9, 1.0, 0.0) * mask
    field = dipole_field(truth, size, b0)
    field += 0.001 * torch.randn(field.shape, generator=generator)
    field[ball < 11] *= 0.6
    around = mask & (ball > 16)

    def pipeline(inside):
        local = lbv_tfi(field, inside, size, b0)
        return tv(local.field, local.mask, size, b0).chi, local.mask

    filled, known = pipeline(mask)
    robust, inside = pipeline(without_strong_sources(filled, mask, size, threshold=0.3))
    joined = join_stages(robust, inside, filled, known)
    errors = [
        float((x - x[around & known].mean())[around & known].square().mean().sqrt())
        for x in (filled, joined)
    ]
    assert errors[1] < 0.6 * errors[0]
    assert joined[ball < 8].mean() > 0.3
