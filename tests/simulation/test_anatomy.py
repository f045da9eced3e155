"""Laws of the digital heads: reproducible, symmetric, in the right place at any resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.simulation import heads, pathology
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.colin import TEMPLATES
from qsm_nipype.simulation.head import Head, grid_affine
from qsm_nipype.simulation.shapes import box, chain, ellipsoid, smooth_noise, within
from qsm_nipype.simulation.tissue import random_contrast, tissue_maps

SHAPE = (60, 74, 60)
needs_colin = pytest.mark.skipif(
    not (TEMPLATES / "ch2.nii.gz").exists(), reason="Debian's mricron-data is not installed"
)


@pytest.fixture(scope="module")
def upright() -> Head:
    """The average head, without deformation, at 3 mm."""
    return heads.procedural(1, SHAPE, 3.0, deform=0.0)


def _world(head: Head, label: int, side: int) -> np.ndarray:
    index = np.argwhere(head.labels == label)
    points = index @ head.affine[:3, :3].T + head.affine[:3, 3]
    return points[np.sign(points[:, 0]) == side].mean(0)


def test_same_seed_gives_the_same_bytes() -> None:
    a, b = (heads.procedural(5, (30, 37, 30), 6.0) for _ in range(2))
    assert a.labels.tobytes() == b.labels.tobytes()
    assert a.brain.tobytes() == b.brain.tobytes()


def test_another_seed_gives_another_head(upright: Head) -> None:
    other = heads.procedural(2, SHAPE, 3.0, deform=0.0)
    assert 0.02 < np.mean(other.labels != upright.labels) < 0.6


def test_every_label_is_present_and_known(upright: Head) -> None:
    found = set(np.unique(upright.labels).tolist())
    assert found <= set(lab.LABELS)
    healthy = set(lab.LABELS) - {
        lab.CALCIFICATION, lab.HAEMORRHAGE, lab.MICROBLEED, lab.LESION, lab.LESION_RIM,
        lab.DURA, lab.ARTERY,  # of the realistic scanner's surroundings only
    }  # fmt: skip
    assert healthy <= found


@pytest.mark.parametrize(
    ("label", "place"),
    [
        (lab.PALLIDUM, (19, -4, -1)),
        (lab.PUTAMEN, (28, 3, 1)),
        (lab.THALAMUS, (11, -18, 7)),
        (lab.DENTATE, (16, -58, -35)),
        (lab.RED_NUCLEUS, (5, -20, -9)),
    ],
)
def test_nuclei_lie_where_the_atlas_has_them(
    upright: Head, label: int, place: tuple[float, ...]
) -> None:
    for side in (-1, 1):
        expected = np.array(place) * (side, 1, 1) * 0.95
        assert np.linalg.norm(_world(upright, label, side) - expected) < 4


def test_volumes_are_those_of_an_adult_brain(upright: Head) -> None:
    volume = float(np.prod(upright.voxel_size)) / 1000
    assert 1250 < upright.brain.sum() * volume < 1750
    grey, white = ((upright.labels == k).sum() * volume for k in (9, 8))
    assert 0.7 < grey / white < 2.2


def test_brain_is_one_piece_surrounded_by_skull(upright: Head) -> None:
    from scipy import ndimage

    assert ndimage.label(upright.brain)[1] == 1
    assert not np.isin(upright.labels[upright.brain], (*lab.AIR_LABELS, lab.BONE, lab.SKIN)).any()
    # the way up from the brain's centre meets fluid or brain, then bone, then scalp, then air
    column = upright.labels[SHAPE[0] // 2 + 6, SHAPE[1] // 2, :]
    top = [int(np.flatnonzero(np.isin(column, k))[-1]) for k in ((8, 9), (13,), (31, 33))]
    assert top[0] < top[1] < top[2] and column[-1] == lab.AIR


def test_anatomy_does_not_depend_on_the_voxel_size() -> None:
    coarse = heads.procedural(3, (30, 37, 30), 6.0)
    affine = coarse.affine.copy()
    affine[:3, :3] /= 2
    fine = heads.procedural(3, (59, 73, 59), affine=affine)
    assert np.mean(fine.labels[::2, ::2, ::2] == coarse.labels) > 0.995


def test_oblique_grid_sees_the_same_head(upright: Head) -> None:
    tilted = heads.procedural(1, SHAPE, 3.0, angles=(20, 0, 0), deform=0.0)
    for label in (lab.THALAMUS, lab.PUTAMEN, lab.DENTATE):
        for side in (-1, 1):
            shift = _world(tilted, label, side) - _world(upright, label, side)
            assert np.linalg.norm(shift) < 1.8
    np.testing.assert_allclose(tilted.voxel_size, 3.0)
    np.testing.assert_allclose(
        tilted.b0_dir, (0, np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))), atol=1e-6
    )


def test_shapes_measure_distances() -> None:
    p = np.stack(np.meshgrid(*[np.linspace(-9, 9, 19)] * 3, indexing="ij")).astype(np.float32)
    radius = np.sqrt((p**2).sum(0))
    sphere = ellipsoid(p, (0, 0, 0), (5, 5, 5))
    np.testing.assert_allclose(sphere[radius > 0], (radius - 5)[radius > 0], atol=1e-4)
    np.testing.assert_allclose(chain(p, [(0, 0, 0, 2), (0, 0, 0, 2)]), radius - 2, atol=1e-4)
    cube = box(p, (0, 0, 0), (4, 4, 4), rounding=0.0)[:, 9, 9]
    np.testing.assert_allclose(cube, abs(p[0, :, 9, 9]) - 4, atol=1e-5)
    where = within(p, (-2, -2, -2), (2, 2, 2))
    inside = (np.abs(p) <= 2).all(0)
    assert inside[where].sum() == inside.sum()


def test_noise_has_unit_variance_and_its_wavelength() -> None:
    noise = smooth_noise(np.random.default_rng(0), 40.0)
    assert abs(float(noise.values.std()) - 1) < 1e-3
    line = noise.values[0]
    power = np.abs(np.fft.rfft(line, axis=2)) ** 2
    k = np.fft.rfftfreq(line.shape[2], 256 / (line.shape[2] - 1))
    mean = float((power.mean((0, 1)) * k).sum() / power.mean((0, 1)).sum())
    assert 0.2 / 40 < mean < 1.2 / 40


def test_pathologies_are_recorded_where_they_are(upright: Head) -> None:
    rng = np.random.default_rng(4)
    head, lesions = pathology.ms_lesions(upright, rng, count=8, rim_fraction=0.5)
    head, bleeds = pathology.haemorrhage(head, rng, radius=9.0, chi=1.2)
    head, stones = pathology.calcification(head, rng, radius=4.0)
    head, spots = pathology.microbleeds(head, rng, count=3)
    assert head.instances is not None and upright.instances is None
    numbers = [f.number for f in (*lesions, *bleeds, *stones, *spots)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert head.instances.max() == numbers[-1]
    changed = (head.labels != upright.labels) & (head.instances == 0)
    assert (head.labels[changed] == lab.VEIN).all()  # only central veins reach beyond lesions
    assert (head.labels[head.instances == bleeds[0].number] == lab.HAEMORRHAGE).any()
    assert any(f.rim > 0 for f in lesions) and any(f.rim == 0 for f in lesions)
    chi = tissue_maps(head, rng, blur=0.0, texture=0.0).chi
    assert abs(float(np.median(chi[head.labels == lab.HAEMORRHAGE])) - 1.2) < 0.35
    assert (chi[head.labels == lab.CALCIFICATION] < -0.3).all()


def test_rim_is_a_paramagnetic_shell_round_the_lesion() -> None:
    labels = np.full((40, 40, 40), lab.WHITE_MATTER, dtype=np.uint8)
    head = Head(labels, np.ones(labels.shape, bool), grid_affine(labels.shape, 1.0))
    rng = np.random.default_rng(11)
    lesion, findings = pathology.ms_lesions(head, rng, count=1, rim_fraction=1.0)
    chi = tissue_maps(lesion, rng, blur=0.0, texture=0.0).chi
    rim, core = lesion.labels == lab.LESION_RIM, lesion.labels == lab.LESION
    assert findings[0].rim >= 0.5 and rim.any() and core.any()
    assert chi[rim].mean() > chi[core].mean()
    centre = np.argwhere(rim | core).mean(0)
    assert (
        np.linalg.norm(np.argwhere(rim) - centre, axis=1).mean()
        > np.linalg.norm(np.argwhere(core) - centre, axis=1).mean()
    )


def test_iron_load_raises_susceptibility_and_relaxation() -> None:
    low, high = (random_contrast(np.random.default_rng(0), iron=f) for f in (0.5, 2.0))
    for nucleus in lab.NUCLEI:
        assert high[nucleus][0] > low[nucleus][0]
        assert high[nucleus][3] >= low[nucleus][3]
    assert high[lab.WHITE_MATTER] == low[lab.WHITE_MATTER]


def test_missing_template_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mricron-data"):
        heads.colin(1, (8, 8, 8), 20.0, templates=tmp_path)


@needs_colin
@pytest.mark.slow
def test_colin_is_a_whole_head_with_nuclei_and_sinuses() -> None:
    head = heads.colin(1, SHAPE, 3.0, deform=0.0)
    volume = float(np.prod(head.voxel_size)) / 1000
    assert 1300 < head.brain.sum() * volume < 1800
    for label in (*lab.NUCLEI, lab.BONE, lab.FAT, lab.SINUS_AIR, lab.VITREOUS, lab.VEIN):
        assert (head.labels == label).any(), lab.LABELS[label]
    air = (head.labels == lab.SINUS_AIR).sum() * volume
    assert 30 < air < 250
    left, right = (_world(head, lab.PUTAMEN, side) for side in (-1, 1))
    assert np.linalg.norm(left * (-1, 1, 1) - right) < 4
    assert head.labels.tobytes() == heads.colin(1, SHAPE, 3.0, deform=0.0).labels.tobytes()
