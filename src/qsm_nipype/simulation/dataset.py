"""Scans as a BIDS dataset, with the truth as a derivative dataset inside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np

from qsm_nipype import __version__
from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.errors import UsageError
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.scanner.storage import Stored, ge, philips, radians, siemens
from qsm_nipype.simulation.signal import Scan

TRUTH = "derivatives/truth"
#: how phase can be stored; "int16" is the name that Siemens' integers had first
PHASES = MappingProxyType(
    {"rad": radians, "int16": siemens, "siemens": siemens, "ge": ge, "philips": philips}
)
_NAME = "Simulated heads for quantitative susceptibility mapping"
_README = """SIMULATED data: no human being was scanned.

Multi-echo gradient-echo images made by `qsm-nipype simulate` (version {version}) from a digital
head. The truth behind them (susceptibility, fields, brain mask, labels) is the derivative
dataset in {truth}.
"""
_TRUTH_README = """SIMULATED data: the truth behind the images of the dataset two folders up.

Chimap: susceptibility in ppm inside the brain, zero mean over the brain mask, zero outside.
desc-total_fieldmap: field shift in ppm of B0 after shimming, everywhere.
desc-local_fieldmap: the part made by Chimap, zero outside the brain mask.
dseg: tissue labels, explained in the tsv; 1 to 16 as in the QSM-CI head phantom.
"""


def write_description(root: Path) -> None:
    """The dataset-level files of the raw dataset and of its truth."""
    truth = root / TRUTH
    truth.mkdir(parents=True, exist_ok=True)
    generated = {"Name": "qsm-nipype simulate", "Version": __version__}
    _json(
        root / "dataset_description.json",
        {
            "Name": _NAME,
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["qsm-nipype simulate"],
            "GeneratedBy": [generated],
        },
    )
    (root / "README").write_text(_README.format(version=__version__, truth=TRUTH))
    _json(
        truth / "dataset_description.json",
        {
            "Name": "Truth of the simulated heads",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "CC0",
            "Authors": ["qsm-nipype simulate"],
            "GeneratedBy": [generated],
            "SourceDatasets": [{"URL": "file://../.."}],
        },
    )
    (truth / "README").write_text(_TRUTH_README)
    (truth / ".bidsignore").write_text("*_fieldmap.nii.gz\n*_fieldmap.json\n")
    rows = [f"{k}\t{abbreviation}\t{name}" for k, (abbreviation, name) in lab.LABELS.items()]
    (truth / "desc-tissue_dseg.tsv").write_text(
        "\n".join(["index\tabbreviation\tname", *rows]) + "\n"
    )


def forget_scans(root: Path) -> None:
    """Delete the participants, and their truth, of a dataset that `write_description` began.

    Raises UsageError for any other folder, and deletes nothing there.
    """
    try:
        ours = json.loads((root / "dataset_description.json").read_text())["Name"] == _NAME
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UsageError(f"{root} holds no simulated dataset to replace; choose a new folder")
    for folder in (*root.glob("sub-*"), *(root / TRUTH).glob("sub-*")):
        shutil.rmtree(folder)


def write_participants(root: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """`participants.tsv` with its dictionary; `rows` maps sub-XX to {seed, b0, voxel_size …}."""
    columns = list(next(iter(rows.values())))
    lines = ["\t".join(["participant_id", *columns])]
    lines += ["\t".join([name, *(str(row[c]) for c in columns)]) for name, row in rows.items()]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    _json(
        root / "participants.json",
        {c: {"Description": f"{c.replace('_', ' ')} of the simulation"} for c in columns},
    )


def write_scan(
    root: Path,
    subject: str,
    scan: Scan,
    *,
    phase: str = "rad",
    session: str | None = None,
) -> Path:
    """Write the echoes of `scan`, and its truth under `derivatives/truth`.

    `phase` is one of `PHASES`: "rad" stores float32 radians, the others a vendor's integers
    (Siemens, General Electric: Units arbitrary; Philips: slope and intercept that make rad).
    `scan.extra` adds images named by suffix ("FLAIR", "T1w"). Returns the anat folder. Raises
    ValueError for uncombined coils.
    """
    if scan.magnitude.ndim != 4:
        raise ValueError("combine the coils before writing a dataset")
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    folder = Path(*stem.split("_"), "anat")
    anat = root / folder
    anat.mkdir(parents=True, exist_ok=True)
    scale = 1000.0 / max(float(np.percentile(scan.magnitude[..., 0], 99.5)), 1e-12)
    for number, echo_time in enumerate(scan.protocol.echo_times):
        name = anat / f"{stem}_echo-{number + 1}"
        sidecar = _sidecar(scan, number, echo_time)
        magnitude = scan.magnitude[..., number] * scale
        _image(Path(f"{name}_part-mag_MEGRE"), magnitude, scan, {**sidecar, "Units": "arbitrary"})
        stored = _stored_phase(scan.phase[..., number], phase)
        known = {**sidecar, "Units": stored.units}
        scaling = (stored.slope, stored.intercept)
        _image(Path(f"{name}_part-phase_MEGRE"), stored.values, scan, known, scaling)
    common = {"MagneticFieldStrength": scan.protocol.b0, "Manufacturer": "Simulated"}
    for suffix, image in scan.extra.items():
        level = 1000.0 / max(float(np.percentile(image, 99.5)), 1e-12)
        _image(anat / f"{stem}_{suffix}", image * level, scan, common)
    _write_truth(root / TRUTH / folder, stem, scan)
    return anat


def _sidecar(scan: Scan, number: int, echo_time: float) -> dict[str, Any]:
    protocol = scan.protocol
    return {
        "EchoTime": echo_time,
        "EchoNumber": number + 1,
        "RepetitionTime": protocol.repetition_time,
        "RepetitionTimeExcitation": protocol.repetition_time,
        "FlipAngle": protocol.flip_angle,
        "MagneticFieldStrength": protocol.b0,
        "ImagingFrequency": round(protocol.b0 * GYROMAGNETIC_RATIO, 6),
        "MRAcquisitionType": "3D",
        "Manufacturer": "Simulated",
        "PulseSequenceType": "Multi-echo gradient echo",
    }


def _stored_phase(phase: np.ndarray, kind: str) -> Stored:
    if kind not in PHASES:
        raise ValueError(f"phase is stored as one of {', '.join(PHASES)}, not '{kind}'")
    return PHASES[kind](phase)


def _write_truth(folder: Path, stem: str, scan: Scan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ppm = {"Units": "ppm", "SkullStripped": False}
    name = folder / stem
    known = {"Description": "Susceptibility put into the simulation", "SkullStripped": True}
    _image(Path(f"{name}_Chimap"), scan.truth.chi, scan, {**ppm, **known})
    _image(Path(f"{name}_desc-total_fieldmap"), scan.truth.total, scan, ppm)
    local = np.where(scan.brain, scan.truth.local, 0)
    _image(Path(f"{name}_desc-local_fieldmap"), local, scan, {**ppm, "SkullStripped": True})
    _image(Path(f"{name}_desc-brain_mask"), scan.brain.astype(np.uint8), scan, {"Type": "Brain"})
    labels = scan.head.labels
    _image(Path(f"{name}_desc-tissue_dseg"), labels, scan, {"Manual": False})
    lesions = np.isin(labels, (lab.LESION, lab.LESION_RIM))
    if lesions.any():
        lesion = lesions.astype(np.uint8)
        _image(Path(f"{name}_label-lesion_mask"), lesion, scan, {"Type": "Lesion"})


def _image(
    stem: Path,
    data: np.ndarray,
    scan: Scan,
    sidecar: Mapping[str, Any],
    scaling: tuple[float, float] = (1.0, 0.0),
) -> None:
    kept = data if data.dtype in (np.uint8, np.int16) else data.astype(np.float32)
    image = nib.Nifti1Image(kept, scan.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(scan.affine, code=1)
    image.set_qform(scan.affine, code=1)
    if scaling != (1.0, 0.0):
        image.header.set_slope_inter(*scaling)
    nib.save(image, f"{stem}.nii.gz")
    _json(Path(f"{stem}.json"), sidecar)


def _json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
