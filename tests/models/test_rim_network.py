"""QSMRim-Net: layout, oversampling, weights, and what becomes of each lesion."""

import numpy as np
import pytest
import torch

from qsm_nipype.errors import WeightsError
from qsm_nipype.models import radiomics, registry, rim, weights
from qsm_nipype.models.rim_table import COLUMNS, classify, is_clear

needed = pytest.mark.skipif(not radiomics.available(), reason="PyRadiomics is not installed")
NAMES = ("original_firstorder_Mean", "original_shape_VoxelVolume", "original_glcm_Contrast")


def classifier(threshold=0.5, seed=0):
    torch.manual_seed(seed)
    network = rim.RimNet(2, len(NAMES)).eval()
    return rim.Classifier(network, NAMES, torch.zeros(3), torch.ones(3), threshold)


def test_the_published_layout_has_the_published_size_and_names():
    network = rim.RimNet()
    assert sum(p.numel() for p in network.parameters()) == 34_843_649
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert shapes["encoder.conv1.weight"] == (64, 2, 7, 7, 7)
    assert shapes["encoder.layer4.0.downsample.0.weight"] == (512, 256, 1, 1, 1)
    assert shapes["encode_rad.0.weight"] == (1024, 527)
    assert shapes["smote.fea_transform.4.running_mean"] == (512,)
    assert shapes["classifier.3.weight"] == (1, 128)
    stages = [network.encoder.get_submodule(f"layer{n}.0.conv1").stride[0] for n in (1, 2, 3, 4)]
    assert stages == [1, 2, 2, 1]


def test_synthetic_positives_lie_on_segments_between_positives():
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    labels = (torch.arange(20) < 5).double()
    more, both = rim.oversample(latent, labels, neighbours=2, generator=generator)
    assert len(more) == 20 + 5 * 2 and torch.equal(more[:20], latent)
    assert both[20:].eq(1).all()
    positives = latent[:5]
    nearest = torch.cdist(positives, positives).argsort(dim=1)[:, 1:3]
    for k, point in enumerate(more[20:]):
        a, b = positives[k // 2], positives[nearest[k // 2, k % 2]]
        alpha = float((point - a) @ (b - a) / (b - a).square().sum())
        assert 0 <= alpha <= 1
        assert torch.allclose(point, a + alpha * (b - a), atol=1e-12)


def test_few_positives_are_not_multiplied():
    latent, labels = torch.randn(8, 4), torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])
    assert rim.oversample(latent, labels)[0] is latent


def test_gradients_reach_the_latent_space_through_synthetic_samples():
    latent = torch.randn(6, 4, requires_grad=True)
    more, _ = rim.oversample(latent, torch.ones(6))
    more[6:].sum().backward()
    assert latent.grad.abs().sum(dim=1).gt(0).all()


def test_both_branches_count_and_can_be_left_out():
    images, features = torch.randn(3, 2, 28, 28, 28), torch.randn(3, 5)
    whole = rim.RimNet(2, 5).eval()
    assert whole(images, features).shape == (3,)
    assert not torch.equal(whole(images, features), whole(images, features + 1))
    only = rim.RimNet(2, 5, radiomics=False).eval()
    assert torch.equal(only(images, features), only(images, features + 1))
    only = rim.RimNet(2, 5, image=False).eval()
    assert torch.equal(only(images, features), only(images + 1, features))


def test_weights_survive_the_file_with_names_normalisation_and_threshold(tmp_path):
    own = classifier()
    tensors = {**own.network.state_dict(), "features.mean": torch.arange(3.0),
               "features.scale": torch.ones(3) * 2}  # fmt: skip
    about = {"features": " ".join(NAMES), "threshold": "0.37"}
    weights.save(tmp_path / "rim.safetensors", tensors, about)
    read = rim.load_network(registry.read_weights("rim", tmp_path / "rim.safetensors"))
    assert read.names == NAMES and read.threshold == 0.37
    assert read.mean.tolist() == [0, 1, 2] and read.scale.tolist() == [2, 2, 2]
    for name, tensor in own.network.state_dict().items():
        assert torch.allclose(read.network.state_dict()[name], tensor, atol=1e-3), name


def test_a_published_checkpoint_loads_and_others_are_refused(tmp_path):
    network = rim.RimNet(4, 3)
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    read = rim.load_network(weights.read(tmp_path / "published.pth"), NAMES)
    assert torch.equal(read.network.classifier[0].weight, network.classifier[0].weight)
    with pytest.raises(WeightsError, match="names its features"):
        rim.load_network(weights.read(tmp_path / "published.pth"))
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not the weights of a QSMRim-Net"):
        rim.load_network(weights.read(tmp_path / "other.pth"))


def test_mirror_images_have_the_same_probability():
    own = classifier()
    chi, flair = 0.1 * torch.randn(2, 28, 28, 28), torch.rand(2, 28, 28, 28)
    features = torch.randn(2, 3)
    first = own.probability(chi, flair, features)
    assert ((first > 0) & (first < 1)).all()
    assert own.probability(chi[:0], flair[:0], features[:0]).shape == (0,)


