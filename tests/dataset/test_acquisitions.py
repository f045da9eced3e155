"""Finding acquisitions: inheritance, pairing, and one clear sentence for everything wrong."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions
from qsm_nipype.dataset.metadata import sidecar
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.errors import UsageError


def write(root: Path, name: str, *, data=None, affine=None, metadata=None) -> Path:
    """One image with its sidecar below `root`/sub-XX/anat."""
    path = root / name.split("_")[0] / "anat" / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((6, 5, 4), np.float32) if data is None else data
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    if metadata is not None:
        path.with_name(f"{name}.json").write_text(json.dumps(metadata))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two echoes, magnitude and phase, of one subject, with what is common at the root."""
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (tmp_path / "MEGRE.json").write_text('{"MagneticFieldStrength": 3, "Manufacturer": "A"}')
    for echo in (1, 2):
        metadata = {"EchoTime": 0.005 * echo}
        for part in ("mag", "phase"):
            write(tmp_path, f"sub-01_echo-{echo}_part-{part}_MEGRE", metadata=metadata)
    return tmp_path


def reason(root: Path) -> str:
    """The sentence of the only refusal."""
    good, bad = find_acquisitions(root, Selection())
    assert not good and len(bad) == 1
    return bad[0].reason


def test_two_echoes_are_one_acquisition(dataset):
    (found,), refused = find_acquisitions(dataset, Selection())
    assert not refused
    assert (found.label, found.echo_times, found.b0) == ("sub-01", (0.005, 0.01), 3.0)
    assert [Path(f).name for f in found.phase] == [
        f"sub-01_echo-{e}_part-phase_MEGRE.nii.gz" for e in (1, 2)
    ]


def test_a_dataset_is_found_by_a_relative_path(dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    (near,), bad = find_acquisitions(Path(dataset.name), Selection())
    (far,), _ = find_acquisitions(dataset, Selection())
    assert not bad and near == far


def test_nearer_sidecar_wins_and_foreign_ones_do_not_apply(dataset):
    (dataset / "sub-01" / "sub-01_MEGRE.json").write_text('{"Manufacturer": "B"}')
    (dataset / "run-2_MEGRE.json").write_text('{"Manufacturer": "C"}')
    image = dataset / "sub-01" / "anat" / "sub-01_echo-1_part-mag_MEGRE.nii.gz"
    merged = sidecar(dataset, image)
    assert merged == {"MagneticFieldStrength": 3, "Manufacturer": "B", "EchoTime": 0.005}


def test_names_and_sidecars_that_disagree_on_the_part_are_refused(dataset):
    for part, letter in (("phase", "M"), ("mag", "P")):
        path = dataset / "sub-01" / "anat" / f"sub-01_echo-2_part-{part}_MEGRE.json"
        metadata = {"EchoTime": 0.01, "ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"]}
        path.write_text(json.dumps(metadata))
    said = reason(dataset)
    assert said.startswith("sub-01_echo-2_part-phase_MEGRE.nii.gz: it is named phase")
    assert "says magnitude" in said and "exchange their names" in said


def test_sidecar_without_part_serves_both_parts(dataset):
    folder = dataset / "sub-01" / "anat"
    for path in folder.glob("*.json"):
        path.unlink()
    for echo in (1, 2):
        (folder / f"sub-01_echo-{echo}_MEGRE.json").write_text(f'{{"EchoTime": {0.003 * echo}}}')
    (found,), _ = find_acquisitions(dataset, Selection())
    assert found.echo_times == (0.003, 0.006)


def test_tenth_echo_comes_after_the_ninth(dataset):
    for echo in range(3, 11):
        for part in ("mag", "phase"):
            name = f"sub-01_echo-{echo}_part-{part}_MEGRE"
            write(dataset, name, metadata={"EchoTime": 0.005 * echo})
    (found,), _ = find_acquisitions(dataset, Selection())
    assert found.echo_times == pytest.approx([0.005 * e for e in range(1, 11)])


