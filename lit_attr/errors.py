"""The package's exceptions, and how their messages name a few of many things.

A user's mistake ends in one of these exceptions, whose message names the thing, what was expected, and what was found.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from reprlib import Repr


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


class ShapesUnknownError(ConfigurationError):
    """A decomposed model whose shapes cannot be known without its weights."""


class NumericalError(LitAttrError, ArithmeticError):
    """Sums that are no longer numbers."""


class DataError(LitAttrError, ValueError):
    """Token data that is missing, malformed, or does not belong to the model."""


class KeyFormatError(LitAttrError, ValueError):
    """A component key that is not `<layer>:<index>`."""


class EdgeNotFoundError(LitAttrError, KeyError):
    """An edge between two keys that the storage does not hold."""


class NotHeldError(LitAttrError, LookupError):
    """A question about edges that a result does not hold, since it keeps the strongest alone."""


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


class _Short(Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python writes no integers of thousands of digits.
        return super().repr_int(x, level) if x.bit_length() <= 64 else f"an integer of {x.bit_length()} bits"


_SHORT = _Short()
_LONGEST_REASON = 500
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 100, 100


def shown(value: object) -> str:
    """A value from a file as a message shows it: short, whatever it holds.

    Args:
        value: What was found, such as an entry that should have been a number.

    Example:
        >>> shown({"n_batches": [1] * 1000})
        "{'n_batches': [1, 1, 1, 1, 1, 1, ...]}"
    """
    return _SHORT.repr(value)


def reason(error: BaseException) -> str:
    """What a library's exception says, its beginning: some list all that they know."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Exceptions of the package's own name the file that they are about.

    Args:
        path: The file that is read meanwhile.

    Raises:
        LitAttrError: As it was raised, with the path before its message if that does not name it.
    """
    try:
        yield
    except LitAttrError as error:
        if os.fspath(path) in str(error):
            raise
        raise type(error)(f"{os.fspath(path)}: {error}") from error
