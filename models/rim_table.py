"""From lesions to the table of which have a rim: every lesion a row, whatever it is like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsm_nipype.core.geometry import voxel_size
from qsm_nipype.core.lesions import Lesion, describe
from qsm_nipype.models.rim import Classifier, predict_rims

#: columns of the table → what they hold
COLUMNS = {
    "index": "Label in the image",
    "name": "What the lesion was taken for",
    "x": "Centre, scanner coordinate to the right (mm)",
    "y": "Centre, scanner coordinate to the front (mm)",
    "z": "Centre, scanner coordinate upwards (mm)",
    "volume_mm3": "Volume",
    "chi_core_mean": "Mean susceptibility deeper than 1.5 mm (ppm)",
    "chi_core_sd": "Its standard deviation (ppm)",
    "chi_rim_mean": "Mean susceptibility of the outer 1.5 mm (ppm)",
    "chi_rim_sd": "Its standard deviation (ppm)",
    "rim_probability": "Probability of a paramagnetic rim",
    "rim": "1: with rim, 0: without, n/a: not classified",
    "certainty": "clear, or indeterminate: the probability is nearer to the threshold of `rim` "
    "than to 0 or 1 (a convention)",
    "note": "Why it was not classified, or what to mind",
}
#: a lesion of which less is known is not classified
KNOWN = 0.5


@dataclass(frozen=True)
class Row:
    """A lesion with its place (mm), probability and decision; None where not classified."""

    lesion: Lesion
    place: tuple[float, float, float]
    probability: float | None
    rim: bool | None
    note: str = ""
    certain: bool | None = None

    @property
    def name(self) -> str:
        """What it was taken for."""
        if self.rim is None:
            return "lesion"
        return "lesion with rim" if self.rim else "lesion without rim"

    @property
    def certainty(self) -> str:
        """Clear, indeterminate, or n/a."""
        return "n/a" if self.certain is None else "clear" if self.certain else INDETERMINATE


#: What `certainty` says of a probability near the threshold.
INDETERMINATE = "indeterminate"

#: How the note of a lesion below the volume that was asked for begins.
_SMALL = "smaller than"


@dataclass(frozen=True)
class Found:
    """All lesions of an acquisition."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def rims(self) -> int:
        """How many have a rim."""
        return sum(bool(row.rim) for row in self.rows)

    def tsv(self) -> str:
        """The table, `COLUMNS` by name, n/a for what is not known."""
        lines = ["\t".join(COLUMNS)]
        for row in self.rows:
            lesion = row.lesion
            values = [*(lesion.core or (None, None)), *(lesion.rim or (None, None))]
            cells = [str(lesion.index), row.name, *(f"{v:.1f}" for v in row.place)]
            cells += [
                f"{lesion.volume:.1f}",
                *("n/a" if v is None else f"{v:.5f}" for v in values),
            ]
            cells.append("n/a" if row.probability is None else f"{row.probability:.4f}")
            cells.append("n/a" if row.rim is None else str(int(row.rim)))
            cells += [row.certainty, row.note or "n/a"]
            lines.append("\t".join(cells))
        return "\n".join(lines) + "\n"

    def numbers(self) -> dict[str, dict[str, object]]:
        """Counts for the record, as `core.quality` gives numbers."""
        classified = sum(row.rim is not None for row in self.rows)
        entries = {
            "lesions": (len(self.rows), "lesions in the mask"),
            "lesions_classified": (classified, "lesions whose rim could be judged"),
            "rim_lesions": (self.rims, "lesions with a paramagnetic rim"),
        }
        return {
            name: {"value": value, "unit": "", "description": text}
            for name, (value, text) in entries.items()
        }


def classify(
    chi: np.ndarray,
    flair: np.ndarray,
    known: np.ndarray,
    instances: np.ndarray,
    affine: np.ndarray,
    classifier: Classifier,
    *,
    min_volume: float,
    device: str = "cpu",
) -> Found:
    """Probability of a rim for each lesion of `instances`; arguments as for `models.rim.rate`.

    A lesion smaller than `min_volume` (mm³), or of which less than half lies where the
    susceptibility is known, keeps its row and is not classified.
    """
    lesions = describe(instances, chi, known, voxel_size(affine))
    notes = {x.index: _obstacle(x, min_volume) for x in lesions}
    wanted = [index for index, note in notes.items() if not note]
    kept = np.where(np.isin(instances, wanted), instances, 0)
    chances = predict_rims(chi, flair, known, kept, affine, classifier, device=device)
    rows = []
    for lesion in lesions:
        place = affine[:3, :3] @ np.asarray(lesion.center) + affine[:3, 3]
        chance = float(chances[lesion.index - 1]) if lesion.index in wanted else math.nan
        note = notes[lesion.index]
        if not note and math.isnan(chance):
            note = "vanishes on the network's grid of 1 mm"
        elif not note and lesion.inside < 1:
            note = f"susceptibility known in {lesion.inside:.0%} of it"
        probability = None if math.isnan(chance) else chance
        rim = None if probability is None else probability >= classifier.threshold
        certain = None if probability is None else is_clear(probability, classifier.threshold)
        rows.append(Row(lesion, tuple(place.tolist()), probability, rim, note, certain))
    small = sum(row.rim is None and row.note.startswith(_SMALL) for row in rows)
    others = sum(row.rim is None for row in rows) - small
    where = f"of {len(rows)} lesions"
    return Found(
        tuple(rows),
        (*_sentence(small, where, f"are {_SMALL} {min_volume:g} mm³"), *_unclear(rows)),
        _sentence(others, where, "are outside the map or vanish in it"),
    )


def is_clear(probability: float, threshold: float) -> bool:
    """Whether a probability is not nearer to the threshold than to 0 and 1."""
    return not threshold / 2 < probability < (1 + threshold) / 2


def _unclear(rows: Sequence[Row]) -> tuple[str, ...]:
    """How many decisions a reader should look at; nothing where there are none."""
    number = sum(row.certain is False for row in rows)
    judged = sum(row.rim is not None for row in rows)
    return (
        f"{number} of {judged} classified lesions have an {INDETERMINATE} rim probability, nearer "
        "to the threshold than to 0 or 1; see the table.",
    ) * (number > 0)


def _obstacle(lesion: Lesion, min_volume: float) -> str:
    """Why a lesion cannot be classified; empty when it can."""
    if lesion.inside < KNOWN:
        where = "outside" if lesion.inside == 0 else f"{1 - lesion.inside:.0%} outside"
        return f"{where} the mask of the susceptibility map"
    if lesion.volume < min_volume:
        return f"{_SMALL} {min_volume:g} mm³"
    return ""


def _sentence(number: int, where: str, why: str) -> tuple[str, ...]:
    """What is said of lesions without a rim probability; nothing where there are none."""
    return (f"{number} {where} {why} and have no rim probability; see the table.",) * (number > 0)
