"""In which units phase is stored: the ranges in use, and the words for them.

`rad`, `mrad`, `deg` and `cycles` are words; `LOW..HIGH` is one turn from LOW to HIGH, as in
`-4096..4095`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from qsm_nipype.core.phase import TWO_PI
from qsm_nipype.errors import UsageError


@dataclass(frozen=True)
class Unit:
    """A way to store phase: the `low` end of its range, the length of a `turn`, phase 0."""

    name: str
    low: float
    turn: float
    zero: float = 0.0

    @property
    def high(self) -> float:
        """The end of the turn that begins at `low`."""
        return self.low + self.turn


#: Ranges in use.
RANGES = (
    Unit("radians", -math.pi, TWO_PI),
    Unit("radians", 0, TWO_PI),
    Unit("degrees −180…180", -180, 360),
    Unit("degrees 0…360", 0, 360, 180),
    Unit("8-bit 0…255", 0, 256, 128),
    Unit("12-bit −2048…2047", -2048, 4096),
    Unit("milliradians −3142…3142 (GE, Philips)", -1000 * math.pi, 1000 * TWO_PI),
    Unit("12-bit 0…4095 (Siemens)", 0, 4096, 2048),
    Unit("13-bit −4096…4095 (Siemens)", -4096, 8192),
    Unit("milliradians 0…6283", 0, 1000 * TWO_PI, 1000 * math.pi),
    Unit("16-bit −32768…32767", -32768, 65536),
    Unit("16-bit 0…65535", 0, 65536, 32768),
    Unit("half turns −1…1", -1, 2),
    Unit("cycles −0.5…0.5", -0.5, 1),
    Unit("cycles 0…1", 0, 1, 0.5),
)
#: Which of them, by words in their names, a maker's integers may be.
_MAKERS = {"siemens": ("Siemens",), "ge": ("GE",), "philips": ("Philips", "12-bit 0…4095")}
_WORDS = {
    "rad": Unit("radians", -math.pi, TWO_PI),
    "mrad": Unit("milliradians", -1000 * math.pi, 1000 * TWO_PI),
    "deg": Unit("degrees", -180, 360),
    "cycles": Unit("cycles", -0.5, 1),
}
_SPELLINGS = {
    **dict.fromkeys(("rad", "rads", "radian", "radians"), "rad"),
    **dict.fromkeys(("mrad", "milliradian", "milliradians"), "mrad"),
    **dict.fromkeys(("deg", "degree", "degrees", "°"), "deg"),
    **dict.fromkeys(("cycle", "cycles", "turn", "turns"), "cycles"),
}
_NUMBER = r"\s*([-+−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*"


def parse_units(text: str) -> Unit:
    """`rad`, `mrad`, `deg`, `cycles` or `LOW..HIGH` → the unit. Raises UsageError."""
    found = worded(text)
    if found is not None:
        return found
    ends = re.fullmatch(rf"{_NUMBER}(?:\.\.|…){_NUMBER}", text)
    low, high = (float(e.replace("−", "-")) for e in ends.groups()) if ends else (0.0, 0.0)
    if not low < high < math.inf:
        raise UsageError(
            f"--phase-units {text}: give rad, mrad, deg, cycles, or the range of one turn as in "
            "--phase-units -4096..4095"
        )
    known = nearest(low, high, tolerance=1e-3)
    # 0..4000 holds 4001 integers, but few tools that write such ranges count so
    return known or Unit(f"{low:g}…{high:g} is one turn", low, high - low, (low + high) / 2)


def worded(text: str) -> Unit | None:
    """The unit that a word names; None for another word."""
    key = _SPELLINGS.get(text.strip().lower())
    return _WORDS[key] if key else None


def nearest(low: float, high: float, *, tolerance: float = 0.01, step: float = 0) -> Unit | None:
    """The range in use that ends where [low, high] does, within `tolerance` of a turn.

    Of values in steps, the highest may be one `step` below the end of the turn.
    """
    for unit in RANGES:
        slack = tolerance * unit.turn
        below = abs(high - unit.high) <= slack or abs(high + step - unit.high) <= slack
        if abs(low - unit.low) <= slack and below:
            return unit
    return None


def of_maker(maker: str, low: float, high: float) -> Unit | None:
    """The narrowest of a maker's ranges that holds integers from `low` to `high`.

    They must take a quarter of it: fewer could be anything.
    """
    for key, words in _MAKERS.items():
        if maker.lower().startswith(key):
            fitting = [
                u
                for u in RANGES
                if any(word in u.name for word in words)
                and u.low - 0.001 * u.turn <= low
                and high <= u.high + 0.001 * u.turn
                and high - low > 0.25 * u.turn
            ]
            return min(fitting, key=lambda u: u.turn, default=None)
    return None


def of_header(slope: float, intercept: float) -> Unit | None:
    """Radians or milliradians where slope and intercept make one turn of a range of integers.

    So Philips stores: 0…4095 becomes −π…π or −3142…3142.
    """
    for unit in (_WORDS["rad"], _WORDS["mrad"]):
        levels = unit.turn / slope if slope > 0 else 0.0
        whole = any(abs(levels - 2**bits) < 0.005 * 2**bits for bits in (8, 10, 12, 14, 16))
        if whole and min(abs(intercept - low) for low in (unit.low, 0.0)) < 0.005 * unit.turn:
            return unit
    return None
