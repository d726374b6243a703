"""The optional Hugging Face libraries."""

from importlib import import_module
from types import ModuleType

from lit_attr.errors import DataError


def require(library: str) -> ModuleType:
    """Import `datasets` or `transformers`.

    Raises:
        DataError: If it is not installed.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise DataError(f"the library {library!r} is needed here: pip install 'lit_attr[hf]'") from error
