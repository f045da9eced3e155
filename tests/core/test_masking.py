"""Masks and morphology: balls in mm, brain against scalp, the mask language's refusals."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from qsm_nipype import chain
from qsm_nipype.core import masking, morphology
from qsm_nipype.core.brain_surface import brain_surface, icosphere
from qsm_nipype.core.mask_language import MaskPart, Operation, parse_masks, parse_operations
from qsm_nipype.core.masking import apply_operations
from qsm_nipype.core.morphology import (
    closing,
    dilate,
    distance_inside,
    erode,
    fill_holes,
    largest_component,
    opening,
)
from qsm_nipype.errors import UsageError
from qsm_nipype.simulation import heads, pathology
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

ANISOTROPIC = (1.0, 0.7, 2.5)


def blob(shape=(40, 44, 30), seed=0):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return torch.as_tensor(ndimage.gaussian_filter(noise, 3) > 0)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), ANISOTROPIC])
def test_distance_is_the_exact_euclidean_one_up_to_the_limit(voxel_size):
    mask = blob()
    padded = np.pad(mask.numpy(), 1)
    truth = ndimage.distance_transform_edt(padded, sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    ours = distance_inside(mask, voxel_size, 5.0)
    assert np.abs(ours.numpy() - np.minimum(truth, 5.0)).max() < 1e-3


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.0])
def test_erosion_and_dilation_are_those_with_a_ball_in_mm(radius):
    mask = blob()
    reach = [int(radius / v) for v in ANISOTROPIC]
    axes = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    ball = sum((a * v) ** 2 for a, v in zip(axes, ANISOTROPIC, strict=True)) <= radius**2 + 1e-6
    assert np.array_equal(
        erode(mask, ANISOTROPIC, radius), ndimage.binary_erosion(mask.numpy(), ball)
    )
    assert np.array_equal(
        dilate(mask, ANISOTROPIC, radius), ndimage.binary_dilation(mask.numpy(), ball)
    )


def test_opening_shrinks_closing_grows_and_both_are_idempotent():
    mask = blob()
    opened, closed = opening(mask, ANISOTROPIC, 2.0), closing(mask, ANISOTROPIC, 2.0)
    assert not (opened & ~mask).any() and not (mask & ~closed).any()
    assert torch.equal(opening(opened, ANISOTROPIC, 2.0), opened)
    assert torch.equal(closing(closed, ANISOTROPIC, 2.0), closed)


def test_closing_at_the_border_of_the_volume_removes_and_adds_nothing():
    slab = torch.zeros(20, 20, 20, dtype=torch.bool)
    slab[:8] = True
    assert torch.equal(closing(slab, (1.0, 1.0, 1.0), 3.0), slab)


def test_cavities_are_filled_bays_are_not_and_islands_go():
    mask = torch.zeros(16, 16, 16, dtype=torch.bool)
    mask[2:12, 2:12, 2:12] = True
    solid = mask.clone()
    mask[5:7, 5:7, 5:7] = False  # a cavity of 8 voxels
    assert torch.equal(fill_holes(mask), solid)
    assert torch.equal(fill_holes(mask, largest_hole=7), mask)
    mask[5:7, 5:7, 2:7] = False  # now a bay
    assert torch.equal(fill_holes(mask), mask)
    island = mask.clone()
    island[14, 14, 14] = True
    assert torch.equal(largest_component(island), mask)
    empty = torch.zeros_like(mask)
    assert not largest_component(empty).any() and not fill_holes(empty).any()


def head(voxel_size=(3.0, 3.0, 3.0), echoes=1):
    """Magnitude and brain: half axes 60 × 75 × 55 mm, dark skull, bright scalp, air, noise."""
    size = [int(n / v) for n, v in zip((170, 210, 170), voxel_size, strict=True)]
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(size, voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")

    def level(margin):
        return (x / (60 + margin)) ** 2 + (y / (75 + margin)) ** 2 + (z / (55 + margin)) ** 2 < 1

    brain = level(0)
    image = 100.0 * brain + 110.0 * (level(14) & ~level(7)) + 8.0 * (level(7) & ~brain)
    rng = np.random.default_rng(2)
    image = np.abs(ndimage.gaussian_filter(image, 0.5) + 2 * rng.standard_normal(image.shape))
    magnitude = torch.as_tensor(image, dtype=torch.float32)
    if echoes > 1:
        magnitude = magnitude[..., None] * torch.tensor([1.0, 0.7, 0.5][:echoes])
    return magnitude, torch.as_tensor(brain)


def dice(a, b):
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("voxel_size", [(2.5, 2.5, 2.5), (2.0, 2.0, 4.0)])
def test_the_brain_mask_keeps_the_brain_and_rejects_the_scalp(voxel_size):
    magnitude, brain = head(voxel_size, echoes=2)
    mask = masking.brain_mask(magnitude, voxel_size)
    assert dice(mask, brain) > 0.95
    assert (mask & brain).sum() > 0.97 * brain.sum()
    assert torch.equal(fill_holes(mask), mask)


def test_the_scale_of_the_magnitude_plays_no_part():
    magnitude, _ = head((3.0, 3.0, 3.0))
    for method in (masking.brain_mask, masking.magnitude_mask):
        a = method(magnitude, (3.0, 3.0, 3.0))
        b = method(magnitude * 2**14, (3.0, 3.0, 3.0))
        assert torch.equal(a, b)


def test_the_magnitude_mask_holds_the_whole_head():
    magnitude, brain = head()
    mask = masking.magnitude_mask(magnitude, (3.0, 3.0, 3.0))
    assert (mask & brain).sum() == brain.sum()
    assert torch.equal(fill_holes(mask), mask)


def test_an_image_without_signal_gives_an_empty_mask():
    flat = torch.zeros(20, 20, 20)
    assert not masking.magnitude_mask(flat, (1.0, 1.0, 1.0)).any()
    assert not masking.brain_mask(flat, (1.0, 1.0, 1.0)).any()


def test_the_quality_mask_leaves_out_a_region_of_bad_phase():
    magnitude, brain = head((2.5, 2.5, 2.5))
    quality = torch.where(brain, 0.9, 0.1)
    bad = torch.zeros_like(brain)
    bad[30:40, 10:22, 30:40] = True
    quality[bad] = 0.05
    mask = masking.quality_mask(magnitude, (2.5, 2.5, 2.5), quality=quality)
    assert not (mask & erode(bad, (2.5, 2.5, 2.5), 2.5)).any()
    assert (mask & brain).sum() > 0.9 * (brain & ~bad).sum()


def test_the_surface_of_a_ball_is_the_ball():
    x, y, z = np.meshgrid(*(np.arange(-40, 41),) * 3, indexing="ij")
    ball = torch.as_tensor(x**2 + (y - 3) ** 2 + z**2 < 28**2)
    found = brain_surface(2.0 + 100.0 * ball + 0.5 * z % 3, (2.0, 2.0, 2.0), fraction=0.5)
    assert dice(found, ball) > 0.95


def test_an_icosphere_is_closed_and_of_the_unit_sphere():
    vertices, faces = icosphere(2)
    assert len(vertices) == 162 and len(faces) == 320
    assert torch.allclose(vertices.norm(dim=1), torch.ones(162))
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    seen = {tuple(e) for e in edges.tolist()}
    assert len(seen) == 960 and all((b, a) in seen for a, b in seen)


def test_trimming_cuts_bad_patches_but_leaves_no_pinholes():
    mask = torch.ones(24, 24, 24, dtype=torch.bool)
    residual = torch.full(mask.shape, 0.1)
    residual[5, 5, 5] = 1.0
    residual[12:20, 12:20, 12:20] = 1.0
    residual[:3] = 1.0
    kept = masking.trim_mask(mask, (1.0, 1.0, 1.0), residual=residual)
    assert kept[5, 5, 5]
    assert not kept[14:18, 14:18, 14:18].any() and not kept[:3].any()


def test_trimming_a_perfect_fit_changes_nothing_and_nan_is_not_trusted():
    mask = largest_component(blob())
    residual = torch.zeros(mask.shape)
    assert torch.equal(masking.trim_mask(mask, (1.0, 1.0, 1.0), residual=residual), mask)
    nothing = torch.full(mask.shape, float("nan"))
    assert not masking.trim_mask(mask, (1.0, 1.0, 1.0), residual=nothing).any()


def test_the_mask_language_does_what_it_says_in_order():
    mask = blob()
    text = " erode:1.5, largest,fill ,dilate:2"
    assert parse_operations(text) == (
        Operation("erode", 1.5),
        Operation("largest"),
        Operation("fill"),
        Operation("dilate", 2.0),
    )
    step = morphology.peel(mask, ANISOTROPIC, 1.5)
    wanted = morphology.grow(fill_holes(largest_component(step)), ANISOTROPIC, 2.0)
    assert torch.equal(apply_operations(mask, ANISOTROPIC, text), wanted)
    assert parse_operations("") == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("erode", "radius in mm"),
        ("erode:two", "radius in mm"),
        ("erode:-1", "radius in mm"),
        ("open:nan", "radius in mm"),
        ("close:1000", "radius in mm"),
        ("fill:2", "takes no radius"),
        ("shrink:1", "unknown"),
    ],
)
def test_a_bad_operation_is_refused_with_its_name_and_the_cure(text, hint):
    with pytest.raises(UsageError, match=hint) as caught:
        parse_operations(f"largest,{text}")
    assert text in str(caught.value)


def test_each_mask_of_an_intersection_may_have_operations_of_its_own():
    parts = parse_masks(" quality & net:dilate:3,fill ")
    assert parts == (MaskPart("quality"), MaskPart("net", "dilate:3,fill"))
    with pytest.raises(UsageError, match=r"'grow:3' is unknown"):
        parse_masks("quality&net:grow:3")


def _ball_with_field() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A ball of 20 mm with a smooth field, and its distance from the centre (1 mm voxels)."""
    axes = torch.meshgrid(*[torch.arange(52.0) - 25.5] * 3, indexing="ij")
    distance = torch.stack(axes).square().sum(0).sqrt()
    return distance <= 20, 0.02 * axes[0], distance


