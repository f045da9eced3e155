"""Volumes of the viewer: the right values at the right places, small, always the same bytes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib import resources

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.report.styles import style_of
from qsm_nipype.report.volumes import (
    LIBRARY,
    OUTSIDE,
    Layer,
    Overlay,
    read_library,
    render_viewer,
)

SHAPE = (30, 36, 24)
AFFINE = np.array([[0, -1.5, 0.1, 20], [-1, 0, 0, 30], [0, 0.1, 2, -12], [0, 0, 0, 1.0]])


def made(**styles):
    """Maps of noise inside a block, and the viewer's files of them."""
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, bool)
    mask[8:20, 9:25, 7:18] = True
    maps = {name: scale * rng.normal(size=SHAPE) for name, scale in styles.items()}
    layers = [Layer(name, data, style_of(name)) for name, data in maps.items()]
    labels = np.zeros(SHAPE)
    labels[10:13, 10:13, 10:13] = 2
    over = [Overlay("mask", "Mask", mask), Overlay("dentate", "Dentates", labels, {2: "right"})]
    return maps, mask, render_viewer(layers, over, AFFINE, mask)


def unpacked(viewer, name):
    """The image that a script hands to the page."""
    said = viewer.files[f"{name}.js"].decode()
    found = re.fullmatch(r'qsmVolume\((".*?"), "([A-Za-z0-9+/=]+)"\);\n', said)
    assert json.loads(found[1]) == name
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(found[2])))


@pytest.mark.parametrize(("name", "scale", "off"), [("chi", 0.1, 5e-4), ("total_field", 5, 5e-4),
                                                    ("r2star", 20, 0.11)])  # fmt: skip
def test_a_value_is_right_where_it_lies_in_the_scanner(name, scale, off):
    maps, mask, viewer = made(**{name: scale})
    image = unpacked(viewer, name)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    places = np.argwhere(mask)
    there = nib.affines.apply_affine(AFFINE, places)
    here = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine), there)).astype(int)
    np.testing.assert_allclose(
        image.get_fdata()[tuple(here.T)], maps[name][tuple(places.T)], atol=off
    )


def test_outside_the_mask_nothing_is_shown_and_the_box_is_tight():
    _, mask, viewer = made(chi=0.1)
    raw = np.asanyarray(unpacked(viewer, "chi").dataobj.get_unscaled())
    assert (raw != OUTSIDE).sum() == mask.sum()
    assert raw.size < mask.size


def test_a_map_is_shown_inside_its_own_mask():
    own = np.zeros(SHAPE)
    own[5:9, 5:9, 5:9] = 1
    layers = [Layer("chi", np.ones(SHAPE), style_of("chi"), mask=own)]
    image = unpacked(render_viewer(layers, [], np.eye(4), np.ones(SHAPE)), "chi")
    assert (np.asanyarray(image.dataobj.get_unscaled()) != OUTSIDE).sum() == own.sum()


def test_one_value_far_away_costs_others_no_more_than_it_must():
    rng = np.random.default_rng(1)
    data = 0.1 * rng.normal(size=SHAPE)
    data[15, 15, 15] = 40.0
    layers = [Layer("chi", data, style_of("chi"))]
    image = unpacked(render_viewer(layers, [], np.eye(4), np.ones(SHAPE)), "chi")
    np.testing.assert_allclose(image.get_fdata(), data, atol=40 / 32767)


def test_broken_values_and_empty_maps_are_stored():
    data = np.full(SHAPE, np.nan)
    data[0, 0, 0] = np.inf
    layers = [Layer(name, data, style_of(name)) for name in ("chi", "magnitude")]
    viewer = render_viewer(layers, [], np.eye(4), np.zeros(SHAPE))
    assert not unpacked(viewer, "magnitude").get_fdata().any()
    assert all(low < high for low, high in (m["window"] for m in viewer.manifest["layers"]))


def test_labels_and_their_names_are_kept():
    _, _, viewer = made(chi=0.1)
    assert set(np.unique(unpacked(viewer, "dentate").dataobj)) == {0, 2}
    assert viewer.manifest["overlays"][1]["names"] == {"2": "right"}


def test_a_map_can_be_laid_over_the_others():
    layers = [Layer("a", np.ones(SHAPE), style_of("disagreement"), over=True)]
    viewer = render_viewer(layers, [], np.eye(4), np.ones(SHAPE))
    map_, over = viewer.manifest["layers"][0], viewer.manifest["overlays"][0]
    assert over["file"] == map_["file"]
    assert map_["window"] == [0, 0.05] and over["window"] == pytest.approx([0.01, 0.05])
    assert over["name"] != map_["name"]


def test_the_same_maps_give_the_same_bytes():
    assert made(chi=0.1)[2].files == made(chi=0.1)[2].files


def test_the_library_is_the_one_that_was_published_and_goes_with_its_licence():
    folder = resources.files("qsm_nipype.report") / "niivue"
    stated = re.search(
        rf"SHA-256 of {re.escape(LIBRARY)}: ([0-9a-f]{{64}})", (folder / "README").read_text()
    )
    published = (folder / LIBRARY).read_bytes()
    assert hashlib.sha256(published).hexdigest() == stated[1]
    copied = read_library()
    assert copied.endswith(published) and b"BSD 2-Clause License" in copied[:100]
