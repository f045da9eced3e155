"""A user's own cohort for `qsm-nipype train rim`: derivatives and a table of rims → patients."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from qsm_nipype.core.lesions import unit_grid
from qsm_nipype.core.registration import resample
from qsm_nipype.errors import DataError
from qsm_nipype.system.files import atomic
from qsm_nipype.training.cache import write
from qsm_nipype.training.rim_cohort import Patient, arrays_of
from qsm_nipype.volume import load


def read_cohort(derivatives: Path, labels: Path, cache: Path) -> None:
    """Write the acquisitions named in the table `labels` into `cache`, as training takes them.

    `derivatives` is a qsm-nipype output folder made with `-d lesions=PATH`; `labels` is a TSV
    with the columns acquisition (`sub-01` …), index and rim (0 or 1). All of them are written or
    none; a cohort made of the same table earlier is kept. Raises DataError.
    """
    table, text, used = _read_labels(labels), labels.read_bytes(), cache / "labels.tsv"
    if cache.is_dir() and any(cache.iterdir()):
        if not used.exists() or used.read_bytes() != text:
            raise DataError(f"{cache}: holds another cohort than {labels}; give another OUT")
        return
    with atomic(cache) as folder:
        folder.mkdir()
        for number, (acquisition, rims) in enumerate(sorted(table.items())):
            patient = _patient(derivatives, acquisition, rims)
            write(folder / f"patient-{number:04d}.npz", arrays_of(patient))
        (folder / used.name).write_bytes(text)


def _read_labels(path: Path) -> dict[str, dict[int, bool]]:
    """Acquisition → lesion → whether it has a rim; lesions marked n/a are left out."""
    if not path.is_file():
        raise DataError(f"{path}: no such table; give a TSV with acquisition, index and rim")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    found: dict[str, dict[int, bool]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            name, index, rim = row["acquisition"], int(row["index"]), row["rim"].strip()
            if rim not in ("0", "1", "n/a"):
                raise ValueError(rim)
        except (KeyError, TypeError, ValueError) as exc:
            raise DataError(
                f"{path}, line {line}: needs acquisition, index and rim (0, 1 or n/a) ({exc})"
            ) from exc
        if rim != "n/a":
            found.setdefault(name, {})[index] = rim == "1"
    if not found:
        raise DataError(f"{path}: no lesion with rim 0 or 1; fill the column rim")
    return found


def _patient(derivatives: Path, acquisition: str, rims: dict[int, bool]) -> Patient:
    """The maps of an acquisition on the network's grid, its labelled lesions numbered 1, 2 …"""
    names = ("Chimap", "desc-registered_FLAIR", "desc-lesions_dseg", "desc-chi_mask")
    chi, flair, labels, mask = (
        load(_find(derivatives, acquisition, name), dtype=kind)
        for name, kind in zip(names, ("f4", "f4", "i4", "f4"), strict=True)
    )
    kept = np.zeros_like(labels.data)
    present = [index for index in sorted(rims) if (labels.data == index).any()]
    if len(present) < len(rims):
        lost = sorted(set(rims) - set(present))[0]
        raise DataError(
            f"{labels.path}: there is no lesion {lost} of the table; correct the table"
        )
    for new, old in enumerate(present, start=1):
        kept[labels.data == old] = new
    shape, onto = unit_grid(chi.data.shape, chi.affine)

    def on_grid(values: np.ndarray, *, discrete: bool = False) -> np.ndarray:
        return resample(values, chi.affine, shape, onto, labels=discrete)

    return Patient(
        chi=on_grid(chi.data),
        flair=on_grid(flair.data),
        instances=on_grid(kept, discrete=True),
        mask=on_grid((mask.data > 0.5).astype(np.uint8), discrete=True) > 0,
        rim=np.array([rims[index] for index in present], bool),
    )


def _find(derivatives: Path, acquisition: str, name: str) -> Path:
    found = sorted(derivatives.rglob(f"anat/{acquisition}_{name}.nii.gz"))
    if not found:
        raise DataError(
            f"{derivatives}: no {acquisition}_{name}.nii.gz; run qsm-nipype with -d lesions=PATH"
        )
    return found[0]
