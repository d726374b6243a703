"""Where the numbers of a result come from: the schema of its provenance, with one reader for each entry.

Stored is a mapping of plain types (text, numbers, lists, dictionaries), so that the file opens without this package. It
is read entry by entry: files of other tools may have none of them, or entries of their own, and a damaged one stands in
the way of nothing but itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lit_attr.data.batch_ids import Ids
from lit_attr.errors import StorageError, UnsupportedModelError
from lit_attr.files.roots import could_be_path
from lit_attr.storage.batch_coverage import Coverage, damaged
from lit_attr.storage.harvested_metrics import HarvestedMetrics
from lit_attr.topology.paths import PathTable

# Version 1 has no number of its own: what was written before there were versions.
SCHEMA = 2
# Entries that must agree for sums to belong together: the model, which rows are zero, how exact they are.
SAME_IN_ALL_PARTS = ("weights_digest", "not_targets", "precision")
_MOST_INDICES = 1 << 31
# Entries that would be wrong of a sum of results, even where these agree by chance.
_OF_ONE_RESULT = (
    *("coverage", "n_tokens", "n_abs_tokens", "generations", "merged_from"),
    *("data_shape", "order_seed", "order_rows"),
)


@dataclass(frozen=True)
class Provenance:
    """What is known of where a result's numbers come from.

    A property is None where its entry is not recorded. Entries that decide what numbers mean raise a `StorageError`
    with the entry's name, what was expected and what was found, where they are recorded otherwise than `lit_attr` does.

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
        if known.schema > SCHEMA:
            raise StorageError(
                f"the provenance's schema is {known.schema}, and this version of lit_attr reads up to {SCHEMA}: "
                "the file was written by a newer version"
            )
        return known

    @property
    def schema(self) -> int:
        """Version of the schema; 1 where none is recorded."""
        schema = self._entry("schema")
        if schema is None:
            return 1
        if type(schema) is not int:
            raise damaged("schema", "a number", schema)
        return schema

    @property
    def run_id(self) -> str | None:
        """Id of the decomposition run."""
        return self._text("run_id")

    @property
    def run_reference(self) -> str | None:
        """Where the run was loaded from, or the language model that was decomposed without training."""
        return self._path("run_reference")

    @property
    def checkpoint(self) -> str | None:
        """File name of the decomposition's checkpoint."""
        return self._text("checkpoint")

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of the decomposition's tensors."""
        return self._text("weights_digest")

    @property
    def decomposition(self) -> Mapping[str, Any] | None:
        """How a language model was decomposed without training; None for a run that was trained."""
        entry = self._entry("decomposition")
        return entry if isinstance(entry, Mapping) else None

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer of the dataset that was harvested: a path, or a name on the hub."""
        return self._path("configuration", "data", "dataset", "tokenizer")

    @property
    def targets(self) -> Mapping[str, Any] | None:
        """By which rule the components that are targets were found, and over how many batches."""
        entry = self._entry("targets")
        return entry if isinstance(entry, Mapping) else None

    @property
    def order(self) -> Literal["random", "file"]:
        """In which order rows came into batches; `file` where it is not recorded, as before there was another.

        In a random order the batches are a sample of all rows; in that of the file they may be one piece of the text.
        """
        return "random" if self._entry("order") == "random" else "file"

    @property
    def path_table(self) -> PathTable | None:
        """Where the model keeps its matrices, if it was harvested with a table of its own."""
        table = self._entry("configuration", "model", "path_table")
        if table is None or (isinstance(table, Mapping) and not table):
            return None
        try:
            return PathTable(**table)
        except (TypeError, AttributeError, UnsupportedModelError) as error:
            raise damaged("path_table", f"a table of paths ({error})", table) from error

    @property
    def software(self) -> list[dict[str, str]]:
        """The versions of the software that computed the sums, by name; empty if not recorded."""
        entry = self._entry("software")
        known = [each for each in entry if isinstance(each, Mapping)] if isinstance(entry, list) else []
        return [{str(name): str(version) for name, version in each.items()} for each in known]

    @property
    def harvested_metrics(self) -> HarvestedMetrics:
        """Which metrics were harvested, and from how much of the data; both from all of it if not recorded."""
        return HarvestedMetrics.from_entries(self.entries)

    @property
    def coverage(self) -> Coverage | None:
        """Which batches are in the result."""
        entry = self._entry("coverage")
        return None if entry is None else Coverage.from_mapping(entry)

    @property
    def partial(self) -> str | None:
        """How much a partial result covers, such as `5 of 9 batches`; None for a complete one."""
        return None if self.coverage is None else self.coverage.partial

    def not_targets(self, layer: str) -> Ids:
        """The components of a layer that were no targets, whose rows are not measured; empty if not recorded."""
        indices = self._entry("not_targets", layer)
        if indices is None:
            return np.empty(0, np.int64)
        if not isinstance(indices, list | tuple) or not all(type(i) is int and 0 <= i < _MOST_INDICES for i in indices):
            raise damaged(f"not_targets of {layer}", "indices", indices)
        return np.array(indices, np.int64)

    def _entry(self, *names: str) -> Any:  # noqa: ANN401 - whatever someone wrote
        """What stands under nested names; None where there is nothing, or what it should stand in is no mapping."""
        value: Any = self.entries
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def _text(self, *names: str) -> str | None:
        """A text under nested names; other tools may write there what is none."""
        value = self._entry(*names)
        return value if isinstance(value, str) else None

    def _path(self, *names: str) -> str | None:
        """A path or name under nested names, if what is there can be one."""
        text = self._text(*names)
        return text if text is not None and could_be_path(text) else None


def merged_provenance(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The provenance of a sum of results: what all agree on, the coverage of all, and each of them in full.

    The coverage is left out where it is not known of all, and none is partial, and what counts or describes the data of
    one result is in `merged_from` alone. The components that are no targets are kept where only some parts record them.

    Args:
        parts: The provenance of each result; None where it has none.

    Raises:
        StorageError: If a part's coverage, or what it says of its metrics, is damaged.
    """
    known = [dict(part) for part in parts if part is not None]
    if not known:
        return None
    common = {key: value for key, value in known[0].items() if all(part.get(key) == value for part in known)}
    for name in _OF_ONE_RESULT:
        common.pop(name, None)
    # What one part has not measured is not measured in the sum, whether or not the others say so.
    for part in known:
        if part.get("not_targets") is not None:
            common["not_targets"] = part["not_targets"]
    covered = [part.coverage for part in map(Provenance.from_mapping, parts) if part.coverage is not None]
    total = Coverage.joined(covered)
    if not total.complete or len(covered) == len(parts):
        common["coverage"] = total.to_mapping()
    samples = [part.harvested_metrics.n_abs_tokens for part in map(Provenance.from_mapping, parts)]
    if any(n is not None for n in samples):
        common["n_abs_tokens"] = sum(n or 0 for n in samples)
    return {**common, "merged_from": [None if part is None else dict(part) for part in parts]}
