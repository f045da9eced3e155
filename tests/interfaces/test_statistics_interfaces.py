import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.own_files import find_atlases
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.segmentation import AlignLabels
from qsm_nipype.interfaces.statistics import COLUMNS, RegionStatistics
from qsm_nipype.run.group import join
from qsm_nipype.simulation.head import rotation_matrix
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.volume import canonical, load

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def write(path, data, affine=AFFINE):
    kind = data.dtype if data.dtype in (np.int16, np.uint8) else np.float32
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(kind), affine), path)
    return str(path)


@pytest.fixture
def maps(tmp_path):
    labels = np.zeros((8, 8, 8), np.int16)
    labels[:2], labels[6:] = 11, 50
    chi = np.where(labels == 11, 0.3, np.where(labels == 50, 0.1, -0.02))
    known = np.ones(labels.shape)
    known[:, :, 0] = 0
    return {
        "in_chi": [write(tmp_path / "chi.nii", chi)],
        "in_mask_chi": write(tmp_path / "known.nii", known),
        "in_mask": write(tmp_path / "mask.nii", np.ones(labels.shape)),
        "in_r2star": write(tmp_path / "r2star.nii", 20 + 100 * chi),
    }, write(tmp_path / "labels.nii", labels)


def rows_of(path):
    return list(csv.DictReader(Path(path).open(), delimiter="\t"))


