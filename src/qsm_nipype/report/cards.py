"""The numbers of an acquisition, each with its unit and what is usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qsm_nipype.ranges import limits
from qsm_nipype.record import Number
from qsm_nipype.report.words import format_measure
from qsm_nipype.verdict import usual_range

#: the key numbers in the order of the group's table, with the labels of those that are not judged
HEADLINES: dict[str, str] = {
    "mask_volume": "",
    "mask_kept": "",
    "mask_reliable": "Mask after trimming",
    "field_noise": "Field noise, median",
    "residual": "",
    "unreliable_fraction": "",
    "reference": "Reference region",
    "chi_sd": "SD of χ",
    "chi_p01": "χ, 1st percentile",
    "chi_p99": "χ, 99th percentile",
    "r2star": "R2*, median",
    "dentate_left_volume": "Left dentate, volume",
    "dentate_right_volume": "Right dentate, volume",
    "dentate_asymmetry": "Dentates, left over right",
}
#: what a reader looks at first; the others are folded away while they are as usual
FIRST = (
    *("chi_nuclei", "chi_spread", "mask_volume", "mask_kept", "shading", "streaks"),
    *("misfit", "residual_p90", "noise_cube", "dentate_left_chi", "dentate_right_chi"),
)


@dataclass(frozen=True)
class Card:
    """One number; `hint` says what is usual, `tip` what it is and means.

    `mark` is empty, caution or bad; a `minor` one is folded away.
    """

    label: str
    value: str
    unit: str = ""
    hint: str = ""
    tip: str = ""
    mark: str = ""
    minor: bool = False


def label_of(name: str) -> str:
    """The label of a number: that of its range, of `HEADLINES`, or its name."""
    known = limits().get(name)
    label = known.label if known else HEADLINES.get(name, "")
    return label or name.replace("_", " ").capitalize()


def make_cards(numbers: Mapping[str, Number]) -> tuple[Card, ...]:
    """Bad numbers first, then unusual ones, then those of `FIRST`, then the others."""
    order = [n for n in FIRST if n in numbers] + [n for n in numbers if n not in FIRST]
    order.sort(key=lambda name: ("bad", "unusual").index(j)
               if (j := numbers[name].judgement) in ("bad", "unusual") else 2)  # fmt: skip
    return tuple(_card(name, numbers[name]) for name in order)


def _card(name: str, number: Number) -> Card:
    """A number with what is usual; why it is unusual stands in the verdict, and on hovering."""
    text = format_measure(number.value, number.unit)
    if number.sd is not None:
        text += f" ± {format_measure(number.sd, number.unit)}"
    mark = {"bad": "bad", "unusual": "caution"}.get(number.judgement, "")
    usual = usual_range(number).replace("-", "−")
    hint = f"usual: {usual} {number.unit}".strip() if usual else number.description
    tip = ": ".join(part for part in (number.description, number.reason if mark else "") if part)
    return Card(label_of(name), text, number.unit, hint, tip, mark, not mark and name not in FIRST)
