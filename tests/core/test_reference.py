import pytest
import torch

from qsm_nipype.core.reference import erode, reference


@pytest.fixture
def maps():
    chi = torch.randn(9, 10, 11, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(chi.shape, dtype=torch.bool)
    mask[1:-1, 1:-1, 1:-1] = True
    region = torch.zeros_like(mask)
    region[2:6, 2:7, 3:9] = True
    return chi, mask, region


def test_brain_reference_makes_the_mean_zero_and_keeps_the_outside_zero(maps):
    chi, mask, _ = maps
    result = reference(chi + 3, mask)
    assert result.chi[mask].mean().abs() < 1e-6
    assert result.chi[~mask].abs().max() == 0
    assert result.mean == pytest.approx(0, abs=1e-12)
    assert result.sd == pytest.approx(chi[mask].std(correction=0).item(), rel=1e-5)
    assert result.voxels == int(mask.sum())


@pytest.mark.parametrize("kind", ["csf", "region"])
def test_region_reference_is_its_mean_and_is_reported_relative_to_the_brain(maps, kind):
    chi, mask, region = maps
    result = reference(chi, mask, kind=kind, region=region)
    assert result.chi[region].mean().abs() < 1e-6
    assert result.subtracted == pytest.approx(chi[region].mean().item(), abs=1e-6)
    relative = chi[region].mean() - chi[mask].mean()
    assert result.mean == pytest.approx(relative.item(), abs=1e-6)


def test_a_constant_added_to_chi_changes_nothing_once_referenced(maps):
    chi, mask, region = maps
    a = reference(chi, mask, kind="csf", region=region)
    b = reference(chi + 0.7, mask, kind="csf", region=region)
    assert torch.allclose(a.chi, b.chi, atol=1e-6)
    assert (a.mean, a.sd) == pytest.approx((b.mean, b.sd), abs=1e-6)


def test_none_keeps_the_values_and_still_measures(maps):
    chi, mask, region = maps
    result = reference(chi, mask, kind="none", region=region)
    assert torch.equal(result.chi, torch.where(mask, chi, torch.zeros(())))
    assert result.subtracted == 0 and result.voxels == int(region.sum())


def test_erosion_takes_one_layer_of_faces():
    region = torch.zeros(7, 7, 7, dtype=torch.bool)
    region[1:6, 1:6, 1:6] = True
    assert int(erode(region, 1).sum()) == 27 and int(erode(region, 3).sum()) == 0
    whole = torch.ones(4, 4, 4, dtype=torch.bool)
    assert int(erode(whole, 1).sum()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "moon"}, "unknown"),
        ({"kind": "csf"}, "needs a region"),
        ({"kind": "csf", "region": torch.zeros(9, 10, 11)}, "no voxel"),
    ],
)
def test_what_cannot_be_done_is_refused(maps, arguments, message):
    chi, mask, _ = maps
    with pytest.raises(ValueError, match=message):
        reference(chi, mask, **arguments)


def test_an_empty_mask_is_refused(maps):
    with pytest.raises(ValueError, match="empty"):
        reference(maps[0], torch.zeros_like(maps[1]))
