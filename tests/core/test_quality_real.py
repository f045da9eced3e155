"""Quality measures of measured data; nothing of it is kept. Skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from qsm_nipype import chain
from qsm_nipype.commands.stage import REGION_MARGIN
from qsm_nipype.core.morphology import dilate
from qsm_nipype.core.quality import look, measured
from qsm_nipype.ranges import judged
from qsm_nipype.volume import load

DATA = Path(os.environ.get("QSM_NIPYPE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def judgements(maps, mask, voxel_size, b0_dir):
    found = measured(look(maps, {"mask": mask}, voxel_size, b0_dir))
    return {name: judged(name, value)["judgement"] for name, value in found.items()}


def test_a_measured_local_field_is_not_bad_and_b0_along_another_axis_is_not():
    folder = DATA / "invivo_2016"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set QSM_NIPYPE_TEST_DATA to the real data")
    field, mask = load(folder / "localfield.nii.gz"), load(folder / "mask.nii.gz").mask()
    scan = chain.ScanParameters((0.025,), 3.0, field.voxel_size)
    region = dilate(mask, field.voxel_size, REGION_MARGIN)
    chi = chain.invert(field.tensor(), mask, scan, region=region, method="tikhonov").chi
    maps = {"chi": chi, "local_field": field.tensor()}
    found = judgements(maps, mask, field.voxel_size, (0.0, 0.0, 1.0))
    assert "bad" not in found.values() and found["field_cone"] == "ok", found
    turned = judgements(maps, mask, field.voxel_size, (1.0, 0.0, 0.0))
    assert turned["field_cone"] == "bad"
    negative = judgements({"chi": -chi}, mask, field.voxel_size, (0.0, 0.0, 1.0))
    assert negative["chi_lean"] != "ok"
    weak = {name: 0.2 * volume for name, volume in maps.items()}
    assert judgements(weak, mask, field.voxel_size, (0.0, 0.0, 1.0))["field_spread"] == "bad"


def test_the_mask_that_holds_orbits_and_skull_base_is_red():
    folder = DATA / "bids_philips" / "sub-01" / "anat"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set QSM_NIPYPE_TEST_DATA to the real data")
    images = {
        part: [load(folder / f"sub-01_echo-{n}_part-{part}_MEGRE.nii.gz") for n in (1, 2)]
        for part in ("mag", "phase")
    }
    like = images["mag"][0]
    magnitude, phase = (torch.stack([v.tensor() for v in images[p]], -1) for p in images)
    scan = chain.ScanParameters((0.0023, 0.0046), 3.0, like.voxel_size, like.b0_dir)
    _, unwrapped, fitted = chain.map_field(phase, magnitude, scan)
    mask = chain.make_mask(magnitude, unwrapped.quality, scan, method="quality")
    options = {"trim.reliable": {"threshold": 0.5, "erosion": 0.0}}
    trimmed, _ = chain.trim_mask(mask, fitted, scan, parameters=options)
    found = chain.susceptibility(fitted.field, trimmed, scan, background="vsharp", inversion="tkd")
    maps = {"chi": found.chi, "local_field": found.local_field}
    seen = look(maps, {"mask": mask, "mask_chi": found.mask}, scan.voxel_size, scan.b0_dir)
    bad = {n for n, v in measured(seen).items() if judged(n, v)["judgement"] == "bad"}
    assert bad >= {"rim_strong", "rim_dark", "rim_field"}
