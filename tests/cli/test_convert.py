"""DICOM to BIDS: voxels and geometry survive, echoes pair, nothing personal comes along."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from qsm_nipype import cli
from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions
from qsm_nipype.dicom.command import main
from qsm_nipype.dicom.headers import why_left_out
from qsm_nipype.dicom.recordings import Image, find_recordings, names
from qsm_nipype.errors import DataError, UsageError

PERSONAL = (
    "Doe^Jane",
    "101500",
    "ID4711",
    "19510203",
    "St Elsewhere",
    "20240607",
    "Dr Who",
    "call her",
)
STUDY = generate_uid(entropy_srcs=["study"])
#: Oblique, unequal voxels; i, j, k to RAS mm.
AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(x=0.2, y=-0.1, z=0.05) @ np.diag([1.5, 1.25, 2.0]), [-20, -30, 10]
)


def write_series(folder: Path, volume: np.ndarray, number: int, **elements) -> None:
    """One classic series: `volume` `(X, Y, Z)` of 16-bit values, a file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    size = np.linalg.norm(lps[:3, :3], axis=0)
    order = np.random.default_rng(number).permutation(volume.shape[2])
    for name, k in enumerate(order):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
            ExplicitVRLittleEndian,
            MRImageStorage,
        )
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        position = (lps @ [0, 0, k, 1])[:3]
        start = {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "MR",
            "Manufacturer": "SIEMENS",
            "PatientName": "Doe^Jane",
            "PatientID": "ID4711",
            "PatientBirthDate": "19510203",
            "StudyDate": "20240607",
            "InstitutionName": "St Elsewhere",
            "ReferringPhysicianName": "Dr Who",
            "ImageComments": "call her",
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": generate_uid(entropy_srcs=[STUDY, str(number)]),
            "FrameOfReferenceUID": STUDY,
            "SeriesNumber": number,
            "InstanceNumber": int(k) + 1 + 1000 * int(elements.get("EchoNumbers", 1)),
            "SeriesDescription": "gre qsm",
            "AcquisitionTime": "101500.00",
            "MagneticFieldStrength": 3,
            "ImagingFrequency": 123.2,
            "ScanningSequence": "GR",
            "SequenceVariant": "SP",
            "MRAcquisitionType": "3D",
            "RepetitionTime": 30,
            "FlipAngle": 15,
            "Rows": volume.shape[1],
            "Columns": volume.shape[0],
            "PixelSpacing": [float(size[1]), float(size[0])],
            "SliceThickness": float(size[2]),
            "SpacingBetweenSlices": float(size[2]),
            "ImageOrientationPatient": [*(lps[:3, 0] / size[0]), *(lps[:3, 1] / size[1])],
            "ImagePositionPatient": list(position),
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
        }
        for key, value in {**start, **elements}.items():
            setattr(dataset, key, value)
        dataset.PixelData = volume[:, :, k].T.astype("<u2").tobytes()
        dataset.save_as(folder / f"{number:03d}-{name:03d}", enforce_file_format=True)


def echoes(folder: Path, number: int, *, times=(4.92, 9.84), phase=True, magnitude=True, **more):
    """Magnitude series `number` and phase series `number` + 1; returns what was stored."""
    rng = np.random.default_rng(number)
    stored = {}
    for n, time in enumerate(times, 1):
        timing = {"EchoTime": time, "EchoNumbers": n}
        if magnitude:
            stored["mag", n] = rng.integers(0, 4096, (12, 10, 8))
            kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}
            write_series(folder / "m", stored["mag", n], number, **kind | timing | more)
            _renumber(folder / "m", n)
        if phase:
            stored["phase", n] = rng.integers(0, 4096, (12, 10, 8))
            kind = {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}
            scale = {"RescaleSlope": 2, "RescaleIntercept": -4096}
            write_series(
                folder / "p", stored["phase", n], number + 1, **kind | timing | scale | more
            )
            _renumber(folder / "p", n)
    return stored


def _renumber(folder: Path, echo: int) -> None:
    for path in folder.glob("???-???"):
        path.rename(path.with_name(f"{path.name}-e{echo}"))


def convert(source: Path, bids: Path, *more: str) -> int:
    return main([str(source), str(bids), "--participant-label", "01", *more])


def canonical(path_or_image) -> nib.Nifti1Image:
    image = nib.load(path_or_image) if isinstance(path_or_image, Path) else path_or_image
    return nib.as_closest_canonical(image)


def test_what_fails_half_way_leaves_nothing_and_may_be_given_again(tmp_path, monkeypatch):
    from qsm_nipype.dicom import command

    echoes(tmp_path / "dicom", 5)
    whole, bids = command.compress, tmp_path / "bids"

    def full_disk(source, target):
        if "echo-2" in target.name:
            raise OSError("no space left on device")
        whole(source, target)

    monkeypatch.setattr(command, "compress", full_disk)
    with pytest.raises(OSError, match="no space"):
        convert(tmp_path / "dicom", bids)
    assert not [path for path in bids.rglob("*") if path.is_file()]
    monkeypatch.setattr(command, "compress", whole)
    assert convert(tmp_path / "dicom", bids) == 0


