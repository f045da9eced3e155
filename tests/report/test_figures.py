"""Figures: anatomy where the affine says it is, fixed windows, pixels of the right shape."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from qsm_nipype.report.display import PLANES, edges, spread_slices, upright
from qsm_nipype.report.figures import echoes, mosaic, png, three_planes
from qsm_nipype.report.styles import STYLES, style_of

SHAPE, VOXEL = (20, 24, 14), (1.0, 1.5, 3.0)


def ras_affine() -> np.ndarray:
    affine = np.diag([*VOXEL, 1.0])
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2 * VOXEL
    return affine


def marked() -> np.ndarray:
    """A volume (RAS) that is bright in the left, anterior, superior corner of the head only."""
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[2:6, 18:22, 10:13] = 1.0
    return volume


def stored_as(volume: np.ndarray, affine: np.ndarray, order, flips) -> tuple:
    """The same anatomy with permuted and flipped axes."""
    data, matrix = np.transpose(volume, order), affine[:, [*order, 3]].copy()
    for axis in range(3):
        if flips[axis]:
            data = np.flip(data, axis)
            matrix[:3, 3] += matrix[:3, axis] * (data.shape[axis] - 1)
            matrix[:3, axis] *= -1
    return data, matrix


STORAGES = list(
    itertools.product(itertools.permutations(range(3)), itertools.product([0, 1], repeat=3))
)


@pytest.mark.parametrize(("order", "flips"), STORAGES)
def test_left_is_on_the_readers_left_however_the_voxels_are_stored(order, flips):
    view = upright(*stored_as(marked(), ras_affine(), order, flips))
    axial = view.slice("axial", 11)
    rows, columns = np.nonzero(axial)
    assert columns.max() < axial.shape[1] / 2  # left
    assert rows.max() < axial.shape[0] / 2  # anterior on top
    rows, columns = np.nonzero(view.slice("sagittal", 4))
    assert rows.max() < 14 / 2  # superior on top
    assert columns.min() > 24 / 2  # anterior on the right
    assert edges("axial") == ("L", "R", "A", "P")
    assert edges("sagittal") == ("P", "A", "S", "I")
    assert view.pixel_size("coronal") == pytest.approx((1.0, 3.0))
    assert view.position("axial", 11) == pytest.approx(3.0 * (11 - 6.5))


def test_a_flipped_storage_order_gives_the_same_picture():
    affine, mask = ras_affine(), np.zeros(SHAPE)
    mask[3:17, 3:21, 2:12] = 1
    plain = three_planes(marked(), affine, mask=mask, style="chi", title="χ")
    storage = ((0, 1, 2), (1, 0, 1))
    data, flipped = stored_as(marked(), affine, *storage)
    turned = three_planes(
        data, flipped, mask=stored_as(mask, affine, *storage)[0], style="chi", title="χ"
    )
    assert png(plain) == png(turned)


def test_an_oblique_volume_is_not_turned_over():
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    view = upright(marked(), turn @ ras_affine())
    assert np.array_equal(view.data, marked())


@pytest.mark.parametrize("name", [n for n, s in STYLES.items() if s.window])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_windows_do_not_follow_the_data(name, scale):
    figure = mosaic(scale * marked(), ras_affine(), style=name, count=3)
    drawn = {image.get_clim() for axes in figure.axes for image in axes.images}
    assert drawn == {style_of(name).window}


def test_the_chi_window_is_a_tenth_of_a_ppm_in_gray():
    style = style_of("chi")
    assert (style.window, style.cmap, style.unit) == ((-0.1, 0.1), "gray", "ppm")


def test_a_map_in_arbitrary_units_fills_its_window():
    style = style_of("magnitude")
    inside = np.ones((2, 100), bool)
    low, high = style.limits(np.linspace(0, 500, 200).reshape(2, 100), inside)
    assert (low, high) == (0.0, pytest.approx(497.5, rel=0.01))
    assert style.limits(np.zeros((2, 100)), inside) == (0.0, 1.0)


@pytest.mark.parametrize(("reach", "rung"), [(1.0, 1), (4.0, 2), (20.0, 8), (1e3, 16)])
def test_unwrapped_phase_takes_the_first_window_that_holds_it(reach, rung):
    inside = np.ones(100, bool)
    limits = style_of("unwrapped_phase").limits(np.linspace(-reach, reach, 100), inside)
    assert limits == pytest.approx((-rung * np.pi, rung * np.pi))


@pytest.mark.parametrize("plane", PLANES)
def test_tiles_have_the_proportions_of_the_body(plane):
    figure = mosaic(marked(), ras_affine(), mask=np.ones(SHAPE), plane=plane, count=4)
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    corners = figure.axes[0].transData.transform([(left, bottom), (right, top)])
    width, height = corners[1] - corners[0]
    size = dict(zip("xyz", np.array(SHAPE) * VOXEL, strict=True))
    across, down = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}[plane]
    assert width / height == pytest.approx(size[across] / size[down])


def test_slices_lie_inside_the_mask():
    mask = np.zeros((10, 10, 60), bool)
    mask[:, :, 20:50] = True
    picks = spread_slices(mask, "axial", 7)
    assert len(picks) == 7
    assert min(picks) >= 20
    assert max(picks) <= 49


def test_letters_units_and_the_outline_are_drawn():
    mask = np.zeros(SHAPE)
    mask[4:16, 4:20, 3:11] = 1
    figure = mosaic(marked(), ras_affine(), mask=mask, style="magnitude", count=3)
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"L", "R"} <= texts
    assert len(figure.axes[0].collections) == 3
    bar = three_planes(marked(), ras_affine(), mask=mask, style="chi").axes[-1]
    assert bar.get_title() == "ppm"
    assert [t.get_text() for t in bar.get_yticklabels()][0] == "−0.1"


def test_echo_figure_has_two_rows_and_names_the_echo_times():
    phase = np.stack([marked()] * 8, axis=-1)
    figure = echoes(phase, ras_affine(), unwrapped=3 * phase, echo_times=[0.004] * 8)
    assert len(figure.axes[0].images) == 12
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"echo 1, TE 4 ms", "echo 8, TE 4 ms"} <= texts


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_empty_and_broken_maps_are_still_drawn(value):
    broken = np.full(SHAPE, value, dtype=np.float32)
    picture = Image.open(
        io.BytesIO(png(three_planes(broken, ras_affine(), mask=np.zeros(SHAPE), style="chi")))
    )
    assert picture.width > 500
