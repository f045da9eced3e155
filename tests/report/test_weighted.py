"""Pictures of susceptibility-weighted images: one of each kind for each method, and no other."""

import numpy as np

from qsm_nipype.report.gallery import draw_weighted


def test_each_method_has_its_image_and_its_projection():
    volume = np.random.default_rng(1).random((12, 14, 10)).astype(np.float32)
    names = ("swi_clear", "minip_clear", "swi_smwi-diamagnetic", "minip_smwi-diamagnetic")
    maps = {"mask": volume > 0.1, "chi": volume, **dict.fromkeys(names, volume)}
    drawn = list(draw_weighted(maps, np.eye(4)))
    assert [name for name, *_ in drawn] == [name.replace("-", "") for name in names]
    assert drawn[1][1] == "Minimum intensity projection: CLEAR-SWI"
    assert all(picture.startswith(b"\x89PNG") for *_, picture in drawn)