def test_the_table_holds_every_region_of_every_map(maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports, labels = maps
    table = tmp_path / "lut.tsv"
    table.write_text("index\tname\n11\tleft thing\n50\tright thing\n99\tabsent\n")
    more = {"in_labels": [labels], "segmentations": ["mine"], "tables": [str(table)]}
    out = RegionStatistics(entities={"sub": "01", "run": "2"}, **ports, **more).run().outputs
    rows = rows_of(out.out_table)
    assert list(rows[0]) == list(COLUMNS) == list(json.loads(Path(out.out_dictionary).read_text()))
    assert [(r["region"], r["map"]) for r in rows[:2]] == [
        ("brain", "Chimap"),
        ("brain", "R2starmap"),
    ]
    left, right, absent = rows[2:5]
    assert left["acquisition"] == "sub-01_run-2"
    assert float(left["mean"]) == pytest.approx(0.3) and left["volume"] == "1024"
    assert float(left["coverage"]) == pytest.approx(7 / 8)
    assert float(left["difference"]) == pytest.approx(0.2) and float(right["asymmetry"]) == 0
    assert absent["voxels"] == "0" and absent["mean"] == absent["asymmetry"] == "n/a"


def test_without_segmentations_the_brain_alone_is_measured(maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = rows_of(RegionStatistics(entities={"sub": "01"}, **maps[0]).run().outputs.out_table)
    assert [r["segmentation"] for r in rows] == ["brain", "brain"]


def test_tables_of_participants_are_joined(maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for subject in ("01", "02"):
        out = RegionStatistics(entities={"sub": subject}, **maps[0]).run().outputs
        path = tmp_path / f"sub-{subject}_desc-regions_stats.tsv"
        path.write_text(Path(out.out_table).read_text())
        path.with_suffix(".json").write_text(Path(out.out_dictionary).read_text())
        paths.append(path)
    rows, words, damaged = join(paths)
    assert not damaged
    assert [r["participant_id"] for r in rows] == ["sub-01"] * 2 + ["sub-02"] * 2
    assert words["volume"]["Units"] == "mm3"


def test_labels_on_the_grid_are_taken_as_they_are_and_others_by_scanner_coordinates(
    maps, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ports, labels = maps
    same = AlignLabels(in_labels=labels, in_reference=ports["in_mask"]).run().outputs
    assert np.array_equal(load(same.out_labels).data, load(labels).data)
    assert json.loads(Path(same.out_record).read_text())["method"] == "none"
    flipped = nib.as_closest_canonical(nib.load(labels)).slicer[::-1]
    nib.save(flipped, tmp_path / "flipped.nii")
    turned = AlignLabels(in_labels=str(tmp_path / "flipped.nii"), in_reference=ports["in_mask"])
    out = turned.run().outputs
    assert np.array_equal(load(out.out_labels).data, load(labels).data)
    assert "no T1w" in json.loads(Path(out.out_record).read_text())["warnings"][0]


def test_what_is_no_segmentation_or_lies_elsewhere_is_refused(maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ports, labels = maps
    with pytest.raises(DataError, match=r"chi.nii: not a segmentation"):
        AlignLabels(in_labels=ports["in_chi"][0], in_reference=ports["in_mask"]).run()
    away = AFFINE.copy()
    away[0, 3] = 500
    far = write(tmp_path / "far.nii", load(labels).data.astype(np.int16), away)
    with pytest.raises(DataError, match="none of its regions lies"):
        AlignLabels(in_labels=far, in_reference=ports["in_mask"]).run()


def test_labels_of_a_moved_t1w_come_back_by_registration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    protocol = Protocol(echo_times=(0.008,), contrasts=("T1w",))
    scan = simulate_subject(5, shape=(60, 72, 60), voxel_size=3.0, protocol=protocol)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation_matrix((5, -4, 6)), (7, -5, 9)
    magnitude = write(tmp_path / "mag.nii", scan.magnitude, scan.affine)
    t1w = write(tmp_path / "t1w.nii", scan.extra["T1w"], moved @ scan.affine)
    labels = write(tmp_path / "seg.nii", scan.head.labels, moved @ scan.affine)
    node = AlignLabels(in_labels=labels, in_anatomical=t1w, in_reference=magnitude)
    out = load(node.run().outputs.out_labels).data
    for label in (8, 9, 10):  # white, grey, fluid
        here, there = out == label, scan.head.labels == label
        assert 2 * (here & there).sum() / (here.sum() + there.sum()) > 0.75
    assert (out == scan.head.labels)[scan.brain].mean() > 0.8


def of_acquisition(**entities):
    return {"sub": "01", **entities}


def test_segmentations_of_the_own_space_are_found_with_what_belongs_to_them(tmp_path):
    raw, place = tmp_path / "raw", tmp_path / "prep"
    for name in ("sub-01_desc-aseg_dseg", "sub-01_space-MNI152NLin6Asym_desc-aseg_dseg"):
        write(place / "sub-01/anat" / f"{name}.nii.gz", np.ones((2, 2, 2), np.uint8))
    write(place / "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", np.ones((2, 2, 2)))
    write(place / "sub-02/anat/sub-02_desc-aseg_dseg.nii.gz", np.ones((2, 2, 2), np.uint8))
    (place / "desc-aseg_dseg.tsv").write_text("index\tname\n")
    (found,) = find_atlases(place, of_acquisition(acq="gre"), raw)
    assert found.name == "aseg" and found.file.name == "sub-01_desc-aseg_dseg.nii.gz"
    assert found.table == place / "desc-aseg_dseg.tsv"
    assert found.anatomical.name == "sub-01_desc-preproc_T1w.nii.gz"


def test_freesurfer_single_files_and_nothing(tmp_path):
    raw, place = tmp_path / "raw", tmp_path / "fs"
    for name in ("aseg.mgz", "T1.mgz"):
        write(place / "sub-01/mri" / name.replace(".mgz", ".nii"), np.ones((2, 2, 2), np.uint8))
        (place / "sub-01/mri" / name.replace(".mgz", ".nii")).rename(place / "sub-01/mri" / name)
    (found,) = find_atlases(place, of_acquisition(), raw)
    assert (found.name, found.anatomical.name) == ("aseg", "T1.mgz")
    other = place.with_name("others")
    other.mkdir()
    (place / "sub-01").rename(other / "sub-012")
    with pytest.raises(DataError, match=r"no \*_dseg.nii.gz for sub-01"):
        find_atlases(other, of_acquisition(), raw)
    for session in ("a", "b"):
        (other / f"sub-01_ses-{session}").symlink_to(other / "sub-012")
    (found,) = find_atlases(other, of_acquisition(ses="b"), raw)
    assert found.file.parent.parent.name == "sub-01_ses-b"
    for session in ("a", "b"):
        path = raw / f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz"
        write(path, np.ones((2, 2, 2)))
    single = Path(write(tmp_path / "atlas.nii.gz", np.ones((2, 2, 2), np.uint8)))
    (found,) = find_atlases(single, of_acquisition(ses="b"), raw)
    assert found.name == "atlas" and "ses-b" in found.anatomical.name
    with pytest.raises(DataError, match=r"no \*_dseg.nii.gz for sub-01"):
        find_atlases(tmp_path / "raw", of_acquisition(), raw)


def test_a_segmentation_called_as_one_of_ours_gets_another_name(tmp_path):
    path = tmp_path / "sub-01_desc-dentate_dseg.nii.gz"
    write(path, np.ones((2, 2, 2), np.uint8))
    assert find_atlases(path, of_acquisition(), tmp_path)[0].name == "owndentate"


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SLA", "PIR"])
def test_canonical_turns_and_returns(axes):
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.random((3, 4, 5)), AFFINE)
    ornt = nib.orientations.axcodes2ornt(axes)
    start = nib.orientations.io_orientation(AFFINE)
    stored = image.as_reoriented(nib.orientations.ornt_transform(start, ornt))
    from qsm_nipype.volume import Volume

    volume = Volume(stored.get_fdata(), stored.affine)
    turned, back = canonical(volume)
    assert np.allclose(turned.data, image.get_fdata()) and np.allclose(turned.affine, AFFINE)
    assert np.array_equal(back(turned.data), volume.data)
