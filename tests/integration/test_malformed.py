"""Whatever is given, a command ends soon with 0, 1 or 2 and a sentence, and others come through.

QSM_NIPYPE_FUZZ=N draws N malformed files of each kind instead of a few, with seeds from
QSM_NIPYPE_FUZZ_SEED on.
"""

import io
import json
import os
import re
import resource
import shutil
import signal
import zipfile
from contextlib import contextmanager
from pathlib import Path

import malformed
import pytest
import torch

from qsm_nipype import cli
from qsm_nipype.errors import QSMError, WeightsError
from qsm_nipype.execution import state, status
from qsm_nipype.models import registry, weights
from qsm_nipype.run import participant

SECONDS, MEGABYTES = 10, 1500
DRAWN = int(os.environ.get("QSM_NIPYPE_FUZZ", "12"))
FIRST = int(os.environ.get("QSM_NIPYPE_FUZZ_SEED", "1"))
SEEDS = range(FIRST, FIRST + DRAWN)

IMAGES, SIDECARS, NAMES = (
    dict(made()) for made in (malformed.image_cases, malformed.sidecar_cases, malformed.name_cases)
)


@contextmanager
def bounds():
    """Fails what hangs, and what takes memory that nobody declared."""

    def late(*_):
        raise AssertionError(f"hung for {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert taken < MEGABYTES


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return malformed.make_dataset(tmp_path_factory.mktemp("good") / "bids")


@pytest.fixture
def command(template, tmp_path, monkeypatch, capsys):
    """Runs a dry run on a copy that `spoil` has spoilt: the exit code and what was said."""
    monkeypatch.setattr(participant, "check_programs", lambda settings: None)  # weights: see below

    def run(spoil=None, *options):
        bids = Path(shutil.copytree(template, tmp_path / "bids"))
        if spoil is not None:
            spoil(bids)
        line = [str(bids), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
        with bounds():
            try:
                code = cli.main([*line, "--dry-run", *options])
            except SystemExit as end:  # argparse
                code = end.code
        said = "".join(capsys.readouterr())
        assert code in (0, 1, 2) and "Traceback" not in said
        return code, said

    return run


def check_one_ended(code: int, said: str) -> None:
    """Whatever became of sub-01, sub-02 is processed; what was refused has a file and a cure."""
    assert code in (0, 1)
    assert re.search(r"^  sub-02: 3 T, TE 5, 10 ms, 16×16×12", said, re.M), said
    refused = re.findall(r"^  sub-01\S*: NOT PROCESSED: (.*)$", said, re.M)
    assert len(refused) == said.count("NOT PROCESSED") and (code == 1) == bool(refused)
    for sentence in refused:  # what, why, and a cure
        assert re.search(r"sub-01|MEGRE", sentence) and re.search(r"; |: (copy|get) ", sentence)


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_of_any_kind_ends_one_acquisition(command, case):
    check_one_ended(*command(IMAGES[case]))


@pytest.mark.parametrize("case", SIDECARS)
def test_a_sidecar_of_any_kind_ends_one_acquisition(command, case):
    check_one_ended(*command(SIDECARS[case]))


@pytest.mark.parametrize("case", NAMES)
def test_a_name_or_folder_of_any_kind_ends_one_acquisition(command, case):
    try:
        check_one_ended(*command(NAMES[case]))
    except OSError as exc:
        pytest.skip(f"the file system does not take the name: {exc}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ending", [".nii", ".json"])
def test_drawn_damage_ends_one_acquisition(command, seed, ending):
    def spoil(root):
        path = root / f"{malformed.PHASE}{ending}"
        data = path.read_bytes()
        head, rest = (data[:400], data[400:]) if ending == ".nii" else (data, b"")
        path.write_bytes(malformed.fuzzed(head, seed) + rest)

    check_one_ended(*command(spoil))


@pytest.mark.parametrize("case", [*malformed.CONFIGS, *malformed.CONFIG_BYTES])
@pytest.mark.parametrize("option", ["--config-file", "--use-plugin"])
def test_a_configuration_of_any_kind_is_taken_or_refused(command, tmp_path, case, option):
    file = tmp_path / "settings.yml"
    data = malformed.CONFIG_BYTES.get(case) or malformed.CONFIGS[case].encode()
    file.write_bytes(data)
    code, said = command(None, option, str(file))
    if option == "--config-file":
        assert code == 2, said
        assert said.count("\n") <= 3 and len(said) < 1000
        return
    from qsm_nipype.execution.plugin import plugin_settings

    with bounds(), pytest.raises(QSMError, match="settings.yml"):
        plugin_settings(user_file=file)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_configuration_is_taken_or_refused(command, tmp_path, seed):
    file = tmp_path / "settings.yml"
    text = "mask: quality&net:dilate:2\ninversion: [whtv, tkd]\nmem: 4.0\nnprocs: 2\n"
    text += "parameters: {inversion.whtv: {regularization: 4.0e-4}}\nwork_dir: work\n"
    file.write_bytes(malformed.fuzzed(text.encode(), seed))
    command(None, "--config-file", str(file))


@pytest.mark.parametrize("kind", ["pipe", "folder", "absent", "device"])
@pytest.mark.parametrize("option", ["--config-file", "--bids-filter-file"])
def test_a_configuration_that_is_no_file_is_refused(command, tmp_path, kind, option):
    file = tmp_path / "settings"
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "absent": str}
    make.get(kind, lambda p: p.symlink_to("/dev/zero"))(file)
    code, said = command(None, option, str(file))
    assert code == 2 and "settings" in said


@pytest.mark.parametrize("case", malformed.FILTERS)
def test_a_filter_of_any_kind_is_taken_or_refused(command, tmp_path, case):
    file = tmp_path / "filter.json"
    file.write_text(malformed.FILTERS[case])
    code, said = command(None, "--bids-filter-file", str(file))
    assert code == 2 or "sub-02" in said


@pytest.mark.parametrize("kind", ["masks", "reference", "segmentation", "lesions", "chi"])
@pytest.mark.parametrize("case", ["empty", "text", "one byte", "dim0=15", "srow_x=nan", "a pipe"])
def test_own_files_of_any_kind_end_what_needs_them(command, tmp_path, template, kind, case):
    own = Path(shutil.copytree(template, tmp_path / "own"))
    IMAGES[case](own)
    code, said = command(None, "-d", f"{kind}={own / malformed.PHASE}.nii")
    assert code in (0, 1, 2) and said


# ---- weights and models ----------------------------------------------------------------------


def _archive(entries, compression=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _saved(content) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


PLAN = {"configurations": {"3d_fullres": {"patch_size": [16, 16, 16], "spacing": [2, 2, 2]}}}
LABELS = {"labels": {"background": 0, "left": 1}}


def _model(plan=PLAN, labels=LABELS, weights=None, text=None, **pack) -> bytes:
    content = {"network_weights": weights or {"a": torch.ones(2)},
               "init_args": {"configuration": "3d_fullres"}}  # fmt: skip
    files = {"plans.json": text or json.dumps(plan), "dataset.json": json.dumps(labels)}
    return _archive({**files, "fold_0/checkpoint_final.pth": _saved(content)}, **pack)


def _with(**change):
    return {"configurations": {"3d_fullres": {**PLAN["configurations"]["3d_fullres"], **change}}}


CHECKPOINTS = {
    "empty": lambda: b"",
    "noise": lambda: bytes(range(256)) * 9,
    "a bomb": lambda: _archive({"a/data.pkl": bytes(60_000_000)}, zipfile.ZIP_DEFLATED),
    "bzip2": lambda: _archive({"a/data.pkl": b"x" * 9999}, zipfile.ZIP_BZIP2),
    "a checkpoint without tensors": lambda: _saved({"a": 1}),
    "a list": lambda: _saved([1, 2]),
    "not a number": lambda: _saved({"a": torch.full((2, 2), float("nan"))}),
    "spread tensors": lambda: _saved({"a": torch.ones(1).expand(10**12)}),
    "sparse": lambda: _saved({"a": torch.ones(3, 3).to_sparse()}),
    "another network": lambda: _saved({"a": torch.ones(2, 2)}),
    "legacy": lambda: b"\x80\x02" + bytes(500),
    "a tar": lambda: b"storages\0" + bytes(600),
    "a deep pickle": lambda: b"\x80\x02" + b"(" * 100_000 + b".",
    "cut short": lambda: _saved({"a": torch.ones(99, 99)})[:-3000],
}
TENSORS = {
    "long header": lambda: (2**60).to_bytes(8, "little") + b"{}",
    "deep header": lambda: (10**5).to_bytes(8, "little") + b"[" * 10**5,
    "huge shape": lambda: _tensor_file(
        '{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    ),  # fmt: skip
    "bad metadata": lambda: _tensor_file('{"__metadata__":{"a":1}}'),
    "no kind": lambda: _tensor_file('{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}'),
}
MODELS = {
    "no entries": lambda: _archive({}),
    "bomb": lambda: _model(text=" " * 60_000_000, compression=zipfile.ZIP_DEFLATED),
    "deep": lambda: _model(text="[" * 10**5),
    "a list": lambda: _model(text="[]"),
    "no plan": lambda: _model({}),
    "inherits from itself": lambda: _model(_with(inherits_from="3d_fullres")),
    "inherits from nothing": lambda: _model(_with(inherits_from="x")),
    "inherits from a list": lambda: _model(_with(inherits_from=["x"])),
    "large patch": lambda: _model(_with(patch_size=[4096] * 3)),
    "flat patch": lambda: _model(_with(patch_size=[16, 16])),
    "no patch": lambda: _model(_with(patch_size=[0, 16, 16])),
    "fine voxels": lambda: _model(_with(spacing=[0.001] * 3)),
    "voxels of noise": lambda: _model(_with(spacing=["a", None, 1])),
    "endless voxels": lambda: _model(_with(spacing=[float("inf")] * 3)),
    "wide network": lambda: _model(_with(architecture={"arch_kwargs": {"features": [10**9]}})),
    "long network": lambda: _model(_with(architecture={"arch_kwargs": {"a": [1] * 10**4}})),
    "labels of noise": lambda: _model(labels={"labels": [1]}),
    "no labels": lambda: _model(labels={"labels": {}}),
    "not a number": lambda: _model(weights={"a": torch.full((2,), float("inf"))}),
    "spread tensors": lambda: _model(weights={"a": torch.ones(1).expand(10**13)}),
    "outside": lambda: _archive({"../plans.json": "{}", "dataset.json": "{}"}),
}


def _tensor_file(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + bytes(4)


def check_refused(network: str, file: Path) -> None:
    with bounds(), pytest.raises(WeightsError) as refusal:
        registry.check(network, file)
    said = str(refusal.value)
    assert file.name in said and re.search("[;:] ", said) and "\n" not in said


@pytest.mark.parametrize("network", ["mask", "qsmgan"])
@pytest.mark.parametrize("case", [*CHECKPOINTS, *TENSORS])
def test_weights_of_any_kind_are_refused_in_a_sentence(tmp_path, network, case):
    file = tmp_path / ("w.pt" if case in CHECKPOINTS else "w.safetensors")
    file.write_bytes({**CHECKPOINTS, **TENSORS}[case]())
    check_refused(network, file)


@pytest.mark.parametrize("case", [*CHECKPOINTS, *MODELS])
def test_models_of_any_kind_are_refused_in_a_sentence(tmp_path, case):
    file = tmp_path / "model.zip"
    file.write_bytes({**CHECKPOINTS, **MODELS}[case]())
    check_refused("dentate", file)


@pytest.mark.parametrize("network", ["mask", "dentate"])
def test_weights_that_are_no_file_are_refused(tmp_path, network):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    (folder / "fold_0").mkdir(parents=True)
    os.mkfifo(folder / "net_best.pt")
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        os.mkfifo(folder / name)
    for place in (pipe, folder):
        with bounds(), pytest.raises(WeightsError):
            registry.check(network, place)


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_damage_to_weights_is_refused_or_harmless(tmp_path, seed):
    weights.save(tmp_path / "w.safetensors", {"a": torch.ones(4, 4)}, {"seed": "1"})
    (tmp_path / "w.pt").write_bytes(_saved({"a": torch.ones(4, 4)}))
    (tmp_path / "m.zip").write_bytes(_model())
    for name, network in (("w.safetensors", "mask"), ("w.pt", "mask"), ("m.zip", "dentate")):
        file = tmp_path / name
        file.write_bytes(malformed.fuzzed(file.read_bytes(), seed))
        with bounds():
            try:
                registry.check(network, file)
            except WeightsError as refusal:
                assert name in str(refusal)


# ---- what a run left behind ------------------------------------------------------------------

GARBAGE = {
    "empty": b"",
    "noise": bytes(range(256)),
    "deep": b"[" * 10**5,
    "a list": b"[1]",
    "no columns": b"\n\n\n",
    "other columns": b"a\tb\n1\t2\n",
    "too few fields": b"participant_id\tacquisition\tmean\nsub-01\n",
    "too many fields": b"participant_id\tacquisition\nsub-01\tsub-01\t3\t4\t5\n",
    "text for numbers": b"participant_id\tacquisition\tmean\nsub-01\tsub-01\tmany\n",
    "a long field": b"participant_id\tacquisition\tx\nsub-01\tsub-01\t" + b"x" * 200_000 + b"\n",
    "a wrong name": b"participant_id\tacquisition\nsub-09\tnonsense\n",
    "zeros": bytes(500),
}
PLACES = ("sub-01/anat/sub-01_desc-qc_metrics.tsv", "sub-01/anat/sub-01_desc-qc_metrics.json",
          "sub-01/anat/sub-01_desc-regions_stats.tsv", "logs/state/sub-01.json",
          "logs/records/files/sub-01.json")  # fmt: skip


def make_results(out: Path) -> None:
    """What `group` and `status` read of two participants."""
    for sub in ("01", "02"):
        anat = out / f"sub-{sub}" / "anat"
        anat.mkdir(parents=True)
        row = f"participant_id\tacquisition\tsnr\nsub-{sub}\tsub-{sub}\t20\n"
        for kind in ("desc-qc_metrics", "desc-regions_stats"):
            (anat / f"sub-{sub}_{kind}.tsv").write_text(row)
            words = {"snr": {"Description": "signal to noise", "Units": "1"}}
            (anat / f"sub-{sub}_{kind}.json").write_text(json.dumps(words))
        verdicts = [{"acquisition": f"sub-{sub}", "light": "green"}]
        state.write(out, f"sub-{sub}", "done", verdicts=verdicts)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", GARBAGE)
def test_damaged_results_of_one_do_not_cost_the_group(tmp_path, capsys, case, place):
    out = tmp_path / "out"
    make_results(out)
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    (out / place).write_bytes(GARBAGE[case])
    with bounds():
        assert cli.main([str(tmp_path), str(out), "group"]) in (0, 1)
        assert status.main([str(out), "--verify"]) in (0, 1)
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    table = (out / "group_desc-qc_metrics.tsv").read_text()
    assert "sub-02\t" in table


@pytest.mark.parametrize("case", GARBAGE)
def test_files_of_noise_are_no_dicom(tmp_path, case):
    (tmp_path / "dicom").mkdir()
    start = b"" if case == "empty" else bytes(128) + b"DICM"
    (tmp_path / "dicom" / "1.dcm").write_bytes(start + GARBAGE[case])
    line = ["convert", str(tmp_path / "dicom"), str(tmp_path / "b"), "--participant-label", "01"]
    with bounds():
        assert cli.main(line) == 2
