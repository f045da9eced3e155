"""What can go wrong through no fault of the program, each said in one sentence."""


class QSMError(Exception):
    """Base of the errors shown to the user as one sentence, without a traceback."""


class UsageError(QSMError):
    """The command line or a configuration file asks for something that cannot be done."""


class DataError(QSMError):
    """An input file is unusable; the message names the file and the cure."""


class WeightsError(QSMError):
    """A network's weight file is missing, damaged, or of another network."""
