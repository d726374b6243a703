"""The package's exceptions, and how their messages name a few of many things.

A user's mistake ends in one of these exceptions, whose message names the thing, what was expected, and what was found.
"""

from collections.abc import Sequence


class LitAttrError(Exception):
    """Base of every exception that the package raises on purpose."""

    # What a command that ends in it exits with.
    exit_code = 2

    # KeyError would show the repr of its message; the plain text is what a person should read.
    __str__ = Exception.__str__


class ReferenceFormatError(LitAttrError, ValueError):
    """A string that is neither a run reference nor an existing path."""


class RunNotFoundError(LitAttrError, FileNotFoundError):
    """A run, or a file of it, that no cache holds."""


class RunFormatError(LitAttrError, ValueError):
    """A run whose configuration or checkpoint cannot be understood."""


class UnsupportedModelError(LitAttrError, ValueError):
    """A model, or a decomposed matrix of one, that has no place in the attribution graph."""


class ConfigurationError(LitAttrError, ValueError):
    """Settings that contradict each other, break gradients, or do not fit the machine."""


class NumericalError(LitAttrError, ArithmeticError):
    """Sums that are no longer numbers."""


class DataError(LitAttrError, ValueError):
    """Token data that is missing, malformed, or does not belong to the model."""


class KeyFormatError(LitAttrError, ValueError):
    """A component key that is not `<layer>:<index>`."""


class EdgeNotFoundError(LitAttrError, KeyError):
    """An edge between two keys that the storage does not hold."""


class StorageError(LitAttrError, OSError):
    """A stored result that cannot be written, read, or merged."""


class LaunchError(LitAttrError, RuntimeError):
    """Jobs that cannot be submitted, or a working tree that cannot be snapshot."""


class InterruptedHarvestError(LitAttrError):
    """A harvest that was stopped before its end; the same command continues from what it has committed.

    Args:
        message: What stopped it, and what is committed.
        exit_code: Exit code of the process.
    """

    def __init__(self, message: str, exit_code: int = LitAttrError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def few(things: Sequence[object], shown: int = 5) -> str:
    """The first of several things, for a message.

    Args:
        things: What a message is about, such as names.
        shown: Number of things that are shown; an ellipsis stands for the others.

    Example:
        >>> few(["a", "b", "c"], shown=2)
        'a, b, ...'
    """
    return ", ".join(map(str, things[:shown])) + (", ..." if len(things) > shown else "")
