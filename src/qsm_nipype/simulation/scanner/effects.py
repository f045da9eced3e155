"""The effects by name, and what a user's choice of them means."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from qsm_nipype.errors import UsageError

#: effect → what it does; each can be switched on and off alone
EFFECTS = MappingProxyType(
    {
        "finer": "tissue at half the voxel; the complex signal is averaged over the voxel",
        "surroundings": "orbital fat, dura, venous plexus, arteries, bone open towards sinuses",
        "fat": "six spectral peaks of fat, shifted along the readout",
        "anisotropy": "white matter's susceptibility depends on its fibres' direction",
        "microstructure": "white-matter frequency that no dipole makes, 3 ppb",
        "flow": "phase of moving blood, growing with every readout",
        "transmit": "flip angle that varies through the head, most at 7 T",
        "poles": "phase poles with open-ended fringe lines, as coil combination leaves them",
        "breathing": "field that follows breathing, about 1 Hz at 3 T, from line to line",
        "drift": "field drift from line to line, eddy-current phase from echo to echo",
        "motion": "the head moves once, by about half a millimetre",
        "kspace": "elliptical k-space, partial Fourier, zero filling, a filter",
        "gfactor": "noise twice as high in the middle of the head as at its rim",
        "storage": "integers of 12 bits",
    }
)
#: scanners by name: the effects that they have
SCANNERS = MappingProxyType({"clean": (), "realistic": tuple(EFFECTS)})


def chosen(
    scanner: str = "clean", effects: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[str, ...]:
    """The effects of `scanner` or, where any are named, `effects`; less those in `without`.

    In the order of `EFFECTS`, each once. Raises UsageError for unknown names.
    """
    unknown = sorted({*effects, *without} - set(EFFECTS))
    if unknown:
        raise UsageError(
            f"no effect is named {', '.join(unknown)}; there are {', '.join(EFFECTS)}"
        )
    wanted = effects or SCANNERS[scanner]
    return tuple(e for e in EFFECTS if e in wanted and e not in without)
