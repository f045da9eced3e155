"""`qsm-nipype convert DICOM_DIR BIDS_DIR`: the gradient echoes of an examination as BIDS."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np

from qsm_nipype import __version__
from qsm_nipype.dataset.derivatives import compress
from qsm_nipype.dataset.names import stem
from qsm_nipype.dicom.headers import Series, read_series
from qsm_nipype.dicom.recordings import Image, Recording, find_recordings, names, read_image
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.system.arguments import Parser
from qsm_nipype.system.files import write_json

#: What is kept of dcm2niix' sidecars: nothing about people, places, dates or devices' numbers.
KEPT = (
    *("Modality", "MagneticFieldStrength", "ImagingFrequency", "Manufacturer"),
    *("ManufacturersModelName", "SoftwareVersions", "BodyPart", "PatientPosition"),
    *("MRAcquisitionType", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName"),
    *("PulseSequenceType", "PulseSequenceDetails", "ImageType", "NonlinearGradientCorrection"),
    *("EchoTime", "RepetitionTime", "FlipAngle", "SliceThickness", "SpacingBetweenSlices"),
    *("PartialFourier", "PercentPhaseFOV", "PercentSampling", "PixelBandwidth", "DwellTime"),
    *("PhaseEncodingAxis", "PhaseEncodingDirection", "ParallelAcquisitionTechnique"),
    *("ParallelReductionFactorInPlane", "ParallelReductionFactorOutOfPlane"),
    *("ReceiveCoilName", "CoilCombinationMethod", "MatrixCoilMode", "CoilString"),
    *("ImageOrientationPatientDICOM", "ConversionSoftware", "ConversionSoftwareVersion"),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; 0: all converted, 1: some phase images could not be.

    Raises UsageError or DataError where nothing can be converted.
    """
    options = _parser().parse_args(argv)
    entities = _entities(options)
    chosen = _choose(options.dicom_dir)
    with tempfile.TemporaryDirectory(prefix="qsm-nipype-convert-") as scratch:
        images, faults = _convert(chosen, Path(scratch))
        recordings, more = find_recordings(images)
        faults += more
        if not recordings:
            raise DataError(
                f"{options.dicom_dir}: no gradient echo has phase and magnitude; export the phase "
                f"images too" + "".join(f"\n  {fault}" for fault in faults)
            )
        files = _targets(options.bids_dir, entities, recordings)
        for fault in faults:
            print(f"left out: {fault}")
        if any("_acq-" in target.name for target in files):
            print("acq- is made of the series' descriptions: look whether they name a person")
        for target, image in files.items():
            print(f"{target.relative_to(options.bids_dir)}  (series {image.series})")
        if not options.dry_run:
            _write(files)
    if options.dry_run:
        print("nothing was written")
    else:
        _describe(options.bids_dir)
        print(f"next: qsm-nipype {options.bids_dir} OUTPUT_DIR participant")
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsm-nipype convert",
        description="Convert the gradient echoes with phase of one examination from DICOM to "
        "BIDS, with dcm2niix. Other series are left out. The sidecars keep the physics of the "
        "acquisition only: no names, dates, places or serial numbers. Faces are not removed.",
    )
    parser.add_argument("dicom_dir", type=Path, help="folder with the DICOM files, at any depth")
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset, made or added to")
    label = parser.add_argument
    label("--participant-label", "--participant_label", required=True, metavar="LABEL",
          help="name of the participant in the dataset, with or without sub-")  # fmt: skip
    label("--session-label", metavar="LABEL", help="name of the session, if there are several")
    label("--dry-run", action="store_true", help="say what would be written")
    return parser


def _entities(options: argparse.Namespace) -> dict[str, str]:
    entities = {"sub": options.participant_label.removeprefix("sub-")}
    if options.session_label:
        entities["ses"] = options.session_label.removeprefix("ses-")
    for label in entities.values():
        if not re.fullmatch("[A-Za-z0-9]+", label):
            raise UsageError(f"the label {label!r} may have letters and digits only")
    return entities


