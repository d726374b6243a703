"""Answers as polars frames."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_attr.optional import require

if TYPE_CHECKING:
    import polars


def to_frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, type]) -> "polars.DataFrame":
    """A frame of rows.

    Args:
        rows: A value for each column.
        schema: Columns with the Python types of their values; a value may be missing.

    Raises:
        ConfigurationError: If polars is not installed.
    """
    return require("polars", "frames").DataFrame(list(rows), schema=dict(schema))