@pytest.mark.parametrize("size", [(2.1, 2.1, 2.1), (0.8, 0.8, 3.0), (1.0, 1.0, 1.0)])
def test_trimming_takes_one_layer_of_voxels_at_least_on_every_side(size):
    mask = torch.zeros(44, 44, 44, dtype=torch.bool)
    mask[4:40, 4:40, 4:40] = True
    all_good = {"reliability": mask.float(), "field": torch.zeros(mask.shape)}
    layers = [max(1, math.floor(2.0 / v)) for v in size]
    for erosion, taken in ((2.0, layers), (0.0, [0, 0, 0])):
        kept = masking.reliable_mask(mask, size, **all_good, erosion=erosion)
        found = [(int(w.min()), int(w.max())) for w in kept.nonzero().T]
        assert found == [(4 + n, 39 - n) for n in taken]
    for text, change in (("erode:2", -1), ("dilate:2", 1)):
        edited = apply_operations(mask, size, text)
        found = [int(w.max()) for w in edited.nonzero().T]
        assert found == [39 + change * n for n in layers]


def test_a_bleed_at_the_surface_stays_and_dropout_there_goes():
    # what 2 cm of blood at 3 T leave of the reliability, and what a sinus leaves
    mask, field, _ = _ball_with_field()
    x, y, z = torch.meshgrid(*[torch.arange(52.0) - 25.5] * 3, indexing="ij")
    blood = mask & ((x - 15).square() + y.square() + z.square() < 49)
    sinus = mask & ((y + 19).square() + x.square() + z.square() < 25)
    reliability = torch.where(blood, 0.3, torch.where(sinus, 0.05, 1.0))
    kept = masking.reliable_mask(mask, (1.0,) * 3, reliability=reliability, field=field)
    inner = morphology.peel(mask, (1.0,) * 3, 2.0)
    assert (kept & blood & inner).sum() > 0.95 * (blood & inner).sum()
    assert not (kept & morphology.peel(sinus, (1.0,) * 3, 1.5)).any()
    assert not (fill_holes(kept) & ~kept).any()


