"""Field maps (fmap/) and uncombined coils as input of the command."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.phase import init_phase_wf

DATA = Path(
    os.environ.get(
        "QSM_NIPYPE_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"
    )
)


def write(root: Path, folder: str, name: str, shape=(6, 5, 4), **metadata) -> Path:
    """One image with its sidecar below `root`/sub-XX."""
    path = root / name.split("_")[0] / folder / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), path)
    path.with_name(f"{name}.json").write_text(json.dumps(metadata))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """One subject with a Siemens field map and nothing else."""
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    times = {"EchoTime1": 0.00519, "EchoTime2": 0.00765}
    write(tmp_path, "fmap", "sub-01_phasediff", MagneticFieldStrength=3, **times)
    for n in (1, 2):
        write(tmp_path, "fmap", f"sub-01_magnitude{n}", EchoTime=times[f"EchoTime{n}"])
    return tmp_path


def only(root: Path, selection=None):
    """The only acquisition."""
    good, bad = find_acquisitions(root, selection or Selection())
    assert not bad and len(good) == 1
    return good[0]


def reason(root: Path) -> str:
    """The sentence of the only refusal."""
    good, bad = find_acquisitions(root, Selection())
    assert not good and len(bad) == 1
    return bad[0].reason


def change(root: Path, **metadata) -> None:
    """Replace entries of the phase difference's sidecar; None takes one away."""
    path = root / "sub-01" / "fmap" / "sub-01_phasediff.json"
    content = {**json.loads(path.read_text()), **metadata}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_a_phase_difference_is_one_echo_at_the_difference_of_the_echo_times(dataset):
    found = only(dataset)
    assert found.echo_times == pytest.approx((0.00246,)) and found.b0 == 3
    assert [len(found.phase), len(found.magnitude)] == [1, 2]
    assert found.label == "sub-01" and found.datatype == "anat" and found.notes


def test_echo_times_may_stand_with_the_magnitudes(dataset):
    change(dataset, EchoTime1=None, EchoTime2=None)
    assert only(dataset).echo_times == pytest.approx((0.00246,))
    (dataset / "sub-01" / "fmap" / "sub-01_magnitude1.json").unlink()
    assert reason(dataset).startswith("sub-01_phasediff.json: EchoTime1 is missing; add it")


def test_echo_times_may_stand_with_one_image_of_both_magnitudes(dataset):
    change(dataset, EchoTime1=None, EchoTime2=None)
    for n in (1, 2):
        for path in (dataset / "sub-01" / "fmap").glob(f"sub-01_magnitude{n}.*"):
            path.unlink()
    write(dataset, "fmap", "sub-01_magnitude", (6, 5, 4, 2), EchoTime=[0.00519, 0.00765])
    assert only(dataset).echo_times == pytest.approx((0.00246,))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((0.00765, 0.00519), "not two increasing times"),
        ((5.19, 7.65), "not two increasing times in seconds"),
        (("5", 0.007), "must be positive numbers"),
    ],
)
def test_wrong_echo_times_get_one_sentence(dataset, pair, words):
    change(dataset, EchoTime1=pair[0], EchoTime2=pair[1])
    assert words in reason(dataset)


def test_one_magnitude_is_enough_and_none_is_named(dataset):
    folder = dataset / "sub-01" / "fmap"
    (folder / "sub-01_magnitude2.nii.gz").unlink()
    assert len(only(dataset).magnitude) == 1
    (folder / "sub-01_magnitude1.nii.gz").unlink()
    assert reason(dataset) == (
        "sub-01_phasediff.nii.gz: there is no magnitude1 image beside it; add it"
    )


def test_two_phases_are_two_echoes(dataset):
    folder = dataset / "sub-01" / "fmap"
    (folder / "sub-01_phasediff.nii.gz").unlink()
    for n, time in ((1, 0.00519), (2, 0.00765)):
        write(dataset, "fmap", f"sub-01_phase{n}", EchoTime=time, MagneticFieldStrength=3)
    found = only(dataset)
    assert found.echo_times == (0.00519, 0.00765) and len(found.magnitude) == 2
    (folder / "sub-01_phase2.nii.gz").unlink()
    assert "no phase2 image" in reason(dataset)


def test_a_gradient_echo_acquisition_goes_first_unless_the_filter_asks(dataset):
    for part in ("mag", "phase"):
        write(
            dataset, "anat", f"sub-01_part-{part}_GRE", EchoTime=0.01, MagneticFieldStrength=3
        )  # fmt: skip
    assert only(dataset).suffix == "GRE"
    asked = Selection(filters={"gre": {"suffix": "phasediff"}})
    assert only(dataset, asked).suffix == "phasediff"


def test_siemens_field_map_as_converted(tmp_path):
    source = DATA / "siemens_me_fmap"
    if not source.exists():
        pytest.skip(f"{source} is absent: set QSM_NIPYPE_TEST_DATA to the real data")
    folder = tmp_path / "sub-01" / "fmap"
    folder.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    names = {"2_e1": "magnitude1", "2_e2": "magnitude2", "3_e2_ph": "phasediff"}
    for old, new in names.items():
        for extension in (".nii", ".json"):
            shutil.copy(
                source / f"me_FieldMap_GRE_{old}{extension}", folder / f"sub-01_{new}{extension}"
            )
    found = only(tmp_path)
    assert found.echo_times == pytest.approx((0.00246,)) and found.shape == (64, 64, 36)


def test_coil_files_are_one_acquisition_in_order(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for echo in (1, 2):
        for coil in (1, 2, 10):
            for part in ("mag", "phase"):
                name = f"sub-01_coil-{coil}_echo-{echo}_part-{part}_MEGRE"
                write(tmp_path, "anat", name, EchoTime=0.005 * echo, MagneticFieldStrength=3)
    found = only(tmp_path)
    assert (found.coils, found.echo_times) == (3, (0.005, 0.01))
    assert "coil-2_" in found.phase[1] and "coil-10_" in found.phase[2]
    parts = {"phase": found.phase, "magnitude": found.magnitude}
    graph = init_phase_wf(
        parts,
        found.metadata,
        found.echo_times,
        Resources(120, 2),
        offset="mcpc3ds",
        reading={"coils": found.coils},
    )
    assert graph.get_node("read").inputs.coils == 3
    missing = Path(found.phase[4])
    missing.unlink()
    Path(str(missing).replace("phase", "mag")).unlink()
    assert "not every echo has the same coils" in reason(tmp_path)


def test_a_fourth_dimension_in_each_echos_file_is_the_coils(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for echo in (1, 2):
        for part in ("mag", "phase"):
            write(
                tmp_path, "anat", f"sub-01_echo-{echo}_part-{part}_MEGRE", (6, 5, 4, 8),
                EchoTime=0.005 * echo, MagneticFieldStrength=3,
            )  # fmt: skip
    found = only(tmp_path)
    assert (found.coils, found.echo_times, len(found.metadata)) == (8, (0.005, 0.01), 16)
