"""Which of its batches a result covers: one entry of its provenance, written and read here alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lit_attr.data.batch_ids import MAX_BATCHES, Ids, show, to_ranges
from lit_attr.errors import StorageError, shown

_EXPECTED = "complete, n_batches, and batches as [first, last, step]"
_MOST_IDS = 1 << 62


@dataclass(frozen=True)
class Coverage:
    """Which batches are in a result.

    Attributes:
        n_batches: Batches that a complete result has.
        batches: Ids of the batches that it has, as ranges [first, last, step].
        complete: Whether these are all.
    """

    n_batches: int
    batches: Sequence[tuple[int, int, int]]
    complete: bool

    @classmethod
    def of(cls, ids: Ids, n_batches: int) -> "Coverage":
        """The coverage of a result with these batches, of so many."""
        ranges = [(first, last, step) for first, last, step in to_ranges(ids)]
        return cls(n_batches, ranges, complete=len(ids) == n_batches)

    @classmethod
    def from_mapping(cls, entry: Any) -> "Coverage":  # noqa: ANN401 - whatever someone wrote
        """Read a provenance's entry.

        Raises:
            StorageError: If it is not as `lit_attr` writes it.
        """
        try:
            ranges = [(first, last, step) for first, last, step in entry["batches"]]
            n_batches, complete = entry["n_batches"], entry["complete"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise damaged("coverage", _EXPECTED, entry) from error
        if type(complete) is not bool or not _is_count(n_batches) or not all(map(_is_range, ranges)):
            raise damaged("coverage", _EXPECTED, entry)
        return cls(n_batches, ranges, complete)

    def to_mapping(self) -> dict[str, Any]:
        """The provenance's entry, in plain types."""
        batches = [list(batches) for batches in self.batches]
        return {"n_batches": self.n_batches, "batches": batches, "complete": self.complete}

    @property
    def n_covered(self) -> int:
        """How many batches are listed; counted without writing them out."""
        return sum(len(range(first, last + 1, step)) for first, last, step in self.batches)

    @property
    def partial(self) -> str | None:
        """How much a partial result covers, such as `5 of 9 batches`; None for a complete one."""
        return None if self.complete else f"{self.n_covered} of {self.n_batches} batches"

    def missing(self) -> Ids:
        """The ids that are not listed, after a check that the list makes sense.

        Raises:
            StorageError: If batches are listed twice, or are none of the harvest's, or `complete` is wrong.
        """
        if self.n_batches > MAX_BATCHES:
            raise StorageError(f"its coverage is of {self.n_batches} batches; up to {MAX_BATCHES} can be checked")
        is_listed = np.zeros(self.n_batches, bool)
        for first, last, step in self.batches:
            if last >= self.n_batches:
                foreign = range(first, last + 1, step)[len(range(first, self.n_batches, step)) :]
                others = f"{len(foreign)} ({foreign[0]}-{foreign[-1]})"
                raise StorageError(f"of {self.n_batches} batches, its coverage lists others: {others}")
            if is_listed[first : last + 1 : step].any():
                raise StorageError("its coverage lists batches twice")
            is_listed[first : last + 1 : step] = True
        missing = np.flatnonzero(~is_listed)
        if bool(len(missing)) == self.complete:
            raise StorageError(f"complete is {self.complete}, but batches {show(missing)} are missing")
        return missing

    @classmethod
    def joined(cls, parts: Iterable["Coverage"]) -> "Coverage":
        """The coverage of several results that were added; their batches are numbered one result after another."""
        total = cls(0, [], complete=True)
        for part in parts:
            moved = [(first + total.n_batches, last + total.n_batches, step) for first, last, step in part.batches]
            total = replace(
                total,
                n_batches=total.n_batches + part.n_batches,
                batches=[*total.batches, *moved],
                complete=total.complete and part.complete,
            )
        return total


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_IDS


def _is_range(batches: tuple[object, object, object]) -> bool:
    first, last, step = batches
    return all(map(_is_count, batches)) and first <= last and step > 0  # type: ignore[operator]


def damaged(entry: str, expected: str, found: object) -> StorageError:
    """What is raised where an entry of a provenance is otherwise than `lit_attr` writes it."""
    return StorageError(f"the provenance's {entry} is damaged: expected {expected}, found {shown(found)}")