def test_voxels_geometry_and_times_survive(tmp_path, capsys):
    stored = echoes(tmp_path / "dicom", 5)
    assert convert(tmp_path / "dicom", tmp_path / "bids") == 0
    (found,), refused = find_acquisitions(tmp_path / "bids", Selection())
    assert not refused and found.echo_times == pytest.approx((0.00492, 0.00984))
    assert found.b0 == pytest.approx(
        123.2 / 42.577478
    )  # the protons' frequency, not the rounded 3 T
    assert found.voxel_size == pytest.approx((1.5, 1.25, 2.0), abs=1e-4)
    for (part, n), values in stored.items():
        name = f"sub-01_echo-{n}_part-{part}_MEGRE"
        made = canonical(tmp_path / "bids" / "sub-01" / "anat" / f"{name}.nii.gz")
        scaled = 2.0 * values - 4096 if part == "phase" else values.astype(float)
        truth = canonical(nib.Nifti1Image(scaled, AFFINE))
        np.testing.assert_allclose(made.affine, truth.affine, atol=1e-3)
        np.testing.assert_array_equal(made.get_fdata(), truth.get_fdata())
    assert "next: qsm-nipype" in capsys.readouterr().out


def test_other_series_are_left_out_and_named(tmp_path, capsys):
    source = tmp_path / "dicom"
    echoes(source, 5)
    volume = np.ones((12, 10, 8), int)
    write_series(source, volume, 7, ScanningSequence=["EP", "GR"], EchoTime=30)
    write_series(source, volume, 8, ScanningSequence=["GR", "IR"], EchoTime=3)
    write_series(source, volume, 9, ImageType=["DERIVED", "PRIMARY", "M", "SWI"], EchoTime=20)
    write_series(source, volume, 10, ScanningSequence="SE", EchoTime=20)
    (source / "notes.txt").write_text("not DICOM")
    shutil.copytree(source / "p", source / "copy of p")
    raw = pydicom.dcmread(next((source / "m").iterdir()))
    del raw.PixelData, raw.Rows, raw.Columns
    raw.save_as(source / "000-raw")  # as Philips stores its own data among the images
    assert convert(source, tmp_path / "bids") == 0
    said = capsys.readouterr().out
    for words in ("echo planar", "inversion recovery", "computed by the scanner", "no gradient"):
        assert f"(left out: {words}" in said
    assert len(list((tmp_path / "bids").rglob("*.nii.gz"))) == 4


def test_nothing_personal_comes_along(tmp_path, capsys):
    echoes(tmp_path / "dicom", 5)
    convert(tmp_path / "dicom", tmp_path / "bids")
    said = capsys.readouterr().out
    for path in (p for p in (tmp_path / "bids").rglob("*") if p.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        for word in PERSONAL:
            assert word.encode() not in content and word not in said


def test_two_magnitudes_and_the_later_phase_are_a_field_map(tmp_path):
    echoes(tmp_path / "dicom", 2, phase=False)
    echoes(tmp_path / "dicom", 2, times=(9.84,), magnitude=False)
    assert convert(tmp_path / "dicom", tmp_path / "bids") == 0
    (found,), refused = find_acquisitions(tmp_path / "bids", Selection())
    assert not refused and found.suffix == "phasediff"
    assert found.echo_times == pytest.approx((0.00492,)) and len(found.magnitude) == 2
    sidecar = json.loads((tmp_path / "bids/sub-01/fmap/sub-01_phasediff.json").read_text())
    assert "EchoTime" not in sidecar and sidecar["Units"] == "arbitrary"


def test_one_echo_and_a_session(tmp_path):
    echoes(tmp_path / "dicom", 2, times=(20.0,))
    assert convert(tmp_path / "dicom", tmp_path / "bids", "--session-label", "ses-2") == 0
    (found,), refused = find_acquisitions(tmp_path / "bids", Selection())
    assert not refused and (found.suffix, found.session) == ("T2starw", "2")


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    echoes(tmp_path / "dicom", 5)
    assert convert(tmp_path / "dicom", tmp_path / "bids", "--dry-run") == 0
    assert not (tmp_path / "bids").exists()
    assert "sub-01_echo-2_part-phase_MEGRE.nii.gz" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path):
    echoes(tmp_path / "dicom", 5)
    convert(tmp_path / "dicom", tmp_path / "bids")
    with pytest.raises(UsageError, match="exists; remove it, or give another"):
        convert(tmp_path / "dicom", tmp_path / "bids")


def test_phase_without_its_magnitude_is_named_and_the_rest_converted(tmp_path, capsys):
    echoes(tmp_path / "dicom", 5)
    echoes(tmp_path / "dicom", 20, times=(3.0, 6.0), magnitude=False)
    assert convert(tmp_path / "dicom", tmp_path / "bids") == 1
    assert "left out: series 21: no magnitude images at its echo times (3, 6 ms)" in (
        capsys.readouterr().out
    )