def scene():
    rng = np.random.default_rng(0)
    chi = rng.normal(0, 0.02, (60, 50, 40)).astype(np.float32)
    flair = 100 + rng.normal(0, 5, chi.shape).astype(np.float32)
    known = np.zeros(chi.shape, bool)
    known[5:-5, 5:-5, 5:-5] = True
    instances = np.zeros(chi.shape, np.int32)
    instances[20:28, 20:27, 15:22] = 1
    instances[40:45, 30:36, 20:26] = 2
    instances[35, 12, 12] = 3  # one voxel
    instances[0:4, 0:4, 0:4] = 4  # outside the brain
    instances[3:9, 40:44, 30:34] = 6  # partly, and 5 is missing
    return chi * known, flair, known, instances


@needed
def test_every_lesion_has_its_row_and_the_reason_why_it_was_not_classified():
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -30, -25, -20
    found = classify(*scene(), affine, classifier(), min_volume=10.0)
    rows = {row.lesion.index: row for row in found.rows}
    assert sorted(rows) == [1, 2, 3, 4, 6]
    assert rows[1].rim is not None and rows[2].rim is not None and not rows[1].note
    assert rows[3].rim is None and "smaller than 10 mm³" in rows[3].note
    assert rows[4].rim is None and "outside the mask" in rows[4].note
    assert "known in" in rows[6].note
    assert rows[1].place == pytest.approx((-6.5, -2.0, -2.0))
    assert found.notes[0].startswith("1 of 5 lesions are smaller than 10 mm³")
    assert len(found.warnings) == 1 and found.warnings[0].startswith("1 of 5 lesions are outside")
    lines = found.tsv().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert all(len(line.split("\t")) == len(COLUMNS) for line in lines)
    assert found.numbers()["lesions"]["value"] == 5


def test_indeterminate_is_nearer_to_the_threshold_than_to_both_ends():
    for threshold in (0.2, 0.5, 0.8627):
        for chance in np.linspace(0.005, 0.995, 100):
            nearest = chance if chance < threshold else 1 - chance
            assert is_clear(chance, threshold) == (nearest <= abs(chance - threshold))


@needed
def test_the_table_says_which_decisions_are_indeterminate():
    found = classify(*scene(), np.eye(4), classifier(0.5), min_volume=10.0)
    for row in found.rows:
        known = row.probability is not None
        assert row.certainty == (
            "n/a" if not known else "clear" if is_clear(row.probability, 0.5) else "indeterminate"
        )
    number = sum(row.certain is False for row in found.rows)
    said = [note for note in found.notes if "indeterminate" in note]
    assert len(said) == (number > 0) and all(s.startswith(f"{number} of 3 classif") for s in said)


@needed
def test_the_threshold_decides():
    found = classify(*scene(), np.eye(4), classifier(0.0), min_volume=10.0)
    assert found.rims == sum(row.rim is not None for row in found.rows) == 3
    assert classify(*scene(), np.eye(4), classifier(1.1), min_volume=10.0).rims == 0


@needed
def test_storage_order_does_not_matter():
    chi, flair, known, instances = scene()
    first = classify(chi, flair, known, instances, np.eye(4), classifier(), min_volume=10.0)
    turned = [np.ascontiguousarray(v.transpose(2, 0, 1)[:, ::-1])
              for v in (chi, flair, known, instances)]  # fmt: skip
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 2] = affine[3, 3] = 1
    affine[0, 1], affine[0, 3] = -1, chi.shape[0] - 1
    again = classify(*turned, affine, classifier(), min_volume=10.0)
    for one, other in zip(first.rows, again.rows, strict=True):
        assert one.place == pytest.approx(other.place)
        assert one.probability == pytest.approx(other.probability, abs=1e-4)


@needed
def test_no_lesions_make_an_empty_table():
    chi, flair, known, instances = scene()
    found = classify(chi, flair, known, 0 * instances, np.eye(4), classifier(), min_volume=10.0)
    assert found.rows == () and found.tsv().count("\n") == 1 and not found.warnings


@needed
@pytest.mark.skipif(not registry.shipped("rim"), reason="no rim weights are shipped")
def test_the_shipped_network_tells_a_clear_rim_from_a_bright_lesion():
    rng = np.random.default_rng(0)
    chi = rng.normal(0, 0.005, (64, 64, 64)).astype(np.float32)
    flair = np.ones(chi.shape, np.float32)
    instances = np.zeros(chi.shape, np.int32)
    for number, center in enumerate(((18, 32, 32), (46, 32, 32)), start=1):
        grid = np.indices(chi.shape) - np.reshape(center, (3, 1, 1, 1))
        depth = 5.5 - np.sqrt((grid**2).sum(0))
        inside = 1 / (1 + np.exp(-depth / 0.4))
        chi += inside * (0.09 * np.exp(-((depth - 0.9) ** 2)) if number == 1 else 0.03)
        flair += 0.8 * inside
        instances[depth > -0.3] = number
    known = np.ones(chi.shape, bool)
    own = rim.load_network(registry.read_weights("rim"))
    with_rim, without = rim.predict_rims(chi, flair, known, instances, np.eye(4), own)
    assert with_rim > own.threshold > without