def test_one_bad_acquisition_does_not_disturb_the_other(dataset):
    write(dataset, "sub-02_echo-1_part-mag_MEGRE", metadata={"EchoTime": 0.005})
    good, bad = find_acquisitions(dataset, Selection())
    assert [a.label for a in good] == ["sub-01"]
    assert [(r.label, "no phase image" in r.reason) for r in bad] == [("sub-02", True)]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "sub-01_echo-2_part-phase_MEGRE.json: EchoTime is missing; add it (in seconds)"),
        ({"EchoTime": 10}, "cannot be seconds; divide milliseconds by 1000"),
        ({"EchoTime": "4 ms"}, "must be a positive number of seconds"),
        ({"EchoTime": 0.004}, "EchoTime is 0.004 s and that of sub-01_echo-2_part-mag_MEGRE.nii"),
        ({"EchoTime": [0.005, 0.01]}, "lists 2 times, but each echo has its own file; give"),
        ({"EchoTime": 0.02}, "EchoTime is 0.02 s and that of sub-01_echo-2_part-mag_MEGRE.nii.gz"),
    ],
)
def test_wrong_echo_time_is_named(dataset, metadata, words):
    path = dataset / "sub-01" / "anat" / "sub-01_echo-2_part-phase_MEGRE.json"
    path.write_text(json.dumps(metadata))
    assert words in reason(dataset)


def test_missing_field_strength_is_named(dataset):
    (dataset / "MEGRE.json").unlink()
    assert "MagneticFieldStrength is missing" in reason(dataset)


def test_field_strength_from_the_imaging_frequency_is_noted(dataset):
    (dataset / "MEGRE.json").write_text('{"ImagingFrequency": 127.74}')
    (found,), _ = find_acquisitions(dataset, Selection())
    assert found.b0 == pytest.approx(3.0, abs=0.01)
    assert "ImagingFrequency" in found.notes[0]


@pytest.mark.parametrize(("frequency", "b0"), [(123.25, 2.8947), (127.74, 3.0002), ("?", 3.0)])
def test_ppm_are_of_the_protons_frequency_not_of_a_rounded_field(dataset, frequency, b0):
    # Siemens "3 T" is 2.89 T
    content = {"MagneticFieldStrength": 3, "ImagingFrequency": frequency}
    (dataset / "MEGRE.json").write_text(json.dumps(content))
    (found,), _ = find_acquisitions(dataset, Selection())
    assert found.b0 == pytest.approx(b0, abs=1e-4) and not found.notes


def test_field_strength_in_gauss_is_refused(dataset):
    (dataset / "MEGRE.json").write_text('{"MagneticFieldStrength": 30000}')
    assert "give it in tesla" in reason(dataset)


def test_broken_json_is_named(dataset):
    (dataset / "sub-01" / "anat" / "sub-01_echo-1_part-phase_MEGRE.json").write_text("{oops")
    assert "sub-01_echo-1_part-phase_MEGRE.json: not valid JSON" in reason(dataset)


def test_other_shape_and_other_affine_are_named(dataset):
    name = "sub-01_echo-2_part-phase_MEGRE"
    write(dataset, name, data=np.zeros((6, 5, 5), np.float32))
    assert "its shape 6×5×5 differs from 6×5×4" in reason(dataset)
    write(dataset, name, affine=np.diag([1, 1, 2, 1]))
    assert "orientation (affine) differs" in reason(dataset)


def test_flat_and_empty_images_are_named(dataset):
    anat = dataset / "sub-01" / "anat"
    for path in anat.glob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.zeros((6, 5), np.float32), np.eye(4)), path)
    assert "needs a 3-D volume" in reason(dataset)
    for path in anat.glob("*.nii.gz"):
        path.write_bytes(b"")
    assert "the file is empty" in reason(dataset)


def test_missing_phase_echo_is_named(dataset):
    (dataset / "sub-01" / "anat" / "sub-01_echo-2_part-phase_MEGRE.nii.gz").unlink()
    assert "1 phase but 2 magnitude images" in reason(dataset)


def test_an_image_kept_twice_is_named(dataset):
    path = dataset / "sub-01" / "anat" / "sub-01_echo-2_part-phase_MEGRE.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert reason(dataset).endswith("_MEGRE.nii.gz is there too; keep one of them")


def test_echoes_are_not_paired_by_number_of_files(dataset):
    folder = dataset / "sub-01" / "anat"
    for path in folder.glob("sub-01_echo-2_part-mag_MEGRE.*"):
        path.rename(folder / path.name.replace("echo-2", "echo-3"))
    assert "sub-01_echo-2_part-phase_MEGRE.nii.gz: there is no magnitude" in reason(dataset)