def test_fat_at_the_surface_is_cut_and_a_source_inside_stays():
    mask, field, distance = _ball_with_field()
    x, y, z = torch.meshgrid(*[torch.arange(52.0) - 25.5] * 3, indexing="ij")
    fat = mask & ((x - 19).square() + y.square() + z.square() < 25)
    bleeding = x.square() + y.square() + z.square() < 9
    shifted = field + torch.where(fat, -3.5, 0.0) + torch.where(bleeding, 0.8, 0.0)
    kept = masking.reliable_mask(
        mask, (1.0,) * 3, reliability=mask.float(), field=shifted, erosion=0.0
    )
    assert not (kept & fat).any()
    assert kept[bleeding].all()
    assert kept[mask & (x < 5) & (distance < 17)].all()


def test_a_smooth_field_costs_the_eroded_layer_only():
    mask, field, distance = _ball_with_field()
    kept = masking.reliable_mask(mask, (1.0,) * 3, reliability=mask.float(), field=field)
    assert kept[distance < 17].all() and not kept[distance > 19].any()


def test_dropout_at_the_surface_is_cut_and_a_bleeding_stays_without_holes():
    mask, _, _ = _ball_with_field()
    x, y, z = torch.meshgrid(*[torch.arange(52.0) - 25.5] * 3, indexing="ij")
    sinus = (x - 19).square() + y.square() + z.square() < 25
    orbit = (y - 19).square() + x.square() + z.square() < 25
    bleeding = x.square() + y.square() + z.square() < 9
    reliability = torch.where(sinus | bleeding, 0.2, 1.0)
    quality = torch.where(orbit | bleeding, 0.3, 0.7)
    kept = masking.without_dropout(mask, (1.0,) * 3, reliability=reliability, quality=quality)
    assert not (kept & (sinus | orbit)).any()
    assert kept[bleeding].all() and torch.equal(fill_holes(kept), kept)
    lost = mask & ~(sinus | orbit) & ~kept
    assert not erode(lost, (1.0,) * 3, 1.5).any() and lost.sum() < 0.01 * mask.sum()
    noisy = {"reliability": reliability.clamp_min(0.8), "quality": 0.2 * torch.ones_like(quality)}
    assert (masking.without_dropout(mask, (1.0,) * 3, **noisy) != mask).sum() < 0.01 * mask.sum()


