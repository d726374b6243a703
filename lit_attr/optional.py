"""Other libraries: importing optional ones, with an error that says how to install them, and what others raise."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lit_attr.errors import ConfigurationError, DataError, reason


def require(library: str, extra: str) -> Any:  # noqa: ANN401 - a module, whose types are known only where it is installed
    """Import an optional library.

    Args:
        library: Name of the library, or of a module of it.
        extra: Extra of this package that installs it.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        return import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise ConfigurationError(f"the library {name!r} is needed here: pip install 'lit_attr[{extra}]'") from error


@contextmanager
def as_data_error(problem: str) -> Iterator[None]:
    """Whatever a library raises meanwhile becomes an error of the package's own.

    That includes panics of libraries in Rust, which are no `Exception`.

    Args:
        problem: What cannot be done, with the name of the file.

    Raises:
        DataError: If the library raises anything.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise DataError(f"{problem}: {reason(error)}") from error
        raise
