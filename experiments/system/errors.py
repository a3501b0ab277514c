"""How a program ends other than well: bad input, a stop, a failure."""


class InputError(ValueError):
    """Bad input: the message names the setting, its value and what to do.

    Every function here refuses so what a user gave it, before any long work.
    """


class ConfigError(InputError):
    """A setting is wrong."""


class DataError(InputError):
    """Data are missing, damaged or unknown."""


class DamagedFile(InputError):
    """A file is not what this program wrote: the message names it and what to do."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, out of order, or of another model."""


class Ended(Exception):
    """The program ends before its work is done."""

    status = 1  # exit status of the process


class NonFiniteLoss(Ended):
    """The loss was not finite; what came before is kept: exit status 1."""


class NonFiniteResult(Ended):
    """An evaluation met a number that is not finite: exit status 1."""


class Stopped(Ended):
    """A signal stopped the run after its state was saved: exit status 3."""

    status = 3