def _choose(folder: Path) -> list[Series]:
    """The series that may be gradient echoes; prints all of them."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the folder with the DICOM files")
    series = read_series(folder)
    if not series:
        raise DataError(f"{folder}: no DICOM files; give the folder with the scanner's export")
    for one in series:
        verdict = f"left out: {one.left_out}" if one.left_out else "gradient echo"
        print(f"series {one.number:>5}  {len(one.files):>5} files  {one.description}  ({verdict})")
    chosen = [one for one in series if not one.left_out]
    for what, count in (
        ("participants", len({one.patient for one in chosen})),
        ("examinations", len({(one.patient, one.study) for one in chosen})),
    ):
        if count > 1:
            raise DataError(
                f"{folder}: images of {count} {what}; convert each from a folder of its own"
            )
    return chosen


def _convert(chosen: Sequence[Series], scratch: Path) -> tuple[list[Image], list[str]]:
    """The images of the series as NIfTI in `scratch`, and what could not be used."""
    images: list[Image] = []
    faults: list[str] = []
    for place, series in enumerate(chosen):
        links, out = scratch / f"{place}-in", scratch / f"{place}-out"
        links.mkdir()
        out.mkdir()
        for number, file in enumerate(series.files):
            (links / f"{number:06d}.dcm").symlink_to(file.absolute())
        said = _dcm2niix(links, out)
        made = sorted(out.glob("*.json"))
        if not made:
            faults.append(f"series {series.number}: dcm2niix could not convert it ({said})")
        for sidecar in made:
            _forget_description(sidecar.with_suffix(".nii"))
            metadata = json.loads(sidecar.read_text(encoding="utf-8"))
            file = sidecar.with_suffix(".nii")
            try:
                images.append(read_image(file, series.number, series.description, metadata))
            except DataError as exc:
                faults.append(str(exc))
    return images, faults


def _forget_description(file: Path) -> None:
    """Empty the NIfTI-1 header's text, where dcm2niix writes the time of the day."""
    with file.open("r+b") as stream:
        stream.seek(148)
        stream.write(bytes(80))


def _dcm2niix(folder: Path, out: Path) -> str:
    """Convert the files of one series; returns the last line that the program printed."""
    done = subprocess.run(
        [dcm2niix.bin, "-g", "i", "-b", "y", "-ba", "y", "-c", "", "-z", "n", "-w", "2",
         "-f", "image", "-o", str(out), str(folder)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else "no message"


def _targets(
    bids_dir: Path, entities: Mapping[str, str], recordings: Sequence[Recording]
) -> dict[Path, Image]:
    """Where each image goes. Raises UsageError if one of the files is there already."""
    files: dict[Path, Image] = {}
    root = bids_dir / f"sub-{entities['sub']}"
    if "ses" in entities:
        root /= f"ses-{entities['ses']}"
    for recording, more in zip(recordings, names(recordings), strict=True):
        start = stem({**entities, **more})
        for end, image in recording.images.items():
            files[root / recording.folder / f"{start}_{end}.nii.gz"] = image
    for target in files:
        if target.exists():
            raise UsageError(
                f"{target} exists; remove it, or give another --participant-label or "
                f"--session-label"
            )
    return files


def _write(files: Mapping[Path, Image]) -> None:
    """Write the images with their sidecars: all of them, or none."""
    try:
        for target, image in files.items():
            compress(image.file, target)
            write_json(_sidecar_path(target), _sidecar(target, image, files))
    except BaseException:
        for target in files:
            target.unlink(missing_ok=True)
            _sidecar_path(target).unlink(missing_ok=True)
        raise


def _sidecar_path(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def _sidecar(target: Path, image: Image, files: Mapping[Path, Image]) -> dict[str, Any]:
    """What is known of an image and says nothing of a person."""
    kept = {key: image.metadata[key] for key in KEPT if key in image.metadata}
    if image.part == "phase":
        kept["Units"] = _unit(image)
    if target.name.endswith("_phasediff.nii.gz"):
        del kept["EchoTime"]
        for n in (1, 2):
            other = target.with_name(target.name.replace("_phasediff.", f"_magnitude{n}."))
            kept[f"EchoTime{n}"] = files[other].echo_time
    return kept


def _unit(image: Image) -> str:
    """`rad` for values that fill −π to π, else `arbitrary`: the run finds out what they mean."""
    values = np.asarray(nib.load(image.file).dataobj)  # type: ignore[attr-defined]
    return "rad" if 3.0 < float(np.abs(values).max()) < 3.2 else "arbitrary"


def _describe(bids_dir: Path) -> None:
    """The dataset's description, unless there is one."""
    path = bids_dir / "dataset_description.json"
    if not path.exists():
        made_by = {"Name": "qsm-nipype convert", "Version": __version__}
        write_json(
            path,
            {
                "Name": bids_dir.absolute().name,
                "BIDSVersion": "1.10.0",
                "DatasetType": "raw",
                "GeneratedBy": [made_by],
            },
        )
