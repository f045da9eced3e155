"""QSMmask-net: MONAI's layout and names; a mask without holes and islands."""

import torch

from qsm_nipype.models.mask import MaskNet, scale_magnitude, segment, tidy


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
    assert torch.equal(tidy(mask), whole)
    assert not tidy(torch.zeros(4, 4, 4, dtype=torch.bool)).any()


def test_segment_thresholds_what_the_network_sees():
    """A network that answers with its input above one half finds the bright block exactly."""
    magnitude = torch.full((50, 44, 38), 10.0)
    magnitude[10:40, 8:36, 5:30] = 900.0
    mask = segment(magnitude, lambda x: 20 * (x - 0.5))
    assert mask.dtype == torch.bool and torch.equal(mask, magnitude > 100)
