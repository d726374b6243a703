"""Reading a provenance, which other tools may have written otherwise than `lit_attr` does."""

from collections.abc import Mapping
from typing import Any


def entry(provenance: Mapping[str, Any] | None, *names: str) -> Any:  # noqa: ANN401 - whatever someone wrote
    """What stands under nested names; None where there is nothing, or what it should stand in is no mapping.

    Args:
        provenance: Of a stored harvest.
        names: From the outermost.
    """
    found: Any = provenance
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
