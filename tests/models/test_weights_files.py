"""Weight files: checksum, half precision, foreign checkpoints, and every way to fail."""

import json
import pickle

import pytest
import torch

from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models import registry, rim, weights
from qsm_nipype.models.mask import MaskNet
from qsm_nipype.models.qsmgan import Generator, load_network


def test_half_precision_on_disk_float32_in_memory(tmp_path):
    torch.manual_seed(0)
    network = Generator(4, 2)
    checksum = weights.save(tmp_path / "w.safetensors", network.state_dict(), {"seed": "0"})
    assert checksum == weights.digest(tmp_path / "w.safetensors")
    found = weights.read(tmp_path / "w.safetensors", checksum)
    assert found.about == {"seed": "0"}
    floats = [t for t in found.tensors.values() if t.is_floating_point()]
    assert all(t.dtype == torch.float32 for t in floats)
    for name, t in network.state_dict().items():
        assert torch.allclose(found.tensors[name].float(), t.float(), rtol=1e-3, atol=1e-7)
    small = Generator(4, 2)
    weights.fill(small, found)
    assert not small.training


def test_shipped_sizes_stay_within_their_limits(tmp_path):
    weights.save(tmp_path / "g.safetensors", Generator().state_dict(), {})
    weights.save(tmp_path / "m.safetensors", MaskNet().state_dict(), {})
    assert (tmp_path / "g.safetensors").stat().st_size < 6e6
    assert (tmp_path / "m.safetensors").stat().st_size < 15e6


def test_a_changed_byte_is_noticed_before_decoding(tmp_path):
    path = tmp_path / "w.safetensors"
    checksum = weights.save(path, {"a": torch.ones(3, 3)}, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"w\.safetensors: the checksum"):
        weights.read(path, checksum)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x08\0\0\0\0\0\0\0nonsense and more")
    with pytest.raises(WeightsError, match=name):
        weights.read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        weights.read(tmp_path / "none.pt")


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was executed",))


def test_pickled_code_is_not_executed(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(_Trap(), protocol=2))
    with pytest.raises(WeightsError, match="code in it is not run"):
        weights.read(tmp_path / "w.pt")
    torch.save({"netG": _Trap()}, tmp_path / "v.pt")
    with pytest.raises(WeightsError, match="code in it is not run"):
        weights.read(tmp_path / "v.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_published_folder_loads_with_its_scales_and_opposite_sign(tmp_path, zipped):
    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in Generator().state_dict().items()}
    content = {"epoch": 3, "netG": state, "netD": None, "val_loss": 0.1}
    torch.save(content, tmp_path / "net_best.pt", _use_new_zipfile_serialization=zipped)
    settings = {"dset_args": {"input_scale": 100, "output_scale": 10, "output_transform": "tanh"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = load_network(weights.read(tmp_path))
    assert (found.input_scale, found.output_scale) == (-100.0, 10.0)


def test_a_broken_configuration_is_named(tmp_path):
    torch.save({"netG": Generator(2, 1).state_dict()}, tmp_path / "net_best.pt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        weights.read(tmp_path)


def test_bare_monai_weights_load(tmp_path):
    torch.save(MaskNet().state_dict(), tmp_path / "mask.pth")
    assert not weights.fill(MaskNet(), weights.read(tmp_path / "mask.pth")).training


def test_infinite_and_foreign_weights_are_refused():
    network = MaskNet()
    state = network.state_dict() | {"final_conv.bias": torch.tensor([float("nan")])}
    with pytest.raises(WeightsError, match="not finite"):
        weights.fill(network, weights.Weights(state, {}, "w"))
    with pytest.raises(WeightsError, match="another network"):
        weights.fill(network, weights.Weights({"a": torch.zeros(1)}, {}, "w"))


def test_every_network_is_described_and_its_shipped_weights_fit():
    for name, entry in registry.NETWORKS.items():
        assert entry.inputs and entry.orientation and entry.training and entry.citation
        read = registry.read_weights if entry.module else registry.read_nnunet
        if not registry.shipped(name):
            cure = f"train {name} OUT.*{entry.option}" if entry.option else "install"
            with pytest.raises(WeightsError, match=cure):
                read(name)
            continue
        assert (weights.FOLDER / entry.file).with_suffix(".md").is_file()
        if name in ("rim", "qsmgan"):  # the file holds the width, or the number of channels
            load = rim.load_network if name == "rim" else load_network
            assert load(read(name)).network is not None
        elif entry.module:
            weights.fill(entry.build(), read(name))
        else:
            patch = [n * entry.voxel_size for n in entry.patch]
            assert list(read(name).extent) == patch
    with pytest.raises(UsageError, match="choose one of .*mask, qsmgan"):
        registry.find("unet")
