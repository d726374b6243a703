"""Importing optional libraries, with an error that says how to install them."""

from importlib import import_module
from typing import Any

from lit_attr.errors import ConfigurationError


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
