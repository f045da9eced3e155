"""What is said before a run: nothing to do, memory, small heads, what was found."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import cli
from qsm_nipype.run import participant


def write(root: Path, name: str, shape=(64, 64, 40), edge=3.0, **metadata) -> Path:
    """An image of zeros, which takes no room on the disk, and its sidecar, below sub-XX/anat."""
    path = root / name.split("_")[0] / "anat" / f"{name}.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.diag([edge, edge, edge, 1]))
    image.header.set_data_shape(shape)
    with path.open("wb") as stream:
        image.header.write_to(stream)
        stream.truncate(352 + 2 * int(np.prod(shape)))
    content = {"MagneticFieldStrength": 3, **metadata}
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


def pair(root: Path, sub: str, echoes=1, **size) -> None:
    for e in range(1, echoes + 1):
        for part in ("mag", "phase"):
            write(root, f"{sub}_echo-{e}_part-{part}_MEGRE", EchoTime=0.005 * e, **size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    bids = tmp_path / "bids"
    bids.mkdir()
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return bids


def run(root: Path, *options) -> int:
    line = [str(root), str(root.parent / "out"), "participant", "-w", str(root.parent / "work")]
    return cli.main([*line, "--skip-bids-validation", "--mem", "30", *options])


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Labels that reached the graph, which is not run."""
    labels: list[str] = []

    def execute(settings, acquisitions):
        labels.extend(a.label for a in acquisitions)
        return []

    monkeypatch.setattr(participant, "execute", execute)
    return labels


def idle_ones(root: Path) -> None:
    pair(root, "sub-01")
    write(root, "sub-01_rec-norm_echo-1_part-mag_MEGRE", EchoTime=0.005)
    write(root, "sub-02_T1w")
    write(root, "sub-03_T1w")


def test_nothing_to_do_is_said_and_is_no_failure(root, executed, capsys, monkeypatch):
    monkeypatch.setattr("qsm_nipype.run.output.write_reports", lambda *_: None)
    idle_ones(root)
    assert run(root, "--dry-run") == 0
    said = capsys.readouterr().out
    assert (
        "sub-01_rec-norm: nothing to do: sub-01_rec-norm_echo-1_part-mag_MEGRE.nii: there" in said
    )
    assert "sub-02, sub-03: nothing to do: no gradient-echo images" in said
    run(root)
    assert "sub-02, sub-03: nothing to do: no gradient-echo" in capsys.readouterr().err
    assert executed == ["sub-01"]


def test_participants_asked_for_by_label_may_have_nothing_to_do(root, executed, capsys):
    idle_ones(root)
    assert run(root, "--participant-label", "02") == 0
    assert "sub-02: nothing to do: no gradient-echo images" in capsys.readouterr().err
    assert not executed and not (root.parent / "out").exists()


def test_a_dataset_without_anything_to_do_is_an_error(root, capsys):
    write(root, "sub-02_T1w")
    assert run(root) == 2
    assert "no gradient-echo images with phase (suffixes MEGRE" in capsys.readouterr().err
    write(root, "sub-02_part-mag_GRE", EchoTime=0.01)
    assert run(root) == 2
    assert "sub-02_part-mag_GRE.nii: there is no phase image" in capsys.readouterr().err


def test_a_fault_beside_nothing_to_do_is_still_a_failure(root):
    write(root, "sub-01_part-phase_GRE", EchoTime=0.01)
    write(root, "sub-02_T1w")
    assert run(root, "--dry-run") == 1


def test_memory_that_will_not_suffice_is_said_and_refused(root, executed, capsys):
    pair(root, "sub-01", 5, shape=(448, 448, 320), edge=0.5)
    pair(root, "sub-02")
    assert run(root, "--dry-run", "--mem", "8") == 0
    said = capsys.readouterr().out
    assert "warning: the step " in said and "and 8 GB may be used; give --mem " in said
    enough = said.split("give --mem ")[1].split()[0]
    assert run(root, "--mem", "8") == 1
    assert executed == ["sub-02"]
    assert run(root, "--dry-run", "--mem", enough) == 0
    assert "may be used" not in capsys.readouterr().out
    assert run(root, "--dry-run", "--mem", str(int(enough) - 1)) == 0
    assert "may be used" in capsys.readouterr().out


def test_the_dry_run_says_what_was_found(root, capsys):
    pair(root, "sub-01", 2)
    assert run(root, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2 phase, 2 magnitude images (sub-01_echo-1_part-phase_MEGRE.nii …)" in said


@pytest.mark.parametrize(
    ("shape", "edge", "words"),
    [
        ((64, 72, 60), 0.3, "the field of view measures 19.2×21.6×18 mm, which no human head"),
        ((100, 100, 80), 0.4, "multiply the affine in the headers of all its images by 5"),
        ((64, 64, 40), 3.0, ""),
        ((300, 300, 8), 0.7, ""),
        ((240, 240, 40), 0.4, ""),  # small voxels of a slab
    ],
)
def test_small_heads_are_refused_as_such(root, capsys, shape, edge, words):
    pair(root, "sub-01", shape=shape, edge=edge)
    assert run(root, "--dry-run") == (1 if words else 0)
    said = capsys.readouterr().out
    assert (words in said) if words else ("NOT PROCESSED" not in said)


def test_a_small_head_in_a_wide_view_is_refused_as_such(root, capsys):
    pair(root, "sub-01", shape=(50, 50, 40), edge=2.0)
    image = np.zeros((50, 50, 40), np.int16)
    image[20:30, 18:30, 15:23] = 300
    path = root / "sub-01" / "anat" / "sub-01_echo-1_part-mag_MEGRE.nii"
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), path)
    assert run(root, "--dry-run") == 1
    assert "the head measures about 20×2" in capsys.readouterr().out


def test_own_files_without_content_name_the_command_that_fetches_them(root, tmp_path, capsys):
    pair(root, "sub-01")
    mask = tmp_path / "mask.nii.gz"
    mask.symlink_to(".git/annex/objects/x.nii.gz")
    assert run(root, "-d", f"masks={mask}") == 2
    assert f"with `datalad get {tmp_path}`" in capsys.readouterr().err


def test_no_step_asks_for_more_than_what_is_known_without_the_graph():
    from qsm_nipype.methods import METHODS
    from qsm_nipype.run import memory
    from qsm_nipype.workflows.nodes import INTERPRETER_GB

    for method in METHODS:
        assert method.memory <= (memory._BYTES_OF_ECHO if method.per_echo else memory._BYTES)
        assert INTERPRETER_GB + method.fixed_gb <= memory._FIXED_GB


def test_many_with_nothing_to_do_take_one_line_for_each_reason():
    from qsm_nipype import plan
    from qsm_nipype.dataset.acquisitions import Refusal

    many = [Refusal({"sub": f"{n:02d}"}, f"sub-{n:02d}_MEGRE.nii.gz: no phase", idle=True)
            for n in range(1, 13)]  # fmt: skip
    fault = Refusal({"sub": "13"}, "a fault")
    assert plan.nothing_to_do([*many, fault, Refusal({"sub": "14"}, "no images", idle=True)]) == [
        "sub-01, sub-02, sub-03, sub-04, sub-05 … (12 in all): nothing to do: no phase",
        "sub-14: nothing to do: no images",
    ]