@pytest.mark.parametrize("size", [1.0, 3.4])
def test_scalp_that_hangs_on_a_thread_is_cut_off_at_any_voxel_size(size):
    mask, _, _ = _ball_with_field()
    leaked = mask.clone()
    leaked[48:50, 16:36, 16:36] = True  # scalp,
    leaked[44:48, 26, 26] = True  # joined to the brain by a bridge of one
    good = leaked.float()
    kept = masking.without_dropout(leaked, (size,) * 3, reliability=good, quality=good)
    assert kept[48:].sum() < 10
    assert (kept != mask).sum() < 0.02 * mask.sum()


def test_a_simulated_bleed_at_the_surface_stays_in_the_trimmed_mask():
    shape, edge = (60, 74, 60), 3.0
    head = heads.procedural(4, shape, edge)
    depth = ndimage.distance_transform_edt(head.brain, sampling=head.voxel_size)
    rng = np.random.default_rng(2)
    surface = (depth > 2) & (depth < 5) & head.brain
    surface[:, :, : shape[2] // 2] = False  # the convexity, not the base
    where = tuple(int(i) for i in rng.permutation(np.argwhere(surface))[0])
    canvas = pathology._Canvas(head)
    box, d = canvas.blob(where, 10.0, rng, roughness=0.2)
    canvas.write(box, d, lab.HAEMORRHAGE, np.full_like(d, 0.3))
    scan = simulate_subject(4, head=canvas.head(), protocol=Protocol(b0=7.0))
    size = tuple(float(v) for v in scan.head.voxel_size)
    given = chain.ScanParameters(scan.protocol.echo_times, 7.0, size)
    phase, magnitude = torch.from_numpy(scan.phase), torch.from_numpy(scan.magnitude)
    fitted = chain.map_field(phase, magnitude, given)[2]
    brain = torch.from_numpy(scan.brain)
    around = morphology.grow(brain, size, 2.0)
    kept = chain.trim_mask(around, fitted, given)[0]
    bleed = brain & torch.from_numpy(scan.head.labels == lab.HAEMORRHAGE)
    assert bleed.sum() > 50
    assert (bleed & ~morphology.peel(brain, size, 2.0)).any()  # it reaches the surface
    assert (kept & bleed).sum() > 0.8 * bleed.sum()


def test_a_small_mask_is_named_where_trimming_leaves_nothing():
    mouse, man = torch.ones(30, 30, 20), torch.ones(60, 60, 50)
    said = masking.small_cause(mouse, (0.3, 0.3, 0.3))
    assert said.startswith("the mask has 0.49 cm³ only, and the lengths of trimming")
    assert masking.small_cause(man, (2.0, 2.0, 2.0)) == ""
