"""What can go wrong through no fault of the program, each said in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class QSMError(Exception):
    """Base of the errors shown to the user as one sentence, without a traceback."""


class UsageError(QSMError):
    """The command line or a configuration file asks for something that cannot be done."""


class DataError(QSMError):
    """An input file is unusable; the message names the file and the cure."""


class WeightsError(QSMError):
    """A network's weight file is missing, damaged, or of another network."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean tv?)` where one of the `known` words is near, else nothing."""
    near = get_close_matches(word, list(known), 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""
