"""One's own pairs of local field and susceptibility, to train the QSMGAN on.

A pair is `NAME_desc-local_fieldmap.nii.gz` beside `NAME_Chimap.nii.gz` in a folder of BIDS
derivatives, as this program writes them, both in ppm; χ may come from anywhere (COSMOS, another
tool). `NAME_desc-chi_mask.nii.gz` is where χ is known; without it, where it is not zero.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.core.fourier import working_grid
from qsm_nipype.errors import DataError
from qsm_nipype.models.frames import network_frame
from qsm_nipype.models.qsmgan import first_guesses
from qsm_nipype.training.cache import fill_cache
from qsm_nipype.training.qsmgan_data import packed
from qsm_nipype.training.sources import Sample
from qsm_nipype.volume import load_like, load_one

FIELD, CHI, MASK = "_desc-local_fieldmap", "_Chimap", "_desc-chi_mask"
#: Of a map in ppm no median of |value| is this large.
LARGEST_MEDIAN = 1.0


@dataclass(frozen=True)
class Pair:
    """The files of one scan; `mask` may be None."""

    participant: str
    field: Path
    chi: Path
    mask: Path | None


def find_pairs(folder: Path) -> list[Pair]:
    """Every pair below `folder`, in the order of participants. Raises DataError without any."""
    pairs = []
    for field in sorted(folder.rglob(f"*{FIELD}.nii*")):
        name, end = field.name.split(FIELD)
        chi, mask = (field.with_name(f"{name}{kind}{end}") for kind in (CHI, MASK))
        if chi.is_file():
            participant = name.split("_")[0]
            pairs.append(Pair(participant, field, chi, mask if mask.is_file() else None))
    if not pairs:
        raise DataError(
            f"{folder}: there is no pair of NAME{FIELD}.nii.gz and NAME{CHI}.nii.gz; give the "
            "folder of derivatives that holds them"
        )
    return sorted(pairs, key=lambda pair: (pair.participant, pair.field))


def split(pairs: Sequence[Pair], held_out: int) -> tuple[list[int], list[int]]:
    """Numbers of the pairs to train on and of those of the first `held_out` participants.

    Nobody is in both. Raises DataError where that leaves none to train on.
    """
    people = sorted({pair.participant for pair in pairs})
    if len(people) <= held_out:
        raise DataError(
            f"{len(people)} participants have pairs, and {held_out} are to be held out; give "
            "fewer to --held-out, or more participants"
        )
    kept = set(people[:held_out])
    numbers = range(len(pairs))
    return (
        [n for n in numbers if pairs[n].participant not in kept],
        [n for n in numbers if pairs[n].participant in kept],
    )


def read_pair(pair: Pair, *, guesses: bool) -> Sample:
    """The pair in the 1 mm frame along B0, χ (ppm) relative to its mean, with first `guesses`.

    Raises DataError for maps that are not of one grid, empty, or not in ppm.
    """
    field = load_one(pair.field)
    chi = load_like(field, pair.chi)
    _check_unit(pair.field, field.data)
    _check_unit(pair.chi, chi.data)
    known = chi.data != 0 if pair.mask is None else load_like(field, pair.mask).data > 0.5
    known &= np.isfinite(field.data) & np.isfinite(chi.data)
    if not known.any():
        raise DataError(f"{pair.chi}: no voxel of it is known; leave the pair out")
    mask = torch.from_numpy(known)
    case = torch.from_numpy(np.where(known, field.data, 0)).float()
    truth = torch.from_numpy(np.where(known, chi.data, 0)).float()
    truth = torch.where(mask, truth - truth[mask].mean(), 0)
    volumes = [case, truth]
    if guesses:
        noise = field_noise(case, mask, field.voxel_size, field.b0_dir)
        volumes += first_guesses(case, mask, field.voxel_size, field.b0_dir, noise=noise)
    frame = network_frame(case.shape, field.voxel_size, field.b0_dir)
    where = frame.enter(mask.float()) > 0.5
    box = working_grid(where).box
    inside = where[box].numpy()
    local, target, *more = (np.where(inside, frame.enter(x)[box].numpy(), 0) for x in volumes)
    return Sample(target, local, inside, np.stack(more) if more else None)


def make_cache(folder: Path, pairs: Sequence[Pair], *, guesses: bool, workers: int) -> list[Path]:
    """Write every pair into `folder` as training reads it, skipping those already there."""
    made_with = {
        "pairs": [[str(p.field), p.field.stat().st_size, p.field.stat().st_mtime] for p in pairs],
        "guesses": "whtv" if guesses else "none",
    }

    def make(number: int) -> dict[str, np.ndarray]:
        return packed(read_pair(pairs[number], guesses=guesses))

    count = len(pairs)
    return fill_cache(folder, "pair", count, make, made_with=made_with, workers=workers)


def _check_unit(path: Path, data: np.ndarray) -> None:
    """Refuse a map whose sidecar or size says that it is not in ppm. Raises DataError."""
    sidecar = path.with_name(path.name.split(".nii")[0] + ".json")
    unit = ""
    if sidecar.is_file():
        try:
            said = json.loads(sidecar.read_text(encoding="utf-8"))
            unit = str(said.get("Units", ""))
        except (ValueError, AttributeError) as exc:
            raise DataError(f"{sidecar}: it is no JSON object; mend it or take it away") from exc
    values = np.abs(data[np.isfinite(data) & (data != 0)])
    middle = float(np.median(values)) if values.size else 0.0
    if unit not in ("", "ppm") or middle > LARGEST_MEDIAN:
        raise DataError(
            f"{path}: it is in {unit or f'another unit than ppm (its median is {middle:.3g})'}; "
            "give maps in ppm"
        )
