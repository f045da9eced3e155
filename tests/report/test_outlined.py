"""Pictures of veins and candidates: those that there are, and in words where none was found."""

import numpy as np

from qsm_nipype.report.gallery import draw_outlined


def test_each_that_there_is_has_a_picture_and_an_empty_one_says_so():
    chi = np.random.default_rng(1).normal(0, 0.05, (14, 12, 10)).astype(np.float32)
    veins = np.zeros(chi.shape, np.uint8)
    veins[3:9, 5, 5] = 1
    maps = {"mask_chi": np.ones(chi.shape, bool), "chi": chi, "veins": veins, "bleeds": 0 * veins}
    drawn = {
        name: (caption, picture) for name, _, caption, picture in draw_outlined(maps, np.eye(4))
    }
    assert list(drawn) == ["veins", "bleeds"]
    assert drawn["bleeds"][0] == "None was found." != drawn["veins"][0]
    assert all(picture.startswith(b"\x89PNG") for _, picture in drawn.values())
    assert not list(draw_outlined({"chi": chi}, np.eye(4)))