def test_same_result_names_are_refused(dataset):
    for echo in (1, 2):
        for part in ("mag", "phase"):
            name = f"sub-01_echo-{echo}_part-{part}_T2starw"
            metadata = {"EchoTime": 0.005 * echo, "MagneticFieldStrength": 3}
            write(dataset, name, metadata=metadata)
    good, bad = find_acquisitions(dataset, Selection())
    assert len(good) == 1 and "tell them apart by acq- or run-" in bad[0].reason


def test_selection_and_filter(dataset):
    for acq in ("a", "b"):
        for part in ("mag", "phase"):
            metadata = {"EchoTime": 0.02}
            write(dataset, f"sub-02_acq-{acq}_part-{part}_MEGRE", metadata=metadata)
    one, _ = find_acquisitions(dataset, Selection(participants=("sub-02",)))
    assert [a.label for a in one] == ["sub-02_acq-a", "sub-02_acq-b"]
    filters = {"gre": {"acquisition": "b"}}
    two, _ = find_acquisitions(dataset, Selection(filters=filters))
    assert [a.label for a in two] == ["sub-02_acq-b"]
    with pytest.raises(UsageError, match="no participant 77; there are 01, 02"):
        find_acquisitions(dataset, Selection(participants=("77",)))
    with pytest.raises(UsageError, match="the one known is 'gre'"):
        find_acquisitions(dataset, Selection(filters={"t1w": {}}))


@pytest.mark.parametrize("labels", [("foo",), ("ses-1", "foo")])
def test_an_unknown_session_is_named(dataset, labels):
    for part in ("mag", "phase"):
        path = write(dataset, f"sub-02_ses-1_part-{part}_MEGRE", metadata={"EchoTime": 0.02})
        visit = dataset / "sub-02" / "ses-1" / "anat"
        visit.mkdir(parents=True, exist_ok=True)
        for file in (path, path.with_name(path.name.replace(".nii.gz", ".json"))):
            file.rename(visit / file.name)
    with pytest.raises(UsageError, match="no session foo; there are 1"):
        find_acquisitions(dataset, Selection(sessions=labels))
    (found,), _ = find_acquisitions(dataset, Selection(sessions=("ses-1",)))
    assert found.label == "sub-02_ses-1"


def test_no_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        find_acquisitions(tmp_path / "nothing", Selection())


def test_names_survive_the_round_trip():
    entities, suffix = parse_name(Path("sub-01_ses-2_acq-x_run-3_MEGRE.nii.gz"))
    assert (stem(entities), suffix) == ("sub-01_ses-2_acq-x_run-3", "MEGRE")


