"""QSMmask-net: MONAI's layout and names; a mask without holes and islands."""

import pytest
import torch

from qsm_nipype.models.mask import MaskNet, clean_mask, scale_magnitude, segment
from qsm_nipype.models.resize import resize


def test_has_the_published_number_of_parameters_and_monai_names():
    state = MaskNet().state_dict()
    assert sum(t.numel() for t in state.values()) == 5_700_465
    shapes = {
        "conv_0.conv_0.conv.weight": (16, 1, 3, 3, 3),
        "conv_0.conv_1.adn.N.bias": (16,),
        "down_4.convs.conv_1.conv.weight": (256, 256, 3, 3, 3),
        "upcat_4.upsample.deconv.weight": (256, 128, 2, 2, 2),
        "upcat_4.convs.conv_0.conv.weight": (128, 256, 3, 3, 3),
        "upcat_1.upsample.deconv.weight": (32, 32, 2, 2, 2),
        "upcat_1.convs.conv_0.conv.weight": (32, 48, 3, 3, 3),
        "final_conv.weight": (1, 32, 1, 1, 1),
    }
    assert {k: tuple(state[k].shape) for k in shapes} == shapes
    assert len(state) == 18 * 4 + 4 * 2 + 2


def test_output_has_the_shape_of_the_input():
    with torch.no_grad():
        assert MaskNet().eval()(torch.rand(1, 1, 32, 48, 32)).shape == (1, 1, 32, 48, 32)


def test_scaling_ignores_unit_and_offset():
    x = torch.rand(5, 6, 7)
    assert torch.allclose(scale_magnitude(x), scale_magnitude(300 * x + 40), atol=1e-5)
    assert scale_magnitude(torch.full((3, 3, 3), 7.0)).eq(0).all()


def test_tidy_fills_holes_and_drops_islands():
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    mask[4:14, 4:14, 4:14] = True
    whole = mask.clone()
    mask[8, 8, 8] = False
    mask[17:19, 17:19, 17:19] = True
    assert torch.equal(clean_mask(mask), whole)
    assert not clean_mask(torch.zeros(4, 4, 4, dtype=torch.bool)).any()


def _head(shape=(50, 44, 38)):
    """A bright block in a dark surrounding."""
    magnitude = torch.full(shape, 10.0)
    magnitude[10:40, 8:36, 5:30] = 900.0
    return magnitude


def _answer(x):
    """A network that answers with its input above one half."""
    return 20 * (x - 0.5)


def test_segment_finds_the_bright_block_exactly_on_the_own_grid():
    mask = segment(_head(), (1, 1, 1), _answer)
    assert mask.dtype == torch.bool and torch.equal(mask, _head() > 100)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (3.0, 2.0, 2.5)])
def test_segment_finds_it_through_the_voxels_of_the_network(voxel_size):
    """Half a network voxel at most is lost or gained at each face."""
    seen = []
    mask = segment(_head(), voxel_size, lambda x: seen.append(x.shape) or _answer(x), 2.0)
    box = mask.nonzero()
    for axis, (low, high) in enumerate([(10, 39), (8, 35), (5, 29)]):
        slack = max(1.0, 1.0 / voxel_size[axis])
        assert abs(int(box[:, axis].min()) - low) <= slack
        assert abs(int(box[:, axis].max()) - high) <= slack
    assert all(edge % 16 == 0 for edge in seen[0][2:])


def test_a_single_hot_voxel_changes_nothing():
    magnitude = _head((60, 60, 60))
    clean = segment(magnitude, (1, 1, 1), _answer, 1.0)
    magnitude[20, 20, 20] = 1e6
    assert torch.equal(clean, segment(magnitude, (1, 1, 1), _answer, 1.0))


def test_resizing_keeps_constants_means_and_lines():
    assert resize(torch.full((7, 5, 9), 3.0), (3, 8, 4)).sub(3).abs().max() < 1e-6
    volume = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert resize(volume, (4, 12, 6)).mean() == pytest.approx(float(volume.mean()), abs=0.02)
    line = torch.arange(10.0).view(10, 1, 1).expand(10, 4, 4)
    fine = resize(line, (20, 4, 4))[:, 0, 0]
    assert torch.allclose(fine[1:-1], torch.arange(1, 19) / 2 - 0.25, atol=1e-5)
    assert torch.equal(resize(volume, (12, 12, 12)), volume)


def test_an_image_smaller_than_the_stride_has_a_mask():
    # instance normalisation needs more than one voxel at the network's bottom
    magnitude = torch.full((12, 9, 7), 10.0)
    magnitude[3:9, 2:7, 2:6] = 900.0
    network = MaskNet().eval()
    assert segment(magnitude, (1.0, 1.0, 1.0), network, 2.0).shape == magnitude.shape


def test_a_head_upside_down_is_turned_about_when_its_mask_is_too_large():
    # this network takes all that is bright for brain, and twice as much of a head upside down
    head = torch.zeros(40, 40, 40)
    head[5:35, 5:35, 20:35] = 1.0  # 1.8 litres of 5 mm voxels, in the upper half

    def answer(x):
        if x[0, 0, ..., 20:].sum() > x[0, 0, ..., :20].sum():
            return 20 * (x - 0.5)
        return 20 * (torch.ones_like(x) - 0.5)

    size = (5.0, 5.0, 5.0)
    assert torch.equal(segment(head, size, answer, 5.0), head > 0.5)
    assert torch.equal(segment(head.flip(2), size, answer, 5.0), head.flip(2) > 0.5)
