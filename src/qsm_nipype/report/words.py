"""Words and figures of the pages: numbers, durations, names of acquisitions, sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from urllib.parse import quote

from qsm_nipype.dataset.names import stem

#: a path with its folders, in a sentence: they may name persons and places
_PATH = re.compile(
    r"(?<![\w:/.*)°%])(?:~|file:/{2})?/(?P<folders>(?:(?:[^\s/'\":;.]+ )*[^\s/'\":;]+/)*)"
    r"(?P<last>[^\s/'\":;,)]*)"
    r"|(?<![\w/])[A-Za-z]:\\(?P<drive>(?:[^\\'\":;]+\\)*)(?P<name>[^\s\\'\":;,)]*)"
)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
#: digits after the point beyond which a measure of the unit says nothing
_DIGITS = {"%": 1, "‰": 1, "ppb": 1, "cm³": 0, "mm³": 0, "ppm": 4, "1/s": 1}


def title_of(entities: Mapping[str, str]) -> str:
    """The acquisition's name within its subject: "ses-1, run-2", or "Gradient echoes"."""
    own = stem({k: v for k, v in entities.items() if k != "sub"})
    return own.replace("_", ", ") or "Gradient echoes"


def make_anchor(title: str) -> str:
    """The place of an acquisition in its subject's page, by its `title_of`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "acquisition"


def href(path: object) -> str:
    """A path as a link."""
    return quote(str(path))


def without_folders(text: str) -> str:
    """`text` with the files in it named without the folders in which they lie.

    A folder at the end of a path is not named either: it may be a person's.
    """
    return _PATH.sub(_name, text)


def _name(path: re.Match[str]) -> str:
    last = path["last"] or path["name"] or ""
    if not (path["folders"] or path["drive"] or last):
        return path[0]  # a stroke between words
    known = "." in last.rstrip(".") or last.startswith(("sub-", "ses-"))
    return last if known else "a folder" + ("." if last.endswith(".") else "")


def format_measure(value: float | str, unit: str) -> str:
    """A number with as many digits as its `unit` deserves: 0.0049 % is "< 0.1"."""
    if isinstance(value, str) or unit not in _DIGITS or not math.isfinite(value):
        return format_number(value)
    digits = _DIGITS[unit]
    least = 10.0**-digits
    if value and abs(value) < least / 2:
        return f"< {least:g}" if value > 0 else f"> −{least:g}"
    return format_number(round(value, digits))


def format_number(value: float | str) -> str:
    """A number for people: three significant digits, powers of ten where they help."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "n/a"
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, power = f"{value:.2e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPTS)}".replace("-", "−")
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def format_duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
