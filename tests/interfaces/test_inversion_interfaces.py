import inspect
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces import inversion
from qsm_nipype.methods import resolve

METHODS = [
    cls
    for cls in vars(inversion).values()
    if inspect.isclass(cls)
    and issubclass(cls, inversion.DipoleInversion)
    and cls is not inversion.DipoleInversion
]


def write(path, data, affine=None):
    affine = np.eye(4) if affine is None else affine
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return str(path)


@pytest.fixture
def inputs(tmp_path):
    grid = np.stack(np.meshgrid(*[np.arange(20) - 9.5] * 3, indexing="ij"))
    mask = (grid**2).sum(0) < 70
    rng = np.random.default_rng(0)
    field = np.where(mask, 0.02 * rng.standard_normal(mask.shape), 0)
    return {
        "in_file": write(tmp_path / "field.nii", field),
        "in_mask": write(tmp_path / "mask.nii", mask),
        "in_noise": write(tmp_path / "noise.nii", np.full(mask.shape, 0.01)),
        "in_magnitude": write(tmp_path / "magnitude.nii", 100.0 * mask),
    }


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_parameters_exist_in_the_core_function_and_have_no_default(method):
    names = inspect.signature(resolve(method.function)).parameters
    for name in method.input_spec().traits(parameter=True):
        assert name in names
        assert not getattr(method.input_spec().trait(name), "usedefault", None)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_each_method_writes_chi_and_a_record(method, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = method(**inputs, b0=3.0, echo_time=0.02)
    if "max_iterations" in node.inputs.traits():
        node.inputs.max_iterations = 2
    out = node.run().outputs
    chi = nib.load(out.out_file)
    assert chi.shape == (20, 20, 20) and chi.get_data_dtype() == np.float32
    assert np.isfinite(chi.get_fdata()).all() and chi.get_fdata().std() > 0
    record = json.loads(Path(out.out_record).read_text())
    assert record["method"] == method.__name__
    found = {"method", "iterations", "converged", "parameters"}
    assert set(record) == found | {"seconds", "cpu_seconds", "peak_gb"}


def test_direction_of_b0_comes_from_the_affine_unless_given(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turned = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    field = nib.load(inputs["in_file"]).get_fdata()
    mask = nib.load(inputs["in_mask"]).get_fdata()
    oblique = {
        "in_file": write(tmp_path / "a.nii", field, turned),
        "in_mask": write(tmp_path / "b.nii", mask, turned),
    }
    straight = {name: inputs[name] for name in oblique}

    def chi(**kwargs):
        return nib.load(inversion.TKD(**kwargs).run().outputs.out_file).get_fdata()

    from_affine = chi(**oblique)
    given = chi(**straight, b0_dir=(1.0, 0.0, 0.0))
    assert np.allclose(from_affine, given, atol=1e-6)
    assert not np.allclose(from_affine, chi(**straight), atol=1e-3)


def test_a_mask_on_another_grid_is_refused_by_name(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs["in_mask"] = write(tmp_path / "small.nii", np.ones((5, 5, 5)))
    with pytest.raises(DataError, match=r"small\.nii.*resample"):
        inversion.TKD(**inputs).run()


def test_agreement_is_the_mean_and_sd_of_the_maps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = np.zeros((4, 4, 4))
    a[0, 0, 0], a[0, 0, 1] = 1.0, -1.0
    files = [write(tmp_path / "1.nii", a), write(tmp_path / "2.nii", 3 * a + 5.0)]
    mask = write(tmp_path / "m.nii", np.ones((4, 4, 4)))
    out = inversion.Agreement(in_files=files, in_mask=mask).run().outputs
    spread = nib.load(out.out_file).get_fdata()
    assert np.allclose(spread, np.abs(a), atol=1e-6)
    assert np.allclose(nib.load(out.out_mean).get_fdata(), 2 * a + 2.5, atol=1e-6)
    files[1] = write(tmp_path / "other.nii", np.ones((2, 2, 2)))
    with pytest.raises(DataError, match=r"other\.nii"):
        inversion.Agreement(in_files=files, in_mask=mask).run()


def test_medi_makes_chi_uniform_in_the_csf(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csf = np.zeros((20, 20, 20))
    csf[8:12, 8:12, 8:12] = 1
    write(tmp_path / "csf.nii", csf)

    def spread(**more):
        found = nib.load(inversion.MEDI(**inputs, **more).run().outputs.out_file).get_fdata()
        return found[csf > 0].std(), abs(found[csf > 0].mean())

    with_csf = spread(in_csf=str(tmp_path / "csf.nii"), out_file="zero.nii")
    assert with_csf[0] < 0.8 * spread()[0]
    assert with_csf[1] < 1e-6
