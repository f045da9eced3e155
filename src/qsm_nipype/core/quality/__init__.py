"""Quality of a map: what can be trusted, and what a reader would see."""

from qsm_nipype.core.quality.measures import measured
from qsm_nipype.core.quality.numbers import (
    CAUSES,
    REFUSED_SHARE,
    UNRELIABLE_RESIDUAL,
    WARNED_SHARE,
    reference_number,
    trimming,
    volume_numbers,
)
from qsm_nipype.core.quality.seen import Seen, look, turn_of

__all__ = [
    "CAUSES",
    "REFUSED_SHARE",
    "UNRELIABLE_RESIDUAL",
    "WARNED_SHARE",
    "Seen",
    "look",
    "measured",
    "reference_number",
    "trimming",
    "turn_of",
    "volume_numbers",
]
