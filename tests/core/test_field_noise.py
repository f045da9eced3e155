import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.field_noise import field_noise, noise_weights

VOXEL, B0 = (1.0, 1.0, 1.5), (0.1, 0.2, 0.97)


@pytest.fixture(scope="module")
def head():
    """A ball of blobs and fine texture: (true field, mask)."""
    generator = torch.Generator().manual_seed(3)
    shape = (56, 60, 48)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    r = sum(a.square() for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
    mask = r < 0.9
    coarse = torch.randn(1, 1, 12, 12, 12, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0]
    chi = torch.where(mask, 0.05 * blobs + 0.004 * torch.randn(shape, generator=generator), 0.0)
    return dipole_field(chi, VOXEL, B0), mask


def noisy(head, sigma):
    field, mask = head
    generator = torch.Generator().manual_seed(4)
    return torch.where(mask, field + sigma * torch.randn(field.shape, generator=generator), 0.0)


@pytest.mark.parametrize("sigma", [0.001, 0.002, 0.005])
def test_noise_is_found_in_a_field_full_of_signal(head, sigma):
    assert field_noise(noisy(head, sigma), head[1], VOXEL, B0) == pytest.approx(sigma, rel=0.12)


def test_estimate_rises_with_the_noise_and_scales_with_the_field(head):
    mask = head[1]
    levels = [field_noise(noisy(head, s), mask, VOXEL, B0) for s in (0, 5e-4, 1e-3, 4e-3)]
    assert levels == sorted(levels) and levels[0] < 4e-4
    assert field_noise(8 * noisy(head, 1e-3), mask, VOXEL, B0) == pytest.approx(8 * levels[2])


def test_a_noise_map_is_believed(head):
    field, mask = head
    noise = torch.full_like(field, 0.003)
    noise[0] = float("nan")
    assert field_noise(field, mask, VOXEL, B0, noise=noise) == pytest.approx(0.003)


def test_no_voxels_and_no_field_have_no_noise(head):
    field, mask = head
    assert field_noise(field, torch.zeros_like(mask), VOXEL, B0) == 0
    assert field_noise(torch.zeros_like(field), mask, VOXEL, B0) == 0


def test_weights_are_the_mask_without_a_map(head):
    assert torch.equal(noise_weights(None, head[1]), head[1].float())


def test_weights_fall_with_noise_and_vanish_where_it_is_unknown():
    mask = torch.tensor([True, True, True, True, True, False])
    noise = torch.tensor([1.0, 2.0, 4.0, float("nan"), 0.0, 1.0])
    expected = torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    assert torch.equal(noise_weights(noise, mask), expected)
