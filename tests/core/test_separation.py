"""Sources apart: signs, sums, what each datum decides, and how the axes are stored."""

import itertools

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.separation import relaxivity_at
from qsm_nipype.core.separation.joint import Decay, joint
from qsm_nipype.core.separation.published import chi_separation, pointwise, r2star_qsm
from qsm_nipype.core.separation.rates import assumed_reversible, rate_noise, reversible

SHAPE, VOXEL = (30, 34, 28), (1.0, 1.0, 1.2)
ALONG = (0.0, 0.2, 0.98)


def head(seed: int = 2, noise: float = 1e-3, rate_noise: float = 1.0) -> dict[str, torch.Tensor]:
    """Iron and myelin that overlap, the local field of both, and R2′ at 137 1/s per ppm."""
    grid = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    mask = sum((g / (0.44 * n)) ** 2 for g, n in zip(grid, SHAPE, strict=True)) < 1

    def ball(x, y, z, r):
        return (grid[0] - x) ** 2 + (grid[1] - y) ** 2 + (grid[2] - z) ** 2 < r**2

    iron = 0.12 * ball(-4, 3, 0, 4) + 0.08 * ball(6, -4, 2, 3) + 0.01
    myelin = 0.06 * ball(4, 4, 0, 6) + 0.05 * ball(6, -4, 2, 3) + 0.01
    iron, myelin = iron * mask, myelin * mask
    draw = torch.Generator().manual_seed(seed)
    chi = iron - myelin
    chi = (chi - chi[mask].mean()) * mask
    field = dipole_field(chi, VOXEL, ALONG) + noise * torch.randn(SHAPE, generator=draw)
    rate = 137 * (iron + myelin) + rate_noise * torch.randn(SHAPE, generator=draw)
    return {"mask": mask, "iron": iron, "myelin": myelin, "field": field * mask,
            "r2prime": rate.clamp_min(0) * mask, "chi": chi}  # fmt: skip


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    return head()


@pytest.fixture(scope="module")
def found(data):
    return joint(data["field"], data["mask"], VOXEL, ALONG, r2prime=data["r2prime"])


def test_both_sources_are_found_where_they_overlap(data, found):
    assert error(found.paramagnetic, data["iron"]) < 0.2
    assert error(-found.diamagnetic, data["myelin"]) < 0.25
    assert error(found.chi, data["iron"] - data["myelin"]) < 0.25
    # the trivial answer, χ by its sign, does not see what overlaps
    assert error(data["chi"].clamp_min(0), data["iron"]) > 0.35


def test_signs_and_support(data, found):
    assert (found.paramagnetic >= 0).all() and (found.diamagnetic <= 0).all()
    outside = ~data["mask"]
    assert not found.paramagnetic[outside].any() and not found.diamagnetic[outside].any()


@pytest.mark.parametrize("method", [joint, chi_separation])
def test_without_decay_there_are_no_sources_and_the_field_alone_decides_nothing(data, method):
    none = torch.zeros(SHAPE)
    made = method(data["field"], data["mask"], VOXEL, ALONG, r2prime=none)
    # R2′ = 0 asks for nothing of both, the field for their difference: never both at one place
    both = torch.minimum(made.paramagnetic, -made.diamagnetic)
    assert float(both.max()) < 0.01


def test_an_opposite_field_exchanges_the_sources(data, found):
    other = joint(-data["field"], data["mask"], VOXEL, ALONG, r2prime=data["r2prime"])
    assert torch.allclose(other.paramagnetic, -found.diamagnetic, atol=2e-3)
    assert torch.allclose(other.diamagnetic, -found.paramagnetic, atol=2e-3)


def test_twice_the_field_strength_doubles_the_decay_of_the_same_sources(data, found):
    made = joint(data["field"], data["mask"], VOXEL, ALONG, r2prime=2 * data["r2prime"], b0=6.0)
    assert torch.allclose(made.paramagnetic, found.paramagnetic, atol=2e-3)
    assert relaxivity_at(7.0, 137.0) == pytest.approx(137 * 7 / 3)


