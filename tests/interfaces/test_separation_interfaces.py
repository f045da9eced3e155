"""Nodes of R2′, of both sources, of veins and bleeds: files, units, grids, and what is refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from qsm_nipype.core.spin_echo import echo_train
from qsm_nipype.dataset.r2_files import find_given_r2, find_spin_echoes, read_r2
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.separation import (
    AssumedR2Prime,
    ChiSeparation,
    GivenR2Prime,
    JointSeparation,
    PointwiseSeparation,
    R2starQSM,
    SpinEchoR2Prime,
)
from qsm_nipype.interfaces.vessels import COLUMNS, Bleeds, Veins

SHAPE = (24, 22, 20)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
TIMES = [0.012 * (n + 1) for n in range(8)]
ENTITIES = {"sub": "01"}


def write(path: Path, data: np.ndarray, sidecar: dict | None = None, affine=AFFINE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    if sidecar is not None:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(sidecar))
    return str(path)


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    grid = np.indices(SHAPE) - (np.array(SHAPE) - 1)[:, None, None, None] / 2
    mask = (grid**2 / (0.4 * np.array(SHAPE))[:, None, None, None] ** 2).sum(0) < 1
    rng = np.random.default_rng(1)
    r2star = mask * (22 + 8 * (grid[0] > 0) + 0.5 * rng.normal(size=SHAPE))
    chi = mask * 0.05 * np.sign(grid[0])
    echoes = np.exp(-np.arange(1, 4) * 0.008 * r2star[..., None]) * mask[..., None]
    maps = {"r2star": r2star, "mask": mask, "chi": chi, "magnitude": echoes,
            "field": mask * rng.normal(0, 0.01, SHAPE)}  # fmt: skip
    return {name: write(tmp_path / f"{name}.nii", data) for name, data in maps.items()}


def prime(node, files, **inputs):
    made = node(
        in_r2star=files["r2star"],
        in_mask=files["mask"],
        in_magnitude=files["magnitude"],
        **inputs,
    )
    return made.run().outputs


def values(path: str) -> np.ndarray:
    return nib.load(path).get_fdata()


def test_a_given_map_is_taken_off_in_its_unit(files, tmp_path):
    mask = values(files["mask"]) > 0
    r2 = write(tmp_path / "sub-01_R2map.nii", mask * 14.0)
    t2 = write(tmp_path / "sub-01_T2map.nii", mask * 1000 / 14.0, {"Units": "ms"})
    found = [prime(GivenR2Prime, files, in_files=[f]) for f in (r2, t2)]
    expected = np.where(mask, values(files["r2star"]) - 14.0, 0)
    for out in found:
        assert np.allclose(values(out.r2prime), expected, atol=1e-3)
        assert np.allclose(values(out.t2)[mask], 1 / 14.0, rtol=1e-4)
    numbers = json.loads(Path(found[0].out_record).read_text())["numbers"]
    assert numbers["r2prime_negative"]["value"] == 0 and numbers["r2prime_noise"]["value"] >= 0.5


def test_spin_echoes_of_a_coarser_grid_are_fitted_and_registered(files, tmp_path):
    mask = values(files["mask"]) > 0
    r2 = np.where(values(files["r2star"]) > 26, 18.0, 12.0)[:, :, ::2]
    angle = torch.full((r2.size,), 0.9 * np.pi)
    train = echo_train(torch.from_numpy(1 / r2.reshape(-1)).float(), angle, 0.012, 8)
    bright = (values(files["magnitude"])[..., 0] > 0.1)[:, :, ::2]
    images = train.numpy().reshape(*r2.shape, 8) * bright[..., None]
    affine = AFFINE @ np.diag([1, 1, 2, 1])
    names = [write(tmp_path / f"e{n}.nii", images[..., n], affine=affine) for n in range(8)]
    out = prime(SpinEchoR2Prime, files, in_files=names, echo_times=TIMES)
    assert values(out.r2).shape == SHAPE
    inner = mask & (np.abs(np.indices(SHAPE)[0] - 11.5) > 3)
    inner &= np.roll(mask, 3, 2) & np.roll(mask, -3, 2) & np.roll(mask, 3, 1)
    expected = np.where(values(files["r2star"]) > 26, 18.0, 12.0)
    assert np.abs(values(out.r2)[inner] / expected[inner] - 1).mean() < 0.05
    assert "another grid" in json.loads(Path(out.out_record).read_text())["notes"][0]


def test_without_r2_a_share_is_assumed(files):
    out = prime(AssumedR2Prime, files, share=0.3)
    assert np.allclose(values(out.r2prime), 0.3 * values(files["r2star"]), atol=1e-3)


@pytest.mark.parametrize("node", [JointSeparation, ChiSeparation, R2starQSM, PointwiseSeparation])
def test_each_separation_writes_signed_maps_on_the_grid(node, files, tmp_path):
    made = node(
        in_file=files["field"],
        in_mask=files["mask"],
        in_chi=[files["chi"]],
        in_r2prime=files["r2star"],
        in_r2star=files["r2star"],
        in_magnitude=files["magnitude"],
        b0=3.0,
    )
    out = made.run().outputs
    plus, minus = values(out.paramagnetic), values(out.diamagnetic)
    outside = values(files["mask"]) == 0
    assert plus.shape == minus.shape == SHAPE and plus.min() >= 0 and minus.max() <= 0
    assert not plus[outside].any() and plus.max() > 0
    numbers = json.loads(Path(out.out_record).read_text())["numbers"]
    assert numbers["separation_residual"]["unit"] == "ppm"


def test_bleeds_have_a_table_and_veins_a_mask(files, tmp_path):
    chi = np.zeros(SHAPE)
    chi[6, 11, 10] = chi[7, 11, 10] = chi[6, 12, 10] = chi[6, 11, 11] = 0.9
    chi[16:18, 10:12, 9:11] = -0.8
    inputs = {"in_chi": write(tmp_path / "c.nii", chi), "in_mask": files["mask"]}
    out = Bleeds(**inputs, margin=1.0, threshold=0.02).run().outputs
    rows = [line.split("\t") for line in Path(out.out_table).read_text().splitlines()]
    assert rows[0] == list(COLUMNS) == list(json.loads(Path(out.out_columns).read_text()))
    assert sorted(row[1] for row in rows[1:]) == ["bleed", "calcification"]
    labels = values(out.out_file)
    for row in rows[1:]:
        place = np.round(np.array([float(v) for v in row[7:10]]) / 2).astype(int)
        assert labels[tuple(place)] == int(row[0])
    veins = Veins(**inputs).run().outputs
    assert values(veins.out_file).shape == SHAPE


def test_units_that_cannot_be_are_refused(tmp_path):
    odd = write(tmp_path / "sub-01_T2map.nii", np.full(SHAPE, 70.0))
    with pytest.raises(DataError, match="median R2 is 0.0143.*Units"):
        read_r2(odd)
    named = write(tmp_path / "sub-02_R2map.nii", np.full(SHAPE, 14.0), {"Units": "ppm"})
    with pytest.raises(DataError, match="Units are 'ppm'"):
        read_r2(named)
    with pytest.raises(DataError, match="leave out -d r2"):
        find_given_r2(tmp_path / "nowhere", ENTITIES)


def test_spin_echoes_are_found_sorted_by_their_times(tmp_path):
    assert find_spin_echoes(tmp_path, ENTITIES) is None
    for number, time in ((1, 0.03), (2, 0.01), (3, 0.02)):
        path = tmp_path / "sub-01" / "anat" / f"sub-01_echo-{number}_MESE.nii"
        write(path, np.ones(SHAPE), {"EchoTime": time, "RefocusingFlipAngle": 160})
    found = find_spin_echoes(tmp_path, ENTITIES)
    assert [f.name[12] for f in found.files] == ["2", "3", "1"]
    assert found.echo_times == (0.01, 0.02, 0.03) and found.refocusing == 160
    path.with_name("sub-01_echo-3_MESE.json").write_text(json.dumps({"EchoTime": 0.025}))
    with pytest.raises(DataError, match="equal steps"):
        find_spin_echoes(tmp_path, ENTITIES)
