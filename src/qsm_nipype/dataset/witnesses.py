"""What a sidecar says an image is: phase or magnitude, filtered or not; it must not contradict.

`ImageType` is DICOM's (0008,0008) as converters write it: the value that names the part is M, P,
R or I (Siemens, Philips) or a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qsm_nipype.errors import DataError

#: Values of ImageType and ComplexImageComponent that name a part (the words of `PARTS`).
_NAMES = {
    "magnitude": ("M", "MAG", "MAGNITUDE", "M_FFE", "M_SE", "M_IR", "M_B0"),
    "phase": ("P", "PHASE", "PHASE MAP", "PHASE_MAP", "PHASE_MAGNITUDE_P"),
    "real": ("R", "REAL", "R_FFE"),
    "imaginary": ("I", "IMAGINARY", "IMAG", "I_FFE"),
}
_CLAIMS = {value: part for part, values in _NAMES.items() for value in values}
#: Values that name what was made of images.
_MADE = {
    "SWI": "a susceptibility-weighted image",
    "SWI_IMAGES": "a susceptibility-weighted image",
    "MINIP": "a minimum-intensity projection",
    "MNIP": "a minimum-intensity projection",
    "MIN IP": "a minimum-intensity projection",
    "MIP": "a maximum-intensity projection",
    "PROJECTION IMAGE": "a projection",
    "B0": "a field map",
    "B0 MAP": "a field map",
    "B0_MAP": "a field map",
    "VELOCITY": "a velocity map",
    "VELOCITY MAP": "a velocity map",
    "T2 STAR MAP": "a T2* map",
    "T2_STAR_MAP": "a T2* map",
    "R2 STAR MAP": "an R2* map",
    "R2_STAR_MAP": "an R2* map",
}
#: Comments that name a part, and those that say that phase was filtered, or that it was not.
_COMMENT = re.compile(r"(magnitude|phase|real|imaginary)(?:[ _-](?:image|part|map))?s?", re.I)
_FILTERED = re.compile(
    r"\b(high[- _]?pass(ed)?|homodyne|filtered|swi[- _]?(phase|filter\w*)|phase[- _]?mask)\b", re.I
)
_UNFILTERED = re.compile(r"\b(un-?filter|(no|not|non|without)\b.{0,20}\bfilter)", re.I)
#: Units of maps that are no angle.
_OTHER_UNITS = {
    "hz",
    "khz",
    "ppm",
    "ppb",
    "t",
    "tesla",
    "rad/s",
    "rads/s",
    "cm/s",
    "m/s",
    "s",
    "ms",
}


def check_witnesses(parts: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> None:
    """Refuse images of which their sidecars say that they are not the part they are named.

    `parts` maps "phase", "magnitude", "real" and "imaginary" to (name, sidecar) of each image. An
    ImageType that all parts share (a sidecar for both) speaks for none. Raises DataError.
    """
    types = {str(s.get("ImageType")) for images in parts.values() for _, s in images}
    shared = len(types) == 1 and sum(bool(images) for images in parts.values()) > 1
    for part, images in parts.items():
        for name, sidecar in images:
            without = {k: v for k, v in sidecar.items() if k != "ImageType" or not shared}
            check_image(name, part, without)


def check_image(name: str, part: str, sidecar: Mapping[str, Any]) -> None:
    """Refuse the image `name` where its `sidecar` says that it is not the `part`: DataError."""
    _check_part(name, part, sidecar)
    if part == "magnitude":
        return
    _check_filter(name, sidecar)
    units = str(sidecar.get("Units", "")).strip()
    if part == "phase" and units.lower() in _OTHER_UNITS:
        raise DataError(
            f"{name}: its sidecar says Units: {units}, which no phase has; give the phase image, "
            "or correct Units (rad or arbitrary)"
        )


def claimed_parts(sidecar: Mapping[str, Any]) -> set[str]:
    """The parts that ImageType, ComplexImageComponent or a comment name; empty: they name none."""
    comment = _COMMENT.fullmatch(str(sidecar.get("ImageComments", "")).strip())
    said = {comment.group(1).lower()} if comment else set()
    return said | {_CLAIMS[value] for value in _values(sidecar) if value in _CLAIMS}


def _values(sidecar: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key in ("ImageType", "ImageTypeText", "ComplexImageComponent"):
        value = sidecar.get(key, ())
        several = value if isinstance(value, list | tuple) else str(value).split("\\")
        found += [str(item).strip().upper() for item in several]
    return found


def _check_part(name: str, part: str, sidecar: Mapping[str, Any]) -> None:
    claims = claimed_parts(sidecar)
    if claims and part not in claims:
        said = " and ".join(sorted(claims))
        raise DataError(
            f"{name}: it is named {part}, but its sidecar (ImageType, ImageComments) says "
            f"{said}; if the {part} and {said} images are exchanged, exchange their names (with "
            "their sidecars), otherwise correct the sidecar"
        )
    for value in _values(sidecar):
        if value in _MADE and part not in claims - {"magnitude"}:
            raise DataError(
                f"{name}: ImageType in its sidecar says {value}, {_MADE[value]}; give the "
                f"{part} image as acquired"
            )


def _check_filter(name: str, sidecar: Mapping[str, Any]) -> None:
    made = [v for v in _values(sidecar) if v in ("FILTERED", "HIGHPASS", "HIGH PASS", "HPF")]
    text = " ".join(
        str(sidecar.get(key, ""))
        for key in ("ImageComments", "ImageComment", "DerivationDescription")
    )
    where = f"ImageType {made[0]}" if made else ""
    comment = _FILTERED.search(text)
    if not where and comment and not _UNFILTERED.search(text):
        where = f"the comment {comment.group(0)!r}"
    if where:
        raise DataError(
            f"{name}: {where} in its sidecar says that the phase was filtered, as for SWI, which "
            "takes much of the susceptibility away; give the unfiltered phase, or correct the "
            "sidecar"
        )