def test_magnitude_alone_is_refused(tmp_path, capsys):
    echoes(tmp_path / "dicom", 5, phase=False)
    assert cli.main(
        ["convert", str(tmp_path / "dicom"), str(tmp_path / "bids"), "--participant-label", "1"]
    ) == 2  # fmt: skip
    assert "no gradient echo has phase and magnitude; export the phase" in capsys.readouterr().err
    assert not (tmp_path / "bids").exists()


def test_two_participants_or_examinations_are_refused(tmp_path):
    echoes(tmp_path / "a", 5)
    echoes(tmp_path / "a", 30, StudyInstanceUID=generate_uid())
    with pytest.raises(DataError, match="images of 2 examinations; convert each"):
        convert(tmp_path / "a", tmp_path / "bids")
    echoes(tmp_path / "b", 5)
    echoes(tmp_path / "b", 30, PatientID="ID4712")
    with pytest.raises(DataError, match="images of 2 participants; convert each"):
        convert(tmp_path / "b", tmp_path / "bids")


def test_unusable_folders_and_labels(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        convert(tmp_path / "missing", tmp_path / "bids")
    with pytest.raises(DataError, match="no DICOM files"):
        convert(tmp_path, tmp_path / "bids")
    with pytest.raises(UsageError, match="letters and digits only"):
        main([str(tmp_path), str(tmp_path), "--participant-label", "01_2"])


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ScanningSequence": "GR"}, ""),
        ({"ScanningSequence": "RM"}, ""),
        ({}, ""),
        ({"EchoPulseSequence": "GRADIENT", "EchoPlanarPulseSequence": "NO"}, ""),
        ({"EchoPulseSequence": "GRADIENT", "EchoPlanarPulseSequence": "YES"}, "echo planar"),
        ({"EchoPulseSequence": "SPIN"}, "no gradient echo"),
        ({"Modality": "CT"}, "no MR images"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MNIP"]}, "computed by the scanner"),
    ],
)
def test_headers_of_gradient_echoes_pass(elements, reason):
    header = pydicom.Dataset()
    for key, value in {"Modality": "MR", "Rows": 64, **elements}.items():
        setattr(header, key, value)
    assert why_left_out(header) == reason


def image(series, part, time, *, kind=(), description="gre", at="10:00:00.0", shape=(4, 4, 4)):
    """An image that was never written."""
    metadata = {"ImageType": list(kind), "AcquisitionTime": at}
    path = Path(f"{series}-{part}-{time}.nii")
    return Image(path, series, description, part, time, shape, np.eye(4), metadata)


def pairs(images):
    """Series of phase → series of magnitude."""
    found, faults = find_recordings(images)
    assert not faults
    return {
        next(i.series for i in r.images.values() if i.part in ("phase", "real")): next(
            i.series for i in r.images.values() if i.part in ("mag", "imag")
        )
        for r in found
    }


def test_phase_goes_with_the_magnitude_of_its_own_run_and_reconstruction():
    runs = [image(n, "mag", t, at=at) for n, at in ((2, "10:00:00"), (4, "10:10:00"))
            for t in (0.004, 0.008)]  # fmt: skip
    runs += [image(n, "phase", t, at=at) for n, at in ((8, "10:00:00"), (9, "10:10:00"))
             for t in (0.004, 0.008)]  # fmt: skip
    assert pairs(runs) == {8: 2, 9: 4}
    kinds = [image(n, part, 0.004, kind=("ORIGINAL", "PRIMARY", part[0].upper(), flag))
             for n, part, flag in ((2, "mag", "ND"), (3, "mag", "DIS2D"),
                                   (4, "phase", "DIS2D"), (5, "phase", "ND"))]  # fmt: skip
    assert pairs(kinds) == {4: 3, 5: 2}
    assert pairs([image(7, "real", 0.004), image(7, "imag", 0.004)]) == {7: 7}


def test_another_grid_and_repeated_echoes_are_refused():
    _, faults = find_recordings(
        [image(2, "mag", 0.004, shape=(4, 4, 5)), image(3, "phase", 0.004)]
    )
    assert faults == [
        "series 3: no magnitude images at its echo times (4 ms) on its grid; export them too"
    ]
    _, faults = find_recordings([image(2, "phase", 0.004), image(2, "phase", 0.004)])
    assert "several phase images of one echo time" in faults[0]
    _, faults = find_recordings([image(2, "phase", 0.004, shape=(4, 4, 4, 9))])
    assert "several volumes of one echo" in faults[0]


def test_acquisitions_get_names_of_their_own():
    def labels(*descriptions):
        images = [
            image(2 * n, part, 0.004, description=text, at=f"10:0{n}:00")
            for n, text in enumerate(descriptions)
            for part in ("mag", "phase")
        ]
        return list(names(find_recordings(images)[0]))

    assert labels("gre") == [{}]
    assert labels("gre 1 mm", "gre 2 mm") == [{"acq": "gre1mm"}, {"acq": "gre2mm"}]
    assert labels("gre", "gre") == [{"acq": "gre", "run": "1"}, {"acq": "gre", "run": "2"}]
