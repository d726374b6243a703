"""How much of its data a stored harvest covers."""

from collections.abc import Mapping
from typing import Any

from lit_attr.errors import StorageError
from lit_attr.storage.provenance import entry


def missing_batches(provenance: Mapping[str, Any] | None) -> str | None:
    """How much of its data a partial result covers, in words; None for one that covers all, or does not say.

    Args:
        provenance: Of a stored harvest.

    Raises:
        StorageError: If the provenance's entry is not as `lit_attr` writes it.
    """
    covered = entry(provenance, "coverage")
    try:
        if covered is None or covered["complete"]:
            return None
        n_covered = sum(len(range(first, last + 1, step)) for first, last, step in covered["batches"])
        return f"{n_covered} of {int(covered['n_batches'])} batches"
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StorageError(
            "the provenance's coverage is damaged: expected complete, n_batches, and batches as [first, last, step], "
            f"found {covered!r}"
        ) from error
