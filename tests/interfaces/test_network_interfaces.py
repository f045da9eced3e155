"""The network nodes: geometry kept, orientation undone, refusals in a sentence."""

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations

from qsm_nipype.errors import DataError, WeightsError
from qsm_nipype.interfaces.networks import QSMGAN, Deepbet, QSMMaskNet
from qsm_nipype.models import mask, registry
from qsm_nipype.models.mask import MaskNet
from qsm_nipype.models.qsmgan import Generator
from qsm_nipype.models.weights import save


def _write(path, data, affine=None):
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(tmp_path / "g.safetensors", Generator(2, 2).state_dict(), {})
    save(tmp_path / "m.safetensors", MaskNet().state_dict(), {})
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 20, 28), np.uint8)
    mask[4:20, 4:16, 4:24] = 1
    field = (0.02 * rng.standard_normal(mask.shape)).astype(np.float32)
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (5, -7, 9)
    return {
        "field": _write(tmp_path / "field.nii.gz", field, affine),
        "mask": _write(tmp_path / "mask_in.nii.gz", mask, affine),
        "affine": affine,
        "weights": str(tmp_path / "g.safetensors"),
        "mask_weights": str(tmp_path / "m.safetensors"),
        "tmp": tmp_path,
    }


def test_qsmgan_writes_chi_in_the_geometry_of_the_field(case):
    node = QSMGAN(in_file=case["field"], in_mask=case["mask"], weights=case["weights"], patch=32)
    out = nib.load(node.run().outputs.out_file)
    inside = nib.load(case["mask"]).get_fdata() > 0
    assert np.allclose(out.affine, case["affine"]) and out.get_data_dtype() == np.float32
    assert np.isfinite(out.get_fdata()).all() and not out.get_fdata()[~inside].any()


def test_qsmgan_takes_its_parameters_to_the_function(case):
    images = []
    for weight in (0.01, 1e6):
        node = QSMGAN(
            in_file=case["field"],
            in_mask=case["mask"],
            weights=case["weights"],
            patch=32,
            consistency=weight,
        )
        images.append(nib.load(node.run().outputs.out_file).get_fdata())
    assert np.abs(images[0] - images[1]).max() > 1e-4


def test_without_weights_it_says_how_to_get_some(case, monkeypatch):
    monkeypatch.setattr(registry, "shipped", lambda name: False)
    with pytest.raises(WeightsError, match=r"train qsmgan OUT.*--weights qsmgan=PATH"):
        QSMGAN(in_file=case["field"], in_mask=case["mask"]).run()
    with pytest.raises(WeightsError, match=r"train mask OUT.*--weights mask=PATH"):
        QSMMaskNet(in_magnitude=case["field"]).run()


def test_a_folder_of_weights_counts_by_its_files(tmp_path):
    from qsm_nipype.interfaces.segmentation import Dentate

    (tmp_path / "fold_0").mkdir()
    weights = tmp_path / "fold_0" / "checkpoint.pth"
    weights.write_bytes(b"one")
    values = []
    for content in (b"one", b"three"):
        weights.write_bytes(content)
        values.append(Dentate(weights=str(tmp_path)).inputs.get_hashval()[1])
    assert values[0] != values[1]


def test_a_mask_on_another_grid_is_refused(case):
    other = _write(case["tmp"] / "other.nii.gz", np.ones((24, 20, 28), np.uint8))
    with pytest.raises(DataError, match="other.nii.gz: its grid .* differs from that of"):
        QSMGAN(in_file=case["field"], in_mask=other, weights=case["weights"]).run()


def test_mask_does_not_depend_on_how_the_axes_are_stored(case):
    """The same head stored RAS+ and as (I, L, A): the masks are the same voxels in space."""
    rng = np.random.default_rng(1)
    data = rng.random((32, 36, 40)).astype(np.float32)
    data[8:24, 8:28, 8:32] += 3
    ras = nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]))
    ornt = nib.orientations.axcodes2ornt("ILA")
    turned = ras.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(ras.affine), ornt)
    )
    masks = []
    for name, image in (("a.nii.gz", ras), ("b.nii.gz", turned)):
        nib.save(image, case["tmp"] / name)
        path = str(case["tmp"] / name)
        node = QSMMaskNet(in_magnitude=path, weights=case["mask_weights"], threshold=0.5)
        out = nib.load(node.run().outputs.out_mask)
        assert np.allclose(out.affine, image.affine)
        masks.append(nib.as_closest_canonical(out).get_fdata())
    assert np.array_equal(masks[0], masks[1])


def test_deepbet_returns_to_the_geometry_of_the_input(case, monkeypatch):
    """Its network replaced by a threshold: whatever the orientation, the same voxels."""
    deepbet = pytest.importorskip("deepbet")
    seen = []

    class Threshold:
        def __init__(self, no_gpu):
            assert no_gpu

        def run_model(self, image):
            seen.append(image.shape)
            return (image > 50).astype(np.float32)

    monkeypatch.setattr(deepbet, "BrainExtraction", Threshold)
    image = np.zeros((24, 20, 28), np.float32)
    image[5:19, 5:15, 3:20] = 100
    affine = np.array([[0, 0, -1.0, 4], [2.0, 0, 0, 1], [0, 3.0, 0, -2], [0, 0, 0, 1]])
    path = _write(case["tmp"] / "mag.nii", image, affine)
    out = nib.load(Deepbet(in_magnitude=path).run().outputs.out_mask)
    assert np.array_equal(out.get_fdata() > 0, image > 0) and np.allclose(out.affine, affine)
    assert seen == [(28, 24, 20)]


def test_the_mask_does_not_depend_on_the_stored_orientation(case, monkeypatch):
    """Turned and mirrored storage of anisotropic voxels gives the same voxels of the body."""
    monkeypatch.setattr(mask, "load_network", lambda weights: (_Brightness(), 2.0))
    rng = np.random.default_rng(1)
    image = rng.random((24, 20, 30)).astype(np.float32)
    image[5:19, 5:15, 3:24] += 8
    reference = nib.Nifti1Image(image, np.diag([1.5, 2.0, 3.0, 1.0]))
    masks = []
    for axes in ("RAS", "LPI", "SRA", "PIL"):
        turn = orientations.ornt_transform(
            orientations.io_orientation(reference.affine), orientations.axcodes2ornt(axes)
        )
        turned = reference.as_reoriented(turn)
        path = str(case["tmp"] / f"{axes}.nii")
        nib.save(turned, path)
        node = QSMMaskNet(in_magnitude=path, weights=case["mask_weights"])
        found = nib.load(node.run().outputs.out_mask)
        assert np.allclose(found.affine, turned.affine)
        masks.append(nib.as_closest_canonical(found).get_fdata() > 0)
    assert masks[0].any() and all(np.array_equal(masks[0], m) for m in masks[1:])


class _Brightness(torch.nn.Module):
    """Answers with its input above one half, weighted towards the right, front and top."""

    def forward(self, x):
        ramps = torch.meshgrid(*(torch.linspace(0, 1, n) for n in x.shape[2:]), indexing="ij")
        return 20 * (x - 0.5) - 12 * (ramps[0] + 2 * ramps[1] + 3 * ramps[2] - 3).clamp_min(0)
