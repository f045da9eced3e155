"""Finding images by names: as pybids does, one participant's folder at a time."""

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset import layout, walk
from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions
from qsm_nipype.dataset.metadata import KEPT, kept
from qsm_nipype.errors import UsageError

SIDECAR = {"EchoTime": 0.005, "MagneticFieldStrength": 3}


def write(root: Path, name: str, folder: str = "", **metadata) -> Path:
    path = root / (folder or f"{name.split('_')[0]}/anat") / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.eye(4)), path)
    path.with_name(f"{name}.json").write_text(json.dumps({**SIDECAR, **metadata}))
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for sub in ("01", "02"):
        for part in ("mag", "phase"):
            for run in ("1", "02"):
                write(tmp_path, f"sub-{sub}_acq-a_run-{run}_part-{part}_MEGRE")
                name = f"sub-{sub}_ses-b_run-{run}_part-{part}_GRE"
                write(tmp_path, name, f"sub-{sub}/ses-b/anat")
            write(tmp_path, f"sub-{sub}_part-{part}_T2starw", f"sub-{sub}/anat/deeper")
        write(tmp_path, f"sub-{sub}_ses-b_phasediff", f"sub-{sub}/ses-b/fmap")
    write(tmp_path, "sub-01_part-mag_MEGRE", "derivatives/other/sub-01/anat")
    return tmp_path


@pytest.mark.parametrize(
    "gre",
    [
        {},
        {"suffix": "GRE"},
        {"suffix": ["GRE", "MEGRE"], "run": 1},
        {"run": "2"},
        {"run": [1, 2]},
        {"acquisition": "a", "part": "phase"},
        {"acquisition": None},
        {"acquisition": "Query.NONE"},
        {"session": "*"},
        {"session": "Query.ANY", "extension": ".nii.gz"},
        {"datatype": "fmap"},
        {"datatype": "anat", "echo": "1"},
    ],
    ids=str,
)
def test_filters_find_what_pybids_finds(root, gre):
    found = layout.contents(root, Selection(filters={"gre": gre})).images
    query = {"suffix": [*layout.SUFFIXES, "phasediff", "phase1", "phase2", "fieldmap"], **gre}
    query = {"extension": [".nii", ".nii.gz"], **query}
    numbers = {k: int(v) for k, v in query.items() if k == "run" and isinstance(v, str)}
    assert set(found) == set(layout.indexed(root, None, {**query, **numbers}))
    assert walk.understood(query)


def test_what_only_pybids_understands_is_left_to_it(root):
    filters = {"gre": {"acquisition": "^a$", "regex_search": True}}
    found = layout.contents(root, Selection(filters=filters, participants=("01",))).images
    assert len(found) == 4 and all("sub-01_acq-a" in p.name for p in found)
    with pytest.raises(UsageError, match="correct the filter"):
        layout.contents(root, Selection(filters={"gre": {"nonsense": "1"}}))
    with pytest.raises(UsageError, match="must hold entities"):
        layout.contents(root, Selection(filters={"gre": ["a"]}))


def test_a_participant_costs_no_look_at_the_others(root, monkeypatch):
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: seen.append(str(p)) or scandir(p))
    found, bad = find_acquisitions(root, Selection(participants=("sub-02",)))
    assert len(found) == 5 and not bad and not any("sub-01" in path for path in seen)


def test_a_session_that_only_others_have_is_no_fault_of_the_selection(root):
    write(root, "sub-03_part-mag_MEGRE")
    one = Selection(participants=("03",), sessions=("ses-b",))
    assert layout.contents(root, one).images == ()
    with pytest.raises(UsageError, match="no session c; there are b"):
        layout.contents(root, Selection(sessions=("c",)))


def test_a_folder_that_cannot_be_read_ends_one_participant(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub-01/anat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, bad = find_acquisitions(root, Selection())
    assert {a.subject for a in found} == {"02"} and len(bad) == 1
    assert re.search("sub-01/anat: cannot be read .Permission denied.; check", bad[0].reason)


def test_links_that_go_in_circles_end(root):
    (root / "sub-01" / "anat" / "up").symlink_to(root / "sub-01")
    (root / "sub-04").symlink_to(root / "nowhere")
    (root / "sub-05").symlink_to(root / "sub-05")
    found, bad = find_acquisitions(root, Selection())
    assert len(found) == 10 and {b.subject for b in bad} == {"04", "05"}


def test_an_image_in_the_folder_of_another_is_refused(root):
    write(root, "sub-02_part-mag_MEGRE", "sub-01/anat")
    _, bad = find_acquisitions(root, Selection())
    assert [b.subject for b in bad] == ["01"] and "in the folder of sub-01" in bad[0].reason


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("01_part-mag_MEGRE", "begins with sub-LABEL_"),
        ("part-mag_MEGRE", "begins with sub-LABEL_"),
        ("sub-_part-mag_MEGRE", "begins with sub-LABEL_"),
        (f"sub-01_acq-{'x' * 190}_part-mag_MEGRE", "letters too long"),
        ("sub-01_acq-_part-mag_MEGRE", "has no label"),
    ],
)
def test_a_name_that_cannot_be_one_ends_one_acquisition(root, name, said):
    write(root, name, "sub-01/anat")
    found, bad = find_acquisitions(root, Selection())
    assert len(found) == 10 and len(bad) == 1
    assert said in bad[0].reason and bad[0].subject == "01"


def test_what_the_nodes_read_of_a_sidecar_is_kept_and_no_more(root):
    package = Path(walk.__file__).parents[1]
    source = "".join(p.read_text() for p in (package / "core" / "reading").glob("*.py"))
    read = set(re.findall(r'metadata(?:\.get\(|\[)"(\w+)"', source))
    assert read and read <= set(KEPT)
    private = {"DeviceSerialNumber": "1", "StationName": "MR7", "PatientName": "x"}
    assert set(kept({**SIDECAR, **private, "Manufacturer": {"StationName": 1}})) == set(SIDECAR)
    assert len(kept({"Manufacturer": "x" * 10**6})["Manufacturer"]) <= 200