@pytest.mark.parametrize(("order", "flips"), [((2, 0, 1), (0,)), ((1, 0, 2), (1, 2))])
def test_how_the_axes_are_stored_changes_nothing(data, found, order, flips):
    def turn(x):
        return x.permute(*order).flip(flips).contiguous()

    voxel, along = ([v[a] for a in order] for v in (VOXEL, ALONG))
    along = [-c if a in flips else c for a, c in enumerate(along)]
    made = joint(turn(data["field"]), turn(data["mask"]), voxel, along,
                 r2prime=turn(data["r2prime"]))  # fmt: skip
    assert torch.allclose(made.paramagnetic, turn(found.paramagnetic), atol=3e-3)


def test_edges_of_the_magnitude_and_r2star_serve_the_published_forms(data):
    magnitude = 1 + data["iron"] - data["myelin"]
    common = data["field"], data["mask"], VOXEL, ALONG
    edges = chi_separation(*common, r2prime=data["r2prime"], magnitude=magnitude)
    star = r2star_qsm(*common, r2star=data["r2prime"] / 0.45, magnitude=magnitude)
    assert torch.allclose(edges.paramagnetic, star.paramagnetic, atol=1e-6)
    assert error(edges.paramagnetic, data["iron"]) < 0.25


def test_pointwise_solves_both_equations_where_signs_allow(data):
    chi, rate = data["iron"] - data["myelin"], 100 * data["iron"] + 200 * data["myelin"]
    known = {"paramagnetic": 100.0, "diamagnetic": 200.0}
    made = pointwise(data["field"], data["mask"], VOXEL, ALONG, r2prime=rate, chi=chi, **known)
    assert torch.allclose(made.paramagnetic, data["iron"], atol=1e-6)
    assert torch.allclose(-made.diamagnetic, data["myelin"], atol=1e-6)
    less = pointwise(data["field"], data["mask"], VOXEL, ALONG, r2prime=0 * rate, chi=chi)
    assert torch.allclose(less.chi, chi, atol=1e-7)
    assert torch.equal(less.paramagnetic, chi.clamp_min(0))


def test_the_proximal_map_is_the_least_of_a_grid():
    draw = torch.Generator().manual_seed(5)
    p, n, rate = (torch.randn(200, generator=draw) * 0.1 for _ in range(3))
    decay = Decay(rate.abs(), torch.rand(200, generator=draw), 1.3, 0.7)
    found = decay.nearest(p, n, 0.4)

    def cost(a, b):
        misfit = decay.weight * (1.3 * a + 0.7 * b - decay.rate) ** 2
        return misfit + 0.4 * ((a - p) ** 2 + (b - n) ** 2)

    best = cost(*found)
    assert min(float(x.min()) for x in found) >= 0
    for a, b in itertools.product(torch.linspace(0, 0.5, 40), repeat=2):
        assert (best <= cost(a, b) + 1e-7).all()


def test_r2prime_is_never_negative_and_says_how_much_was_cut():
    draw = torch.Generator().manual_seed(1)
    mask = torch.ones(20, 20, 20, dtype=torch.bool)
    r2star = 20 + 2 * torch.randn(20, 20, 20, generator=draw)
    made = reversible(r2star, mask, r2=torch.full(mask.shape, 20.0))
    assert (made.rate >= 0).all() and made.negative == pytest.approx(0.5, abs=0.03)
    assert made.noise == pytest.approx(2.0, rel=0.1)
    assert rate_noise(torch.zeros(20, 20, 20), mask) == 0.5
    guess = assumed_reversible(r2star, mask, share=0.3)
    assert torch.allclose(guess.rate, 0.3 * r2star, rtol=1e-4)


def test_a_relaxivity_of_nothing_is_refused(data):
    with pytest.raises(ValueError, match="above 0"):
        joint(data["field"], data["mask"], VOXEL, r2prime=data["r2prime"], diamagnetic=0.0)


def test_no_field_and_no_head_are_no_sources(data):
    nothing = torch.zeros(SHAPE)
    made = joint(nothing, data["mask"], VOXEL, r2prime=data["r2prime"])
    assert not made.chi.any()
