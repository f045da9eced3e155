"""QSMGAN: the published layout, exact fusion, and what the inversion promises."""

import dataclasses

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models.consistency import consistent, settled
from qsm_nipype.models.qsmgan import (
    Critic,
    Generator,
    Trained,
    first_guesses,
    load_network,
    qsmgan,
)
from qsm_nipype.models.weights import Weights


def _generator(channels=4, levels=2):
    torch.manual_seed(0)
    network = Generator(channels, levels)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    return network.eval()


def test_has_the_published_number_of_parameters_and_names():
    network = Generator()
    assert sum(p.numel() for p in network.parameters()) == 2_686_803
    names = {n.split(".")[0] for n in network.state_dict()}
    assert names == {
        "down_sample_layers",
        "conv",
        "up_sample_layers",
        "conv_transpose_layers",
        "conv2",
    }
    state = network.state_dict()
    assert state["up_sample_layers.0.layers.0.weight"].shape == (64, 256, 3, 3, 3)
    assert state["conv_transpose_layers.3.weight"].shape == (16, 16, 2, 2, 2)
    assert state["down_sample_layers.3.layers.4.running_var"].shape == (128,)
    assert state["conv2.1.weight"].shape == (1, 1, 1, 1, 1)


def test_crops_context_and_stays_within_one():
    out = _generator()(torch.randn(2, 1, 32, 48, 64))
    assert out.shape == (2, 1, 16, 32, 48)
    assert _generator()(100 * torch.randn(1, 1, 32, 32, 32)).abs().max() <= 1


def test_fusion_changes_nothing_but_speed():
    network, x = _generator(), torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network(x)
        after = network.fused()(x)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in network.modules())
    assert torch.allclose(before, after, atol=1e-5)


def test_critic_scores_each_patch_by_itself():
    torch.manual_seed(0)
    critic, x = Critic(), torch.randn(3, 1, 32, 32, 32)
    scores = critic(x)
    assert scores.shape == (3,)
    assert torch.allclose(scores[1], critic(x[1:2])[0], atol=1e-6)


def test_weights_tell_their_network_scales_and_sign():
    network = _generator(4, 3)
    weights = Weights(network.state_dict(), {"field_sign": "-1", "output_scale": "20"}, "w.pt")
    found = load_network(weights)
    assert (found.input_scale, found.output_scale) == (-100.0, 20.0)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.allclose(found.network(x), network(x), atol=1e-5)


def test_weights_of_another_network_are_refused():
    with pytest.raises(WeightsError, match=r"^w.pt: .*QSMGAN"):
        load_network(Weights({"conv_0.weight": torch.zeros(3)}, {}, "w.pt"))
    state = _generator().state_dict()
    state.pop("conv.layers.0.weight")
    with pytest.raises(WeightsError, match=r"w.pt.*another network"):
        load_network(Weights(state, {}, "w.pt"))


class _Linear(torch.nn.Module):
    """In place of a trained generator: x / 100, so that χ_net is a tenth of the field."""

    inputs = 1

    def argument(self, x):
        return x[..., 8:-8, 8:-8, 8:-8] / 100


def _phantom(n=40):
    g = torch.Generator().manual_seed(4)
    chi = torch.nn.functional.avg_pool3d(
        torch.randn(1, 1, n, n, n, generator=g), 5, stride=1, padding=2
    )[0, 0]
    axis = torch.linspace(-1, 1, n)
    r = torch.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2)
    mask = r < 0.8
    return 0.5 * chi * mask, mask


@pytest.mark.parametrize("patch", [16, 20, 0])
def test_a_patch_that_cannot_be_halved_is_refused(patch):
    chi = torch.zeros(8, 8, 8)
    with pytest.raises(UsageError, match="multiple of 16"):
        qsmgan(chi, chi == 0, (1, 1, 1), generator=Trained(_Linear()), patch=patch)


def test_without_consistency_the_network_has_the_word():
    chi, mask = _phantom()
    net = Trained(_Linear())
    found = qsmgan(chi, mask, (1, 1, 1), generator=net, consistency=float("inf"))
    assert torch.allclose(found.chi, torch.where(mask, chi / 10, 0), atol=1e-5)
    turned = Trained(_Linear(), input_scale=-100)
    opposite = qsmgan(chi, mask, (1, 1, 1), generator=turned, consistency=float("inf"))
    assert torch.allclose(opposite.chi, -found.chi, atol=1e-6)


def test_strong_sources_do_not_saturate():
    chi, mask = _phantom()
    chi[20, 20, 20] = 15.0
    found = qsmgan(chi, mask, (1, 1, 1), generator=Trained(_Linear()), consistency=float("inf"))
    assert found.chi[20, 20, 20] == pytest.approx(1.5, rel=1e-4)