def test_the_users_mask_is_found_by_entities(dataset, tmp_path):
    from qsm_nipype.dataset.own_files import find_mask
    from qsm_nipype.errors import DataError

    (found,), _ = find_acquisitions(dataset, Selection())
    masks = tmp_path / "masks"
    for name in ("sub-01_desc-brain_mask", "sub-01_desc-csf_mask", "sub-01_run-7_mask"):
        write(masks, name)
    assert find_mask(masks, found.entities).name == "sub-01_desc-brain_mask.nii.gz"
    write(masks, "sub-01_label-CSF_mask")  # no brain, though the name fits
    assert find_mask(masks, found.entities).name == "sub-01_desc-brain_mask.nii.gz"
    (masks / "sub-01/anat/sub-01_desc-csf_mask.nii.gz").unlink()
    (masks / "sub-01/anat/sub-01_desc-brain_mask.nii.gz").rename(masks / "brain.nii.gz")
    with pytest.raises(DataError, match="no \\*_mask.nii.gz for sub-01; add it"):
        find_mask(masks, found.entities)
    (masks / "brain.nii.gz").rename(masks / "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    write(masks, "sub-01_mask")
    with pytest.raises(DataError, match="both fit sub-01; keep one"):
        find_mask(masks, found.entities)
    assert find_mask(masks, found.entities, "reference").name == "sub-01_label-CSF_mask.nii.gz"
    (masks / "sub-01/anat/sub-01_label-CSF_mask.nii.gz").unlink()
    (masks / "sub-01/anat/sub-01_mask.nii.gz").unlink()
    with pytest.raises(DataError, match="that is a reference region; add it, or leave out -d ref"):
        find_mask(masks, found.entities, "reference")
    with pytest.raises(DataError, match="no \\*_mask.nii.gz for sub-01; add it"):
        find_mask(masks / "sub-02", found.entities)


@pytest.mark.parametrize("kind", ["masks", "reference", "segmentation", "lesions"])
@pytest.mark.parametrize("name", ["sub-02_desc-brain_mask", "sub-01_ses-1_mask", "sub-02"])
def test_a_file_that_is_named_for_another_is_refused(dataset, tmp_path, kind, name):
    file = write(tmp_path / "own", name)
    good, refused = find_acquisitions(dataset, Selection(own={kind: file}))
    assert not good and f"{file.name}: it belongs to sub-0" in refused[0].reason
    assert "and not to sub-01; give the folder of all by" in refused[0].reason


@pytest.mark.parametrize("name", ["sub-01_desc-brain_mask", "brain", "my_mask-of-all"])
def test_a_file_that_is_named_for_nobody_else_is_taken(dataset, tmp_path, name):
    brain = np.zeros((6, 5, 4), np.uint8)
    brain[1:5, 1:4, 1:3] = 1
    file = write(tmp_path / "own", name, data=brain)
    (found,), refused = find_acquisitions(dataset, Selection(own={"masks": file}))
    assert not refused and found.own.mask == file
    assert found.own.mask_uri == f"bids:masks:{file.name}"


def test_a_mask_of_another_size_is_refused_with_both(dataset, tmp_path):
    file = write(tmp_path / "own", "brain", data=np.zeros((7, 5, 4), np.float32))
    _, (refused,) = find_acquisitions(dataset, Selection(own={"masks": file}))
    assert "brain.nii.gz: its size is 7×5×4, that of sub-01 is 6×5×4; resample" in refused.reason


def orient(root: Path, change) -> None:
    """Apply `change` to the header of every image."""
    for path in (root / "sub-01" / "anat").glob("*.nii.gz"):
        image = nib.Nifti1Image(np.zeros((6, 5, 4), np.float32), np.diag([2.0, 2, 2, 1]))
        change(image)
        nib.save(image, path)


def tilted(degrees: float) -> np.ndarray:
    """2 mm voxels turned about x."""
    affine, a = np.diag([2.0, 2, 2, 1]), np.deg2rad(degrees)
    affine[1:3, 1:3] = 2 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return affine


def both(image, sform, s_code, qform, q_code) -> None:
    image.set_sform(sform, s_code)
    image.set_qform(qform, q_code)


@pytest.mark.parametrize(
    ("sform", "s_code", "qform", "q_code", "words"),
    [
        (tilted(0), 0, tilted(0), 0, ["codes are 0", "third voxel axis"]),
        (tilted(25), 2, tilted(0), 1, ["25.0° in direction", "the sform is used"]),
        (tilted(0) * 0.8, 1, tilted(0), 1, ["1.6 × 1.6 × 1.6 mm", "2 × 2 × 2 mm"]),
        (tilted(25), 1, tilted(25.5), 1, []),
        (tilted(25), 1, tilted(0), 0, []),
        (tilted(0), 0, tilted(25), 1, []),
    ],
)
def test_what_the_header_leaves_unclear_is_noted(dataset, sform, s_code, qform, q_code, words):
    orient(dataset, lambda image: both(image, sform, s_code, qform, q_code))
    (found,), refused = find_acquisitions(dataset, Selection())
    assert not refused and len(found.warnings) == bool(words)
    assert all(word in found.warnings[0] for word in words)


def test_a_templates_space_and_sheared_axes_are_refused(dataset):
    for s_code, q_code in ((4, 1), (3, 1), (0, 4)):
        orient(dataset, lambda im, s=s_code, q=q_code: both(im, tilted(0), s, tilted(0), q))
        assert "leads to a template" in reason(dataset)
    sheared = tilted(0)
    sheared[0, 1] = 0.6
    orient(dataset, lambda image: both(image, sheared, 1, None, 0))
    assert "16.7° off a right angle" in reason(dataset)
    sheared[0, 1] = 0.01  # 0.3 degrees
    orient(dataset, lambda image: both(image, sheared, 1, None, 0))
    assert len(find_acquisitions(dataset, Selection())[0]) == 1


def test_a_two_dimensional_acquisition_is_noted(dataset):
    (dataset / "MEGRE.json").write_text('{"MagneticFieldStrength": 3, "MRAcquisitionType": "2D"}')
    (found,), _ = find_acquisitions(dataset, Selection())
    assert [note.startswith("a 2-D acquisition") for note in found.warnings] == [True]
    (dataset / "MEGRE.json").write_text('{"MagneticFieldStrength": 3, "MRAcquisitionType": "3D"}')
    assert not find_acquisitions(dataset, Selection())[0][0].warnings
