"""Where the numbers of a result come from: the schema of its provenance, with one reader for each entry.

Stored is a mapping of plain types (text, numbers, lists, dictionaries), so that the file opens without this package. It
is read entry by entry: files of other tools may have none of them, or entries of their own, and a damaged one stands in
the way of nothing but itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_attr.data.batch_ids import Ids
from lit_attr.errors import StorageError
from lit_attr.storage.coverage import Coverage

# Version 1 has no number of its own: what was written before there were versions.
SCHEMA = 2
# Entries that must agree for sums to belong together: the model, which rows are zero, how exact they are.
SAME_IN_ALL_PARTS = ("weights_digest", "not_targets", "precision")


@dataclass(frozen=True)
class Provenance:
    """What is known of where a result's numbers come from.

    A property is None where its entry is not recorded, and raises a `StorageError` that names the entry, what was
    expected and what was found, where it is recorded otherwise than `lit_attr` does.

    Attributes:
        entries: The stored mapping, in plain types; empty where nothing is recorded.
    """

    entries: Mapping[str, Any]

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any] | None) -> "Provenance":
        """Take what a file holds.

        Raises:
            StorageError: If its schema is newer than this version reads.
        """
        known = cls({} if stored is None else stored)
        if (known.schema or 1) > SCHEMA:
            raise StorageError(
                f"the provenance's schema is {known.schema}, and this version of lit_attr reads up to {SCHEMA}: "
                "the file was written by a newer version"
            )
        return known

    @property
    def schema(self) -> int | None:
        """Version of the schema."""
        return self._read(int, "schema")

    @property
    def run_id(self) -> str | None:
        """Id of the decomposition run."""
        return self._read(str, "run_id")

    @property
    def run_reference(self) -> str | None:
        """Where the run was loaded from."""
        return self._read(str, "run_reference")

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer of the dataset that was harvested, a path or a name on the hub."""
        return self._read(str, "configuration", "data", "dataset", "tokenizer")

    @property
    def path_table(self) -> Mapping[str, Any] | None:
        """The table of the model's matrices, if it was harvested with one of its own."""
        return self._read(Mapping, "configuration", "model", "path_table")

    @property
    def coverage(self) -> Coverage | None:
        """Which batches are in the result."""
        entry = self._read(object, "coverage")
        return None if entry is None else Coverage.from_mapping(entry)

    @property
    def partial(self) -> str | None:
        """How much a partial result covers, such as `5 of 9 batches`; None for a complete one."""
        return None if self.coverage is None else self.coverage.partial

    def not_targets(self, layer: str) -> Ids:
        """Indices of a layer's components that were no targets, whose sums are not measured; empty if not recorded."""
        listed = self._read(object, "not_targets", layer)
        if listed is None:
            return np.empty(0, np.int64)
        if not isinstance(listed, list | tuple) or not all(type(index) is int for index in listed):
            raise _damaged(("not_targets", layer), "indices", listed)
        return np.array(listed, np.int64)

    def was_target(self, layer: str, index: int) -> bool:
        """Whether a component was a target; also True where that is not recorded."""
        return index not in self.not_targets(layer)

    def _read(self, kind: Any, *names: str) -> Any:  # noqa: ANN401 - of that kind, or None
        """An entry under nested names; None where there is nothing, or what it should stand in is no mapping."""
        value: Any = self.entries
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise _damaged(names, kind.__name__, value)
        return value


def _damaged(names: tuple[str, ...], expected: str, found: object) -> StorageError:
    entry = " of ".join([names[0], *names[1:]]) if names[0] == "not_targets" else ".".join(names)
    return StorageError(f"the provenance's {entry} is damaged: expected {expected}, found {found!r}")


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