def test_with_first_guesses_the_network_corrects_the_second():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1)) * mask
    field += 0.002 * mask * torch.randn(field.shape, generator=torch.Generator().manual_seed(1))
    network = Generator(2, 1, inputs=3).eval()
    torch.nn.init.zeros_(network.conv2[1].weight)
    torch.nn.init.zeros_(network.conv2[1].bias)
    net = load_network(Weights(network.state_dict(), {}, "w.pt"))
    assert net.network.inputs == 3
    noise = torch.full_like(field, 0.002)
    case = (field, mask, (1, 1, 1))
    found = qsmgan(*case, generator=net, consistency=float("inf"), noise=noise)
    least, smooth = first_guesses(*case, (0, 0, 1), noise=0.002, noise_map=noise)
    assert torch.allclose(found.chi, smooth, atol=1e-5)
    for guess in (least, smooth):
        assert (guess - chi)[mask].norm() < 0.6 * chi[mask].norm()


def test_consistency_approaches_the_truth_from_a_poor_prior():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1)) * mask
    prior = 0.5 * chi
    found, _ = consistent(prior, field, mask, (1, 1, 1), (0, 0, 1), weight=0.01)
    assert (found - chi).norm() < 0.5 * (prior - chi).norm()
    assert found[~mask].eq(0).all()


def test_a_heavy_weight_keeps_the_prior_and_truth_needs_no_correction():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1)) * mask
    kept, _ = consistent(0.5 * chi, field, mask, (1, 1, 1), (0, 0, 1), weight=1e4)
    assert torch.allclose(kept, 0.5 * chi, atol=1e-4)
    same, _ = consistent(chi, field, mask, (1, 1, 1), (0, 0, 1), weight=0.01)
    assert (same - chi).norm() < 0.05 * chi.norm()


def test_noise_decides_the_weight_and_empty_space_stays_zero():
    chi, mask = _phantom()
    net = Trained(_Linear())
    low = qsmgan(chi, mask, (1, 1, 1), generator=net, noise=torch.full_like(chi, 0.001))
    high = qsmgan(chi, mask, (1, 1, 1), generator=net, noise=torch.full_like(chi, 0.004))
    ratio = high.parameters["consistency"] / low.parameters["consistency"]
    assert ratio == pytest.approx(16, rel=1e-3)
    assert low.chi[~mask].eq(0).all() and torch.isfinite(low.chi).all()


def test_a_voxel_known_to_be_wrong_does_not_spread():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1)) * mask
    field[20, 20, 20] += 1.0
    confidence = torch.ones_like(field)
    confidence[20, 20, 20] = 0.01
    args = (0.5 * chi, field, mask, (1, 1, 1), (0, 0, 1))
    trusting, _ = consistent(*args, weight=0.01)
    careful, _ = consistent(*args, weight=0.01, confidence=confidence)
    assert (careful - chi).norm() < 0.5 * (trusting - chi).norm()


def test_tilted_anisotropic_volumes_run_and_come_back_on_their_grid():
    chi, mask = _phantom(32)
    found = qsmgan(chi, mask, (1, 1, 1.5), (0.0, 0.3, 0.95), generator=Trained(_Linear()))
    assert found.chi.shape == chi.shape and torch.isfinite(found.chi).all()


def _problem(field, mask, region, share):
    noise = torch.full_like(field, 0.0005)
    case = (field, mask, (1, 1, 1), (0, 0, 1))
    return field_problem(*case, noise=noise, region=region, model_share=share)


def test_without_an_error_of_the_model_both_settle_on_one_map():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1)) * mask
    plain, _ = consistent(0.5 * chi, field, mask, (1, 1, 1), (0, 0, 1), weight=0.01)
    problem = dataclasses.replace(_problem(field, mask, None, 0.3), misfit=None)
    found, _ = settled(0.5 * chi, problem, weight=0.01)
    assert (found - plain).norm() < 0.02 * chi.norm() and found[~mask].eq(0).all()


def test_what_no_susceptibility_explains_does_not_pull_the_map_from_a_good_prior():
    chi, mask = _phantom()
    field = dipole_field(chi, (1, 1, 1), (0, 0, 1))
    field = (field - 0.1 * chi) * mask  # a frequency that no dipole makes
    field += 0.0005 * mask * torch.randn(field.shape, generator=torch.Generator().manual_seed(1))
    problem = _problem(field, mask, None, 0.3)
    assert problem.misfit is not None
    plain, _ = settled(chi, dataclasses.replace(problem, misfit=None), weight=0.02)
    found, _ = settled(chi, problem, weight=0.02)
    assert (found - chi).norm() < 0.6 * (plain - chi).norm()


def test_sources_between_mask_and_region_are_found_there():
    chi, mask = _phantom()
    region = torch.zeros_like(mask)
    region[2:-2, 2:-2, 2:-2] = True
    beside = chi.clone()
    beside[~mask & region] += (
        0.05 * (torch.arange(chi.shape[0])[:, None, None] < 6).expand(chi.shape)[~mask & region]
    )
    field = dipole_field(beside, (1, 1, 1), (0, 0, 1)) * mask
    alone, both = (
        settled(0.9 * chi, dataclasses.replace(_problem(field, mask, where, 0.3), misfit=None),
                weight=0.02)[0]
        for where in (None, region | mask)
    )  # fmt: skip
    assert (both - chi)[mask].norm() < 0.9 * (alone - chi)[mask].norm()
