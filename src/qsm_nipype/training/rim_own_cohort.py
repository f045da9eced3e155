"""A user's own cohort for `qsm-nipype train rim`: derivatives and a table of rims → patients."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qsm_nipype.core.lesions import unit_grid
from qsm_nipype.core.registration import resample
from qsm_nipype.errors import DataError
from qsm_nipype.system.files import atomic
from qsm_nipype.training.cache import write
from qsm_nipype.training.rim_cohort import Patient, arrays_of
from qsm_nipype.volume import load

#: What a label may be: with rim, without, and what is left out.
_RIM, _OPEN = {"0": False, "1": True}, ("n/a", "unsure")

Labels = dict[str, dict[int, bool]]


def read_cohort(derivatives: Path, labels: Sequence[Path], cache: Path) -> None:
    """Write the acquisitions named in the tables `labels` into `cache`, as training takes them.

    `derivatives` is a qsm-nipype output folder made with `-d lesions=PATH`; for `labels` see
    `read_labels`. All of them are written or none; a cohort made of the same labels earlier is
    kept. Raises DataError.
    """
    table, used = read_labels(labels), cache / "labels.tsv"
    if cache.is_dir() and any(cache.iterdir()):
        if not used.exists() or read_labels([used]) != table:
            raise DataError(f"{cache}: holds another cohort than {labels[0]}; give another OUT")
        return
    with atomic(cache) as folder:
        folder.mkdir()
        for number, (acquisition, rims) in enumerate(sorted(table.items())):
            patient = _patient(derivatives, acquisition, rims)
            write(folder / f"patient-{number:04d}.npz", arrays_of(patient))
        (folder / used.name).write_text(_as_table(table), encoding="utf-8")


def read_labels(paths: Sequence[Path]) -> Labels:
    """Acquisition → lesion → whether it has a rim, of one reader's tables.

    A table is a TSV with the columns acquisition (`sub-01` …), index and rim: 0 or 1; lesions with
    n/a or unsure are left out. The pages of lesions save it. Raises DataError for other tables,
    for none with a label, and for a lesion that is labelled both ways.
    """
    found: Labels = {}
    for path in paths:
        for name, index, rim in _rows(path):
            if found.setdefault(name, {}).setdefault(index, rim) != rim:
                raise DataError(
                    f"{path}: lesion {index} of {name} is labelled 0 and 1; give the tables of "
                    "one reader, each lesion once"
                )
    if not found:
        raise DataError(f"{paths[0]}: no lesion with rim 0 or 1; fill the column rim")
    return found


def _as_table(labels: Labels) -> str:
    rows = (f"{name}\t{i}\t{int(r)}" for name, rims in labels.items() for i, r in rims.items())
    return "\n".join(["acquisition\tindex\trim", *rows]) + "\n"


def _rows(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Acquisition, lesion and whether it has a rim, where that is said."""
    if not path.is_file():
        raise DataError(f"{path}: no such table; give a TSV with acquisition, index and rim")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for line, row in enumerate(rows, start=2):
        try:
            name, index, rim = row["acquisition"], int(row["index"]), row["rim"].strip()
            if rim not in (*_RIM, *_OPEN):
                raise ValueError(rim)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise DataError(
                f"{path}, line {line}: needs acquisition, index and rim (0, 1, unsure or n/a) "
                f"({exc})"
            ) from exc
        if rim in _RIM:
            yield name, index, _RIM[rim]


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
