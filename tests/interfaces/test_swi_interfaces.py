"""Each node of susceptibility-weighted imaging writes image, projection and record."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import methods
from qsm_nipype.dataset.derivatives import derivative_path, ignored, sidecar_of
from qsm_nipype.methods import resolve

SHAPE = (14, 12, 10)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(2)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    mask = np.zeros(SHAPE)
    mask[2:-2, 2:-2, 1:-1] = 1
    maps = {
        "in_magnitude": 1 + rng.random((*SHAPE, 2)),
        "in_phase": rng.uniform(-1, 1, (*SHAPE, 2)),
        "in_field": rng.normal(0, 0.02, SHAPE),
        "in_chi": rng.normal(0, 0.1, SHAPE),
        "in_mask": mask,
    }
    for name, data in maps.items():
        image = nib.Nifti1Image(data.astype(np.float32), affine)
        nib.save(image, tmp_path / f"{name}.nii")
    return {name: str(tmp_path / f"{name}.nii") for name in maps}


@pytest.mark.parametrize("name", methods.names("swi"))
def test_each_method_writes_its_images_on_the_grid(name, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = resolve(methods.get("swi", name).interface)(echo_times=[0.01, 0.02], thickness=6.0)
    ports = [port for port in files if port in node.inputs.copyable_trait_names()]
    for port in ports:
        value = [files[port], files["in_mask"]] if port == "in_chi" else files[port]
        setattr(node.inputs, port, value)
    out = node.run().outputs
    image, projection = (nib.load(path) for path in (out.out_file, out.out_projection))
    mask = nib.load(files["in_mask"]).get_fdata() > 0
    assert image.shape == projection.shape == SHAPE
    assert (projection.get_fdata()[mask] <= image.get_fdata()[mask] + 1e-6).all()
    assert (projection.get_fdata()[~mask] == 0).all()
    assert json.loads(Path(out.out_record).read_text())["seconds"] >= 0


def test_names_are_ignored_by_the_validator_and_say_the_method():
    assert {"*_swi.*", "*_minIP.*"} <= set(ignored())
    path = derivative_path("minip", {"sub": "01", "run": "2"}, "anat", desc="clear")
    assert path.as_posix() == "sub-01/anat/sub-01_run-2_desc-clear_minIP"


@pytest.mark.parametrize(
    ("place", "steps"),
    [
        (0, ["offset.mcpc3ds", "mask.net", "swi.homodyne"]),
        (1, ["offset.mcpc3ds", "fit.linear", "mask.net", "swi.clear"]),
        (2, ["offset.mcpc3ds", "fit.linear", "mask.net", "inversion.tv", "reference.brain",
             "swi.smwi"]),
    ],
)  # fmt: skip
def test_the_sidecar_names_the_steps_that_led_to_the_image(place, steps):
    every = [
        *("offset.mcpc3ds", "fit.linear", "mask.net", "inversion.tv", "inversion.tkd"),
        *("reference.brain", "relaxometry.arlo", "swi.homodyne", "swi.clear", "swi.smwi"),
    ]
    record = {"steps": [dict(zip(("step", "method"), s.split("."), strict=True)) for s in every]}
    found = sidecar_of("swi", record, inversion=place)["ProcessingSteps"]
    assert [f"{s['step']}.{s['method']}" for s in found] == steps
