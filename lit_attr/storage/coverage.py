"""How much of its data a stored harvest covers."""

from collections.abc import Mapping
from typing import Any

from lit_attr.storage.ids import from_ranges


def missing_batches(provenance: Mapping[str, Any] | None) -> str | None:
    """How much of its data a partial result covers, in words; None for one that covers all, or does not say.

    Args:
        provenance: Of a stored harvest.
    """
    covered = (provenance or {}).get("coverage")
    if covered is None or covered["complete"]:
        return None
    return f"{len(from_ranges(covered['batches']))} of {covered['n_batches']} batches"
