"""Quality measures of a ball with nuclei whose field is known, and of that ball with one fault."""

from __future__ import annotations

import math

import pytest
import torch

from qsm_nipype.core.dipole import dipole_field, dipole_kernel
from qsm_nipype.core.quality import look, measured, turn_of
from qsm_nipype.ranges import judged, limits, worst

EDGES, B0 = (3.0, 3.0, 3.0), (0.0, 0.6, 0.8)
TURN = turn_of((0.004, 0.012, 0.020), 3.0)


def ball(centre, radius, shape=(52, 52, 52)):
    """Voxels within `radius` mm of `centre` (mm from the middle)."""
    axes = torch.meshgrid(*((torch.arange(n) - (n - 1) / 2) * 3.0 for n in shape), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius**2


@pytest.fixture(scope="module")
def clean():
    """Maps and masks of tissue that varies by 12 ppb, two nuclei with iron, 2 ppb of noise."""
    rng = torch.Generator().manual_seed(3)
    brain, known = ball((0, 0, 0), 69), ball((0, 0, 0), 63)
    fine = torch.randn(brain.shape, generator=rng)
    chi = 0.016 * torch.nn.functional.avg_pool3d(fine[None, None], 3, 1, 1)[0, 0] * 27**0.5 * 0.7
    iron = ball((15, 5, 3), 11) | ball((-15, 5, 3), 11)
    chi = (chi + 0.11 * iron) * brain
    noise = torch.full(brain.shape, 2e-3)
    local = dipole_field(chi, EDGES, B0) + 2e-3 * torch.randn(brain.shape, generator=rng)
    slow = (torch.arange(52) - 26.0).view(-1, 1, 1) * 0.01
    maps = {"chi": chi * known, "local_field": local * known, "total_field": local + slow}
    maps |= {"noise": noise, "r2star": 18.0 + 20.0 * iron}
    maps["residual"] = 0.03 + 0.002 * slow + 0.01 * torch.rand(brain.shape, generator=rng)
    return maps, {"mask": brain, "mask_chi": known}


def values(maps, masks, edges=EDGES, b0_dir=B0):
    seen = look(maps, masks, edges, b0_dir, turn=TURN)
    return measured(seen)


def judgements(found):
    return {name: judged(name, value)["judgement"] for name, value in found.items()}


def test_a_map_without_faults_is_ok_in_every_measure(clean):
    found = values(*clean)
    assert found.keys() >= {"rim_field", "chi_iron", "field_cone", "misfit", "field_jumps"}
    assert set(judgements(found).values()) == {"ok"}, found
    assert found["noise_cube"] == pytest.approx(2)
    assert worst(found)[0] < 0


def test_storage_order_changes_no_measure(clean):
    maps, masks = clean
    order, flips = (2, 0, 1), (0, 2)

    def turn(x):
        return x.permute(order).flip(flips)

    b0_dir = [B0[axis] for axis in order]
    for axis in flips:
        b0_dir[axis] *= -1
    stored = values(
        {n: turn(x) for n, x in maps.items()},
        {n: turn(x) for n, x in masks.items()},
        EDGES,
        b0_dir,
    )
    assert stored == pytest.approx(values(*clean), rel=2e-3, abs=1e-3)


def test_smaller_voxels_of_the_same_head_change_no_measure(clean):
    def finer(x):
        for axis in range(3):
            x = x.repeat_interleave(2, dim=axis)
        return x

    maps, masks = ({n: finer(x) for n, x in group.items()} for group in clean)
    maps["noise"] = maps["noise"] * 8**0.5
    half = values(maps, masks, (1.5, 1.5, 1.5))
    assert half == pytest.approx(values(*clean), rel=2e-3, abs=1e-3)


def scaled(maps, masks, factor=5.0):
    return {n: x * factor if n != "r2star" else x for n, x in maps.items()}, masks


def smaller(maps, masks):
    return scaled(maps, masks, 0.15)


def other_sign(maps, masks):
    return {**maps, "chi": -maps["chi"]}, masks


def outside(maps, masks):
    bone = masks["mask_chi"] & ~ball((0, 0, 12), 63)
    return {**maps, "chi": torch.where(bone, -0.6, maps["chi"]),
            "local_field": torch.where(bone, 0.3, maps["local_field"]),
            "r2star": torch.where(bone, 200.0, maps["r2star"])}, masks  # fmt: skip


def shaded(maps, masks):
    wave = torch.sin(torch.arange(52) * (2 * math.pi / 22)).view(1, -1, 1)
    return {**maps, "chi": (maps["chi"] + 0.08 * wave) * masks["mask_chi"]}, masks


def wrapped(maps, masks):
    inside = ball((10, -20, 5), 20)
    return {**maps, "total_field": maps["total_field"] + TURN * inside}, masks


def streaky(maps, masks):
    rng = torch.Generator().manual_seed(5)
    D = dipole_kernel(maps["chi"].shape, EDGES, B0, maps["chi"]).abs()
    white = torch.fft.rfftn(torch.randn(maps["chi"].shape, generator=rng))
    cone = torch.fft.irfftn(white * (D < 0.04), s=maps["chi"].shape)
    return {**maps, "chi": (maps["chi"] + 0.1 * cone) * masks["mask_chi"]}, masks


def off_zero(maps, masks):
    return {**maps, "chi": (maps["chi"] + 0.1) * masks["mask_chi"]}, masks


def moved(maps, masks):
    """Lines a few voxels apart along one axis, in the field and between the echoes."""
    line = torch.sin(torch.arange(52) * 2.1).view(1, -1, 1) * ball((0, 0, 0), 69)
    ghost = line * torch.sin(torch.arange(52) * 0.5).view(-1, 1, 1)
    field = maps["local_field"] + 0.01 * ghost * masks["mask_chi"]
    return {**maps, "residual": maps["residual"] + 0.2 * ghost.abs(), "local_field": field}, masks


def noisy(maps, masks):
    return {**maps, "noise": maps["noise"] * 15}, masks


@pytest.mark.parametrize(
    ("fault", "names"),
    [(scaled, {"field_spread"}), (smaller, {"chi_spread", "field_spread"}),
     (other_sign, {"chi_iron", "misfit", "chi_lean"}), (shaded, {"shading"}),
     (outside, {"rim_strong", "rim_dark", "rim_field", "rim_decay"}), (wrapped, {"field_jumps"}),
     (streaky, {"streaks"}), (off_zero, {"chi_level"}), (noisy, {"noise_cube"}),
     (moved, {"residual_fine"})],
)  # fmt: skip
def test_a_fault_moves_its_measure_beyond_its_limit(clean, fault, names):
    found = values(*fault(*clean))
    bad = {name for name, judgement in judgements(found).items() if judgement == "bad"}
    assert names <= bad, found
    assert worst(found)[0] >= 1


def test_b0_along_another_axis_is_seen_in_the_field_itself(clean):
    found = values(*clean, b0_dir=(1.0, 0.0, 0.0))
    assert {judged(n, found[n])["judgement"] for n in ("field_cone", "misfit")} == {"bad"}


def test_echoes_and_field_together_tell_what_neither_tells_alone(clean):
    maps, masks = clean
    rng = torch.Generator().manual_seed(7)
    white = torch.randn(maps["chi"].shape, generator=rng)
    raised = maps["residual"] + 0.05
    field = maps["local_field"] + 6e-3 * white * masks["mask_chi"]
    found = [
        judgements(values({**maps, "residual": a, "local_field": b}, masks))
        for a, b in (
            (raised, maps["local_field"]), (maps["residual"], field), (raised, field),
        )
    ]  # fmt: skip
    assert all(own["residual_p90"] == own["field_cone"] == "ok" for own in found)
    assert [own["echoes_and_cone"] for own in found] == ["ok", "ok", "unusual"]


def test_a_smooth_residual_is_no_motion(clean):
    maps, masks = clean
    slope = torch.linspace(0, 0.15, 52).view(-1, 1, 1)
    found = values({**maps, "residual": maps["residual"] + slope}, masks)
    assert found["residual_p90"] > 0.1
    assert judged("residual_fine", found["residual_fine"])["judgement"] == "ok"


def test_a_haemorrhage_is_no_fault(clean):
    maps, masks = clean
    blood = ball((25, -10, 30), 9)
    chi = maps["chi"] + 0.8 * blood
    local = dipole_field(chi, EDGES, B0) * masks["mask_chi"]
    found = values({**maps, "chi": chi, "local_field": local}, masks)
    assert "bad" not in judgements(found).values(), found


def test_what_is_not_a_number_counts_as_unknown(clean):
    maps, masks = clean
    holes = masks["mask_chi"] & ball((0, 30, 0), 6)
    spoiled = {**maps, "chi": torch.where(holes, torch.nan, maps["chi"])}
    left = {**masks, "mask_chi": masks["mask_chi"] & ~holes}
    found, same = values(spoiled, masks), values(maps, left)
    assert found == pytest.approx(same, rel=1e-3)


def test_too_little_brain_tells_nothing(clean):
    maps, masks = clean
    assert look(maps, {"mask": masks["mask"] & False}, EDGES, B0) is None
    assert look(maps, {"mask": ball((0, 0, 0), 12)}, EDGES, B0) is None


def test_a_map_alone_has_the_measures_that_it_allows(clean):
    maps, masks = clean
    found = measured(look({"chi": maps["chi"]}, masks, EDGES, B0))
    assert found.keys() >= {"shading", "chi_nuclei"}
    assert not found.keys() & {"field_cone", "misfit", "noise_cube", "chi_iron", "field_jumps"}


def test_a_turn_is_the_field_between_the_nearest_echoes():
    assert turn_of((0.010,), 3.0) == pytest.approx(1 / (42.577478 * 3 * 0.010))
    assert turn_of((0.004, 0.012, 0.016), 7.0) == pytest.approx(1 / (42.577478 * 7 * 0.004))


def test_every_measure_has_its_row(clean):
    assert set(values(*clean)) <= set(limits())


def test_tissue_decays_quicker_in_a_stronger_field(clean):
    maps, masks = clean
    quick = {**maps, "r2star": torch.full_like(maps["r2star"], 90.0)}
    shares = [
        measured(look(quick, masks, EDGES, B0, b0=b0))["rim_decay"] for b0 in (1.5, 3.0, 7.0)
    ]
    assert shares == [100.0, 100.0, 0.0]
