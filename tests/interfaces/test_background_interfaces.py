"""Every background interface: files in, files out, the core's defaults, clear refusals."""

import inspect

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces import background
from qsm_nipype.methods import resolve

BASE = background.BackgroundRemoval
METHODS = [c for c in vars(background).values() if inspect.isclass(c) and issubclass(c, BASE)]
METHODS.remove(BASE)
OBLIQUE = np.array([[1.0, 0, 0.4, 0], [0, 1.2, 0, 0], [-0.2, 0, 1.9, 0], [0, 0, 0, 1.0]])


def write(path, data, affine=OBLIQUE):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    return str(path)


@pytest.fixture
def inputs(tmp_path):
    x, y, z = np.stack(np.meshgrid(*[np.arange(22) - 10.5] * 3, indexing="ij"))
    mask = x**2 + y**2 + z**2 < 81
    field = 0.5 + 0.02 * x - 0.01 * z + 0.05 * np.exp(-(x**2 + y**2 + z**2) / 8)
    return {
        "in_file": write(tmp_path / "total.nii", np.where(mask, field, np.nan)),
        "in_mask": write(tmp_path / "brain.nii", mask),
    }


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_parameters_are_those_of_the_core_function(method):
    names = inspect.signature(resolve(method.function)).parameters
    own = set(method.input_spec().traits(parameter=True))
    keywords = {n for n, p in names.items() if p.kind is p.KEYWORD_ONLY} - {"noise"}
    assert own == keywords


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_each_method_writes_field_and_mask_on_the_inputs_grid(
    method, inputs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    node = method(**inputs)
    if "radius" in node.inputs.traits():
        node.inputs.radius = 4.0
    out = node.run().outputs
    field, mask = nib.load(out.out_file), nib.load(out.out_mask)
    assert np.allclose(field.affine, OBLIQUE) and np.allclose(mask.affine, OBLIQUE)
    assert field.get_data_dtype() == np.float32 and mask.get_data_dtype() == np.uint8
    inside = mask.get_fdata() > 0
    assert inside.any() and np.isfinite(field.get_fdata()).all()
    assert not field.get_fdata()[~inside].any()


def test_noise_reaches_the_methods_that_use_it(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.ones((22, 22, 22))
    noise[:11] = 50.0
    with_noise = {**inputs, "in_noise": write(tmp_path / "noise.nii", noise)}
    for method, differs in ((background.LBVTFI, True), (background.LBV, False)):
        plain = np.array(nib.load(method(**inputs).run().outputs.out_file).get_fdata())
        weighted = np.array(nib.load(method(**with_noise).run().outputs.out_file).get_fdata())
        assert np.allclose(plain, weighted, atol=1e-7) != differs


@pytest.mark.parametrize("port", ["in_mask", "in_noise"])
def test_another_grid_is_refused_by_name(port, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs[port] = write(tmp_path / "other.nii", np.ones((22, 22, 20)))
    with pytest.raises(DataError, match="other.nii.*its grid .* differs from that of"):
        background.PDF(**inputs).run()


def test_an_empty_mask_is_refused_by_name(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs["in_mask"] = write(tmp_path / "nothing.nii", np.zeros((22, 22, 22)))
    with pytest.raises(DataError, match="nothing.nii.*empty"):
        background.VSHARP(**inputs).run()
