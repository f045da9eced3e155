"""The mask language: which masks to intersect, and what to do to each and to the result.

`quality&net:dilate:3` is the part of `quality` within 3 mm of `net`; `erode:1,fill,largest` are
operations, done from left to right, radii in mm; `erode` and `dilate` take or add one layer of
voxels at least.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsm_nipype.errors import UsageError

_WITH_RADIUS = ("erode", "dilate", "open", "close")
_WITHOUT = ("fill", "largest")


@dataclass(frozen=True)
class Operation:
    """One step of the mask language: `name`, and a radius in mm where it takes one."""

    name: str
    radius: float = 0.0


@dataclass(frozen=True)
class MaskPart:
    """One of the masks to intersect: its method's name, and the operations on it alone."""

    name: str
    operations: str = ""


def parse_masks(text: str) -> tuple[MaskPart, ...]:
    """`quality&net:dilate:3` → the masks to intersect. Raises UsageError for a bad operation."""
    parts = []
    for part in text.split("&"):
        name, _, operations = (piece.strip() for piece in part.partition(":"))
        parse_operations(operations)
        parts.append(MaskPart(name, operations))
    return tuple(parts)


def parse_operations(text: str) -> tuple[Operation, ...]:
    """`erode:1,fill,largest` → operations in that order; an empty text gives none.

    Known are erode:MM, dilate:MM, open:MM, close:MM, fill and largest. Raises UsageError.
    """
    return tuple(_parse_operation(part.strip()) for part in text.split(",") if part.strip())


def _parse_operation(text: str) -> Operation:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if name in _WITHOUT:
        if colon:
            raise UsageError(f"mask operation {text!r}: {name} takes no radius; write {name}")
        return Operation(name)
    if name not in _WITH_RADIUS:
        known = [f"{n}:MM" for n in _WITH_RADIUS] + list(_WITHOUT)
        raise UsageError(f"mask operation {text!r} is unknown; choose from {', '.join(known)}")
    try:
        radius = float(value)
    except ValueError:
        radius = float("nan")
    if not 0 < radius < 100:
        raise UsageError(
            f"mask operation {text!r}: give the radius in mm, above 0 and below 100, as {name}:2"
        )
    return Operation(name, radius)
